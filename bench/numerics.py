"""What changes the answers of a local model, and by how much: `python -m bench.numerics` prints the tables.

The reference is each input alone, on one thread, in float32, with SDPA attention. Each line changes one thing. The
worker's own code prepares, cuts, pads and calls. No machine is fast or slow here, so nothing is measured in seconds.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import tokenizers
import torch
import transformers

from bench.local_models import ROOT, folder_of, inputs_of, prepare
from orchestrator.worker.loading import load
from orchestrator.worker.model import ModelSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from orchestrator.worker.batches import BatchedModel

TASKS = ("feature-extraction", "text-classification", "text-generation", "automatic-speech-recognition")
PARAMETERS: Mapping[str, dict[str, Any]] = {
    "text-classification": {"top_k": None},
    "text-generation": {"max_new_tokens": 16, "return_full_text": False},
}
COUNTS = {"feature-extraction": 32, "text-classification": 32, "text-generation": 8}
WIDE = 1 << 20  # tokens: everything in one call


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that differs from the reference. `width`: the padded tokens of a call, 0 for one input at a time."""

    name: str
    dtype: str = "float32"
    threads: int = 1
    attention: str = "sdpa"
    width: int = WIDE
    backwards: bool = False


CHANGES = (
    Change("the same again", width=0),
    Change("batches as the worker cuts them", width=-1),
    Change("all in one call"),
    Change("all in one call, backwards", backwards=True),
    Change("2 threads", threads=2, width=0),
    Change("eager attention", attention="eager", width=0),
    Change("eager attention, all in one call", attention="eager"),
    Change("bfloat16", dtype="bfloat16", width=0),
    Change("bfloat16, all in one call", dtype="bfloat16"),
    Change("float16", dtype="float16", width=0),
)


def main() -> None:
    """Print a table for each task."""
    parser = argparse.ArgumentParser(prog="python -m bench.numerics", description=__doc__)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of {', '.join(TASKS)}; default: all")
    tasks = parser.parse_args().tasks or TASKS
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, tokenizers {tokenizers.__version__}")
    print(f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}")
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks:
            model, inputs = _model_and_inputs(task, Path(folder))
            tell(task, model, inputs)


def _model_and_inputs(task: str, folder: Path) -> tuple[str, list[object]]:
    if task == "automatic-speech-recognition":
        return _speech(folder)
    prepare(task)
    return folder_of(task), inputs_of(task, COUNTS[task])


def _speech(folder: Path) -> tuple[str, list[object]]:
    """Whisper, and three pieces of a reading, of different length."""
    from tests.real.packages import folder_of as package
    from tests.real.whisper import write_whisper
    from tests.worker.asking import stored, wav

    write_whisper(folder / "whisper")
    samples, rate = _samples(package("moonshine_voice") / "assets" / "beckett.wav")
    pieces = [samples, samples[: 6 * rate], samples[: 3 * rate]]
    return str(folder / "whisper"), [
        stored(folder / f"{number}.wav", wav(piece, rate), "audio/wav") for number, piece in enumerate(pieces)
    ]


def _samples(path: Path) -> tuple[Any, int]:
    import wave

    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2"), file.getframerate()


def tell(task: str, model: str, inputs: Sequence[object]) -> None:
    """Print how far each change takes the answers from the reference."""
    reference = answers(Change("reference", width=0), task, model, inputs)
    print(f"\n{task}, {Path(model).relative_to(ROOT) if model.startswith(str(ROOT)) else Path(model).name}")
    for change in CHANGES:
        try:
            found = answers(change, task, model, inputs)
        except RuntimeError as error:
            print(f"  {change.name:36} {str(error).splitlines()[0][:80]}", flush=True)
            continue
        print(f"  {change.name:36} {_COMPARED[task](reference, found)}", flush=True)


def answers(change: Change, task: str, model: str, inputs: Sequence[object]) -> list[Any]:
    """Ask as this change has it; return the outputs in the order of the inputs."""
    batches = load(ModelSettings(task=task, model=model, device="cpu", dtype=change.dtype, threads=change.threads))
    if change.attention != "sdpa":
        _library_model(batches).set_attn_implementation(change.attention)
    if change.width > 0:
        batches = type(batches)(_with_budget(batches.model, change.width))
    order = range(len(inputs))[:: -1 if change.backwards else 1]
    asked = [[number] for number in order] if change.width == 0 else [[*order]]
    found: dict[int, Any] = {}
    for numbers in asked:
        entries = batches.answer([inputs[number] for number in numbers], dict(PARAMETERS.get(task, {})))
        for number, entry in zip(numbers, map(orjson.loads, entries), strict=True):
            if "output" not in entry:
                raise RuntimeError(entry["error"]["message"])
            found[number] = entry["output"]
    return [found[number] for number in range(len(inputs))]


def _library_model(batches: BatchedModel) -> Any:
    named = vars(batches.model)
    return named["_pipe"].model if "_pipe" in named else named["_model"]


def _with_budget(model: Any, budget: int) -> Any:
    model.budget = budget
    return model


# -- how answers compare -----------------------------------------------------------------------------------------------


def _vectors(some: Sequence[Any], others: Sequence[Any]) -> str:
    a, b = np.array(some, np.float64), np.array(others, np.float64)
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return (
        f"{_same(some, others)}, largest difference {abs(a - b).max():.1e}, lowest cosine 1 - {1 - cosines.min():.1e}"
    )


def _classes(some: Sequence[Any], others: Sequence[Any]) -> str:
    pairs = list(zip(some, others, strict=True))
    labels = sum(a[0]["label"] == b[0]["label"] for a, b in pairs)
    scores = [({one["label"]: one["score"] for one in a}, {one["label"]: one["score"] for one in b}) for a, b in pairs]
    furthest = max(abs(a[label] - b[label]) for a, b in scores for label in a)
    return f"{_same(some, others)}, largest difference of a score {furthest:.1e}, {labels} of {len(some)} first labels"


def _texts(some: Sequence[Any], others: Sequence[Any]) -> str:
    return _same(some, others)


def _same(some: Sequence[Any], others: Sequence[Any]) -> str:
    return f"{sum(a == b for a, b in zip(some, others, strict=True)):2} of {len(some)} identical"


_COMPARED: Mapping[str, Callable[[Sequence[Any], Sequence[Any]], str]] = {
    "feature-extraction": _vectors,
    "text-classification": _classes,
    "text-generation": _texts,
    "automatic-speech-recognition": _texts,
}

if __name__ == "__main__":
    main()
