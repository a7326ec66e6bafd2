"""How batches are cut and settled, seen from a model that records what it is called with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
import pytest

pytest.importorskip("torch", reason="needs the `local` extra")

import numpy as np
import torch
from PIL import Image

from orchestrator.worker.batches import Batches
from orchestrator.worker.encoding import completed
from orchestrator.worker.model import Parameters, Ready

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass
class Echo:
    """Answers every number with itself; a number is its own length. `fits`: padded tokens that memory can hold."""

    task: str = "echo"
    budget: int = 100
    fits: int = 1000
    info: Mapping[str, object] = field(default_factory=dict)
    calls: list[list[int]] = field(default_factory=list)

    def prepare(self, values: Sequence[Any], _parameters: Parameters) -> Sequence[Ready]:
        return [Ready(value, value) for value in values]

    def call(self, values: Sequence[int], _parameters: Parameters) -> Sequence[object]:
        self.calls.append([*values])
        if max(values) * len(values) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return values


def answers(model: Echo, *inputs: int) -> list[int | None]:
    return [orjson.loads(entry).get("output") for entry in Batches(model).answer(inputs, {})]


def test_neighbours_in_length_share_a_batch_and_no_batch_is_wider_than_the_budget() -> None:
    model = Echo(budget=320)
    inputs = (10, 100, 98, 100, 99, 10, 400, 60)
    assert answers(model, *inputs) == [*inputs]
    assert model.calls == [[400], [100, 100, 99], [98], [60], [10, 10]]


def test_a_batch_that_does_not_fit_in_memory_is_halved_and_so_is_every_later_one() -> None:
    model = Echo(budget=80, fits=40)
    assert answers(model, *[10] * 20) == [10] * 20
    assert [len(call) for call in model.calls] == [8, 4, 4, 4, 4, 4]


def test_an_input_that_does_not_fit_alone_is_the_only_one_without_an_answer() -> None:
    model = Echo(budget=80, fits=40)
    assert answers(model, 10, 70, 10) == [10, None, 10]


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
    ],
)
def test_what_json_cannot_hold_is_a_bad_answer_and_not_null(output: object) -> None:
    assert orjson.loads(completed(output))["error"]["kind"] == "bad_answer"
