"""A text that a model ends at its token limit is answered and marked; one that ends by itself is not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("transformers", reason="needs the `local` extra")

import torch

from orchestrator.worker.limits import LimitWatch
from orchestrator.worker.model import AtLimit
from tests import tiny_models, tiny_readers
from tests.worker.asking import serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ANY = list(range(len(tiny_models.tokenizer())))  # every token ends a text
NO_END = {"suppress_tokens": [0, 1, 2]}  # the tokens that end and pad texts are never generated


@pytest.mark.parametrize(
    ("task", "made"), [("text-generation", tiny_models.generator), ("text2text-generation", tiny_readers.t5)]
)
def test_truncated_text_is_marked(tmp_path: Path, task: str, made: Callable[[Path], Path]) -> None:
    ask = serve(made(tmp_path / "model"), task)
    rows = ["once", {"inputs": "a longer text", "parameters": {"eos_token_id": ANY}}, "twice"]
    assert ["cut" in entry for entry in ask(*rows, max_new_tokens=3, **NO_END)] == [True, False, True]
    drawn = {"do_sample": True, "num_return_sequences": 2, **NO_END}
    assert ["cut" in entry for entry in ask(*rows, max_new_tokens=2, **drawn)] == [True, False, True]


END, PAD = 2, 0


@pytest.mark.parametrize(
    ("row", "settings", "cut"),
    [
        ([7, 8, 9], {}, True),
        ([7, END, PAD], {}, False),
        ([7, 8, END], {}, False),
        ([7, 8, PAD], {}, False),  # something else stopped it before its neighbours
        ([7, 8, 9], {"eos_token_id": [8]}, False),
        ([7, 8, 9], {"stop_strings": ["x"], "max_new_tokens": 4}, False),
        ([7, 8, 9], {"stop_strings": ["x"], "max_new_tokens": 3}, True),
    ],
)
def test_text_that_ends_before_its_limit_is_not_marked(row: list[int], settings: dict[str, object], cut: bool) -> None:
    prompt = [END, 5]
    model = SimpleNamespace(
        config=SimpleNamespace(is_encoder_decoder=False),
        generation_config=SimpleNamespace(eos_token_id=END, pad_token_id=PAD),
        generate=lambda **_settings: torch.tensor([prompt + row]),
    )
    watch = LimitWatch(model)
    model.generate(input_ids=torch.tensor([prompt]), **settings)
    assert watch.marked(["said"]) == [AtLimit("said") if cut else "said"]
    assert watch.marked(["nothing was generated"]) == ["nothing was generated"]
