"""A sampled answer depends on its seed, and not on other inputs of the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("transformers", reason="needs the `local` extra")

from tests import tiny_models, tiny_readers, tiny_sounds
from tests.worker.asking import outputs, serve

if TYPE_CHECKING:
    from pathlib import Path

DRAWN = {"do_sample": True, "temperature": 5.0, "max_new_tokens": 12}


def seeded(text: str, seed: object) -> dict[str, object]:
    return {"inputs": text, "parameters": {"seed": seed}}


def test_a_row_is_answered_with_its_own_seed_whatever_else_is_in_the_batch(tmp_path: Path) -> None:
    ask = serve(tiny_models.generator(tmp_path / "model"), "text-generation")
    rows = [seeded("once", 7), seeded("a much longer text than that", 7), seeded("once", 8), "once"]
    together = outputs(ask(*rows, **DRAWN))
    assert together[:3] == [outputs(ask(row, **DRAWN))[0] for row in rows[:3]]
    assert together[0] != together[2]
    backwards = outputs(ask(*reversed(rows), **DRAWN))[::-1]
    assert backwards[:3] == together[:3]


def test_the_seed_of_a_job_applies_to_every_row(tmp_path: Path) -> None:
    ask = serve(tiny_readers.t5(tmp_path / "model"), "text2text-generation")
    alone = outputs(ask("once", **DRAWN, seed=3))
    assert outputs(ask("a longer text", "once", **DRAWN, seed=3))[1:] == alone
    assert outputs(ask("once", **DRAWN, seed=4)) != alone


def test_without_a_seed_sampling_is_random_and_greedy_is_the_default(tmp_path: Path) -> None:
    ask = serve(tiny_models.generator(tmp_path / "model"), "text-generation")
    drawn = {str(outputs(ask("once", **DRAWN))) for _ in range(4)}
    assert len(drawn) > 1
    assert outputs(ask("once", max_new_tokens=8)) == outputs(ask("once", max_new_tokens=8))


def test_speech_is_reproducible_and_differs_with_another_seed(tmp_path: Path) -> None:
    ask = serve(tiny_sounds.speaker(tmp_path / "model"), "text-to-audio")
    first, second = outputs(ask("one two three", "one two three"))
    assert first == second
    assert outputs(ask(seeded("one two three", 5)))[0] != first


@pytest.mark.parametrize("seed", [True, -1, 2**32, "7", 1.5])
def test_an_invalid_seed_is_refused_and_others_are_answered(tmp_path: Path, seed: object) -> None:
    ask = serve(tiny_models.generator(tmp_path / "model"), "text-generation")
    refused, fine = ask(seeded("once", seed), "once", max_new_tokens=1)
    assert "seed must be a whole number" in refused["error"]["message"]
    assert "output" in fine
