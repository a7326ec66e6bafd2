"""How batches are split and settled, seen by a model that records its calls."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch", reason="needs the `local` extra")

import numpy as np
import torch
from PIL import Image

from orchestrator.worker.batches import BatchedModel, _cut
from orchestrator.worker.encoding import completed
from orchestrator.worker.model import Parameters, PreparedInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class Mute(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("nothing to say")


@dataclass
class Echo:
    """Answers every number with itself; a number is its own length. `fits` limits the padded tokens in memory."""

    task: str = "echo"
    budget: int = 100
    fits: int = 1000
    seconds: float = 0.0  # that a call takes at any width
    info: Mapping[str, object] = field(default_factory=dict)
    calls: list[list[int]] = field(default_factory=list)

    def prepare(self, values: Sequence[Any], _parameters: Parameters) -> Sequence[PreparedInput]:
        return [PreparedInput(value, value) for value in values]

    def collate(self, values: Sequence[int], _parameters: Parameters) -> Sequence[int]:
        return values

    def call(self, values: Sequence[int], _parameters: Parameters) -> Sequence[object]:
        self.calls.append([*values])
        if max(values) * len(values) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        until = time.perf_counter() + self.seconds
        while time.perf_counter() < until:  # it computes
            pass
        return values


def answers(model: Echo, *inputs: int, **parameters: object) -> list[int | None]:
    return [orjson.loads(entry).get("output") for entry in BatchedModel(model).answer(inputs, parameters)]


def test_inputs_of_similar_length_share_a_batch_within_the_budget() -> None:
    model = Echo(budget=320)
    inputs = (10, 100, 98, 100, 99, 10, 400, 60)
    assert answers(model, *inputs) == [*inputs]
    assert model.calls == [[400], [100, 100, 99], [98], [60], [10, 10]]


def test_a_generating_batch_is_as_wide_as_the_saved_steps_justify_the_padding() -> None:
    inputs = (200, 190, 90, 60, 58, 50)
    for task, parameters, calls in (
        ("echo", {}, [[200, 190], [90], [60, 58, 50]]),
        ("text-generation", {"max_new_tokens": 1}, [[200, 190], [90], [60, 58, 50]]),
        ("text-generation", {"max_new_tokens": 5}, [[200, 190], [90, 60, 58, 50]]),
        ("text-generation", {"generation_parameters": {"max_new_tokens": 5}}, [[200, 190], [90, 60, 58, 50]]),
        ("summarization", {}, [[200, 190, 90, 60, 58, 50]]),
    ):
        model = Echo(task, budget=1024 if task == "echo" else 8192, fits=10_000)
        assert answers(model, *inputs, **parameters) == [*inputs]
        assert model.calls == calls


@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=7),
    budget=st.integers(1, 200),
    call=st.integers(0, 80),
)
def test_no_other_split_is_cheaper(lengths: list[int], budget: int, call: int) -> None:
    cut = [*_cut([(place, PreparedInput(None, length)) for place, length in enumerate(lengths)], budget, call)]
    assert sorted(place for batch in cut for place, _ in batch) == [*range(len(lengths))]
    longest_first = sorted(lengths, reverse=True)
    assert [ready.length for batch in cut for _, ready in batch] == longest_first

    def cost(batches: Iterable[Sequence[int]]) -> float:
        padded = [max(1, batch[0]) * len(batch) for batch in batches]
        alone = [len(batch) == 1 for batch in batches]
        fits = all(one or tokens <= budget for one, tokens in zip(alone, padded, strict=True))
        return sum(padded) + call * len(padded) if fits else math.inf

    others = (
        [longest_first[a:b] for a, b in pairwise([0, *ends, len(lengths)])]
        for count in range(len(lengths))
        for ends in combinations(range(1, len(lengths)), count)
    )
    assert cost([[ready.length for _, ready in batch] for batch in cut]) == min(map(cost, others))


def test_a_batch_that_does_not_fit_in_memory_is_halved_and_later_batches_stay_small() -> None:
    model = Echo(budget=80, fits=40)
    assert answers(model, *[10] * 20) == [10] * 20
    assert [len(call) for call in model.calls] == [8, 4, 4, 4, 4, 4]


def test_only_an_input_that_does_not_fit_alone_has_no_answer() -> None:
    model = Echo(budget=80, fits=40)
    assert answers(model, 10, 70, 10) == [10, None, 10]


def tuned(batches: BatchedModel, requests: int, *inputs: int) -> None:
    for _ in range(requests):
        work = batches.prepare(inputs, {}, tune=True)
        batches.compute(work)
        assert [orjson.loads(entry)["output"] for entry in batches.entries(work)] == [*inputs]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "orchestrator" / "budgets"


def test_the_fastest_width_is_found_and_remembered_per_model_and_device(cache: Path) -> None:
    model = Echo(budget=40, seconds=0.002)
    tuned(BatchedModel(model, {"device": "one"}), 100, *[10] * 64)
    widest = max(map(len, model.calls))
    assert widest == 64  # one call for all of them
    (file,) = cache.iterdir()
    found = json.loads(file.read_text())
    assert found["budget"] >= 320
    assert found["for"] == {"device": "one", "parameters": {}}

    again, elsewhere = Echo(budget=40, seconds=0.002), Echo(budget=40, seconds=0.002)
    tuned(BatchedModel(again, {"device": "one"}), 2, *[10] * 64)
    assert {len(call) for call in again.calls} <= {32, 64}
    tuned(BatchedModel(elsewhere, {"device": "two"}), 1, *[10] * 64)
    assert {len(call) for call in elsewhere.calls} == {4}
    file.write_text('{"budget": true}')  # another worker has written it
    tuned(BatchedModel(again, {"device": "one"}), 1, *[10] * 64)
    assert len(again.calls[-1]) == 4


def test_a_run_too_short_to_finish_tuning_passes_on_its_results(cache: Path) -> None:
    first, second = Echo(budget=40, seconds=0.002), Echo(budget=40, seconds=0.002)
    tuned(BatchedModel(first), 11, *[10] * 64)
    assert not cache.exists()  # nothing better has been found
    tuned(BatchedModel(first), 12, *[10] * 64)
    (file,) = cache.iterdir()
    assert {name: json.loads(file.read_text())[name] for name in ("budget", "settled")} == {
        "budget": 80,
        "settled": False,
    }
    tuned(BatchedModel(second), 100, *[10] * 64)
    assert len(second.calls[0]) == 8
    assert max(map(len, second.calls)) == 64
    assert json.loads(file.read_text())["settled"] is True


def test_without_tuning_nothing_is_tried_or_written(cache: Path) -> None:
    model = Echo(budget=40, seconds=0.002)
    batches = BatchedModel(model)
    for _ in range(30):
        batches.answer([10] * 64, {})
    assert {len(call) for call in model.calls} == {4}
    assert not cache.exists()


def test_a_width_that_does_not_fit_in_memory_is_not_tried_by_the_next_worker(cache: Path) -> None:
    first, second = Echo(budget=80, fits=100), Echo(budget=80, fits=100)
    tuned(BatchedModel(first), 20, *[10] * 64)
    assert [len(call) for call in first.calls].count(16) == 1  # of 160 padded tokens, where 100 fit
    assert cache.exists()
    tuned(BatchedModel(second), 20, *[10] * 64)
    assert max(map(len, second.calls)) == 8


@pytest.mark.parametrize("step", ["prepare", "collate", "call"])
@pytest.mark.parametrize("error", [ValueError("unlucky \ud83d"), SystemExit("unlucky ?"), Mute("unlucky")])
def test_any_error_that_an_input_causes_fails_only_that_input(step: str, error: BaseException) -> None:
    class Fussy(Echo):
        def _check(self, name: str, values: Sequence[int]) -> None:
            if name == step and 13 in values:
                raise error

        def prepare(self, values: Sequence[Any], parameters: Parameters) -> Sequence[PreparedInput]:
            self._check("prepare", values)
            return super().prepare(values, parameters)

        def collate(self, values: Sequence[int], _parameters: Parameters) -> Sequence[int]:
            self._check("collate", values)
            return values

        def call(self, values: Sequence[int], parameters: Parameters) -> Sequence[object]:
            self._check("call", values)
            return super().call(values, parameters)

    entries = [orjson.loads(entry) for entry in BatchedModel(Fussy()).answer([10, 13, 12, {"inputs": 11}], {})]
    assert [entry.get("output") for entry in entries] == [10, None, 12, 11]
    said = entries[1]["error"]["message"]
    assert said.startswith(f"{type(error).__name__}: ")
    assert "test_batches.py, line " in said
    assert "unlucky ?" in said or isinstance(error, Mute)


def test_parameters_that_json_cannot_hold_fail_only_their_own_request() -> None:
    deep = orjson.loads("[" * 500 + "]" * 500)
    entries = BatchedModel(Echo()).answer([10, {"inputs": 11, "parameters": {"deep": deep}}, 12], {})
    assert [orjson.loads(entry).get("output") for entry in entries] == [10, None, 12]


STARVED = """
import resource, sys
import orjson, psutil, torch
from orchestrator.worker.batches import BatchedModel
from orchestrator.worker.model import PreparedInput

class Hungry:
    "Takes a megabyte for each padded token."
    task, budget, info, widest = "echo", 1000, {}, 0
    def prepare(self, values, parameters): return [PreparedInput(value, value) for value in values]
    def collate(self, values, parameters): return values
    def call(self, values, parameters):
        made = torch.ones(max(values) * len(values), 1 << 18)
        self.widest = max(self.widest, len(values))
        return values

torch.set_num_threads(1)
torch.ones(1 << 16).sum()
own = psutil.Process().memory_info().vms
resource.setrlimit(resource.RLIMIT_AS, (own + 600_000_000, -1))
model = Hungry()
batches = BatchedModel(model)
entries = batches.answer([10] * 100 + [2000], {})
print(orjson.dumps([orjson.loads(entry).get("output") for entry in entries]).decode())
print(model.widest, batches.budget)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux heeds a limit on memory")
def test_calls_get_narrower_when_memory_runs_out_and_everything_that_fits_is_answered() -> None:
    root = Path(__file__).parents[2]
    said = subprocess.run([sys.executable, "-c", STARVED], cwd=root, check=True, stdout=subprocess.PIPE, text=True)
    answered, numbers = said.stdout.splitlines()
    assert json.loads(answered) == [10] * 100 + [None]
    widest, budget = map(int, numbers.split())
    assert 10 < widest <= 60  # of 100, with 600 MB
    assert 100 < budget <= 600


@pytest.mark.parametrize(
    ("output", "written"),
    [
        ({"score": np.float32(0.5), "ok": np.bool_(1), 3: None}, {"score": 0.5, "ok": True, "3": None}),
        (np.arange(6).reshape(2, 3).T, [[0, 3], [1, 4], [2, 5]]),
        (torch.tensor([1.5, 2.0], dtype=torch.bfloat16), [1.5, 2.0]),
        (torch.tensor(2), 2),
        (["null", None], ["null", None]),
    ],
)
def test_arrays_and_tensors_are_written_as_numbers(output: object, written: object) -> None:
    assert orjson.loads(completed(output)) == {"output": written}


def test_an_image_is_written_as_base64_png() -> None:
    assert orjson.loads(completed({"mask": Image.new("L", (2, 2))}))["output"]["mask"].startswith("iVBORw0KGgo")


@pytest.mark.parametrize(
    "output",
    [
        float("nan"),
        [{"score": float("inf")}],
        {"vector": np.array([1, np.nan], np.float32)},
        torch.tensor([torch.nan]),
        np.float32("nan"),
        {1, 2},
        [10**5000],
        {"image": Image.new("CMYK", (1, 1))},
    ],
)
def test_values_that_json_cannot_hold_are_a_bad_answer_and_not_null(output: object) -> None:
    assert orjson.loads(completed(output))["error"]["kind"] == "bad_answer"
