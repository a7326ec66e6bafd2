"""Inputs that make a real pipeline raise, among others: each fails alone, with the location of the failure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("torch", reason="needs the `local` extra")

import numpy as np

from tests import tiny_models
from tests.worker.asking import serve, stored, wav

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DEEP: list[object] = []
for _ in range(600):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("task", "model", "parameters", "bad"),
    [
        ("zero-shot-classification", tiny_models.entailment, {"candidate_labels": ["a", "b"]}, [""]),
        (
            "zero-shot-classification",
            tiny_models.entailment,
            {"candidate_labels": ["a", "b"]},
            [
                {"text": "x", "candidate_labels": 5},
                {"text": "x", "candidate_labels": ["a"], "hypothesis_template": "no"},
            ],
        ),
        ("token-classification", tiny_models.token_classifier, {"stride": 4, "aggregation_strategy": "simple"}, [""]),
        ("token-classification", tiny_models.token_classifier, {"is_split_into_words": True}, [[5], DEEP]),
        ("text-generation", tiny_models.generator, {}, [{"inputs": "x", "parameters": {"max_new_tokens": "many"}}]),
    ],
)
def test_an_input_that_makes_a_pipeline_raise_fails_alone_with_the_location(
    tmp_path: Path, task: str, model: Callable[[Path], Path], parameters: dict[str, object], bad: list[object]
) -> None:
    ask = serve(model(tmp_path / "model"), task)
    good: list[object] = [["hello", "there"]] if parameters.get("is_split_into_words") else ["hello", "how are you"]
    entries = ask(*good, *bad, *good, **parameters)
    assert ["output" in entry for entry in entries] == [True] * len(good) + [False] * len(bad) + [True] * len(good)
    for entry in entries[len(good) : -len(good)]:
        assert entry["error"]["kind"] == "rejected"
        assert ".py, line " in entry["error"]["message"]


def test_a_recording_without_a_sampling_rate_fails_alone(tmp_path: Path) -> None:
    tone = wav(np.zeros(8000, np.int16), 16_000)
    broken = tone[:24] + bytes(4) + tone[28:]  # its sampling rate is 0
    files = [
        stored(tmp_path / f"{name}.wav", content, "audio/wav")
        for name, content in (("a", tone), ("b", broken), ("c", tone))
    ]
    entries = serve(tiny_models.audio_classifier(tmp_path / "model"), "audio-classification")(*files)
    assert ["output" in entry for entry in entries] == [True, False, True]
