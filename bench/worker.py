"""A local model through the engine against transformers.pipeline, sentence-transformers and transformers serve.

All in one run: same model, same inputs of mixed length, in turn, round by round. The ways are in `bench.local_ways`,
models and inputs in `bench.local_models`. What counts is the time from the first request to the last answer, which with
ours is committed in the ledger by then; loading does not. CPU time, of all processes of a way, tells how they compare
where other work on the machine disturbs the clock. `python -m bench.worker` prints all tables, in some ten
minutes on two cores; `--device cuda` adds how busy the GPU was.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.forward_clock import spans
from bench.local_models import prepare
from bench.local_ways import Measured, Order, Way, way

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WAYS = {  # task: kinds of `bench.local_ways`
    "feature-extraction": ("ours", "encode", "pipeline"),
    "text-classification": ("ours", "pipeline"),
    "text-generation": ("ours", "pipeline", "serve", "serve, batching"),
}
AIMS = {("feature-extraction", "encode"): 1.1, ("text-classification", "pipeline"): 1.5}
ENCODE = Order(batch_size=32)  # its default, and the best here: it sorts all texts by length first
SIZES = (1, 4, 8, 16, 32, 64)  # among which the pipeline's best is looked for
SEARCHED = {"feature-extraction": 100, "text-classification": 100, "text-generation": 16}  # inputs, for that
BATCH = 32  # inputs in a request where the overhead is measured
AIM_OF_OVERHEAD = 0.05


@dataclass(frozen=True, slots=True)
class Setting:
    """Where is measured, and how often."""

    device: str
    threads: int
    rounds: int


def main() -> None:
    """Print a table for each task, and what the worker costs beside its model."""
    parser = argparse.ArgumentParser(prog="python -m bench.worker", description=__doc__)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of {', '.join(WAYS)}, overhead; default: all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of a model call")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = vars(parser.parse_args())
    tasks = arguments.pop("tasks") or [*WAYS, "overhead"]
    setting = Setting(**arguments)
    print(f"{setting.device}; medians (lowest to highest) of {setting.rounds} rounds", flush=True)
    for task in tasks:
        if task == "overhead":
            tell_overhead(setting)
        else:
            compare(task, setting)


# -- rates -------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Found:
    """What a way's rounds came to. `busy`: of the GPU, in percent."""

    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  # milliseconds for one input
    busy: list[float] = field(default_factory=list)
    answers: list[object] = field(default_factory=list)


def compare(task: str, setting: Setting) -> None:
    """Measure every way in turn, as often as there are rounds; the pipeline's best batch size is found before."""
    prepare(task)
    found: dict[str, Found] = defaultdict(Found)
    with ExitStack() as stack:
        ways = {kind: stack.enter_context(way(kind, task, setting.device, setting.threads)) for kind in WAYS[task]}
        for each in ways.values():
            each.loaded()
        best, searched = _best_size(ways["pipeline"], task)
        orders = defaultdict(Order, encode=ENCODE, pipeline=Order(best))
        for _ in range(setting.rounds):
            for kind, each in ways.items():
                with gpu_busy(setting.device, found[kind].busy):
                    measured = each.measure(orders[kind])
                found[kind].rates.append(measured.rate)
                found[kind].cpu.append(measured.cpu_each)
                found[kind].answers = measured.answers
    print(f"\n{task}, {setting.threads} threads; the pipeline by batch size, inputs/s: {searched}")
    print(
        f"{'':16} {'inputs/s':>8} {'':17} {'ours to it':>10} {'(rounds)':16} "
        f"{'CPU ms':>7} {'(rounds)':17} {'its to ours':>11} {'alike':>6}{_gpu_title(setting)}"
    )
    for kind, one in found.items():
        print(_line(task, f"{kind} {orders[kind].batch_size or ''}".strip(), kind, one, found["ours"]), flush=True)


def _best_size(pipeline: Way, task: str) -> tuple[int, str]:
    """The one with the highest rate: of two, since other work on the machine can only lower it."""
    count = SEARCHED[task]
    tries = [{size: pipeline.measure(Order(size, count)).rate for size in SIZES if size <= count} for _ in range(2)]
    rates = {size: max(each[size] for each in tries) for size in tries[0]}
    return max(rates, key=rates.__getitem__), ", ".join(f"{size}: {rate:.1f}" for size, rate in rates.items())


def _line(task: str, name: str, kind: str, one: Found, ours: Found) -> str:
    ratios = [mine / theirs for mine, theirs in zip(ours.rates, one.rates, strict=True)]
    cpu = [theirs / mine for mine, theirs in zip(ours.cpu, one.cpu, strict=True)]
    aim = f"  aim {AIMS[task, kind]}" if (task, kind) in AIMS else ""
    busy = f" {statistics.mean(one.busy):6.1f} %" if one.busy else ""
    return (
        f"{name:16} {statistics.median(one.rates):8.2f} {_spread(one.rates):17} "
        f"{statistics.median(ratios):10.2f} {_spread(ratios):16} "
        f"{statistics.median(one.cpu):7.1f} {_spread(one.cpu):17} {statistics.median(cpu):11.2f} "
        f"{_alike(one.answers, ours.answers):6.4f}{busy}{aim}"
    )


def _spread(values: Sequence[float]) -> str:
    return f"({min(values):.2f} to {max(values):.2f})"


def _alike(some: Sequence[object], others: Sequence[object]) -> float:
    """Of vectors the lowest cosine, of anything else how many are the same."""
    if isinstance(some[0], list):
        a, b = np.array(some, np.float64), np.array(others, np.float64)
        return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())
    return statistics.mean(a == b for a, b in zip(some, others, strict=True))


# -- the GPU -----------------------------------------------------------------------------------------------------------


@contextmanager
def gpu_busy(device: str, percents: list[float]) -> Iterator[None]:
    """Add how busy the GPU was during the block, as nvidia-smi sees it five times a second."""
    if not device.startswith("cuda"):
        yield
        return
    number = device.partition(":")[2] or "0"
    command = [
        "nvidia-smi",
        f"--id={number}",
        "--query-gpu=utilization.gpu",
        "--format=csv,noheader,nounits",
        "-lms",
        "200",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sampler:
        try:
            yield
        finally:
            sampler.terminate()
            said, _ = sampler.communicate()
    percents.append(statistics.mean(map(float, said.split())))


def _gpu_title(setting: Setting) -> str:
    return " GPU busy" if setting.device.startswith("cuda") else ""


# -- what the worker costs beside its model ----------------------------------------------------------------------------


def tell_overhead(setting: Setting) -> None:
    """Of a whole run with batches of 32: the seconds in which the model did not compute, by those in which it did.

    That counts more than HTTP, JSON and queues: the tokenizer and the pooling, where they are not beside the model's
    work, the first request on its way and the last answers' commit.
    """
    print(f"\noverhead, feature-extraction, {BATCH} inputs in a request (aim {AIM_OF_OVERHEAD:.0%})")
    for threads in sorted({1, setting.threads}):
        shares = overheads(Setting(setting.device, threads, setting.rounds))
        spread = f"({min(shares):.2%} to {max(shares):.2%})"
        print(f"{threads} threads {statistics.median(shares):8.2%} {spread}", flush=True)


def overheads(setting: Setting) -> list[float]:
    """One number for each round."""
    task = "feature-extraction"
    prepare(task)
    with tempfile.TemporaryDirectory() as folder:
        clock = Path(folder) / "clock"
        with way("ours", task, setting.device, setting.threads, BENCH_CLOCK=str(clock)) as ours:
            ours.loaded()
            rounds = [ours.measure(Order(BATCH)) for _ in range(setting.rounds)]
        computed = spans(clock)
    return [_overhead(one, computed) for one in rounds]


def _overhead(one: Measured, computed: Sequence[tuple[float, float]]) -> float:
    inside = sum(ended - begun for begun, ended in computed if one.begun <= begun and ended <= one.ended)
    return (one.ended - one.begun) / inside - 1


if __name__ == "__main__":
    main()
