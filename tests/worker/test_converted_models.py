"""Real weights that ship in other formats, converted, or fine-tuned here, give answers that people would call right."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("transformers", reason="needs the `local` extra")

from tests.real.grammar import write_grammar_tagger
from tests.real.packages import folder_of
from tests.real.sentiment import LABELS, rated_texts, write_sentiment
from tests.real.smollm2 import write_smollm2
from tests.real.whisper import write_whisper
from tests.worker.asking import outputs, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.model, pytest.mark.slow]
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
BECKETT = "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better."


@pytest.fixture
def folder() -> Iterator[Path]:
    """Deleted after the test: these models are large."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made) / "model"


def test_a_language_model_knows_the_capital_of_france_and_obeys_its_seed(folder: Path) -> None:
    ask = serve(write_smollm2(folder), "text-generation")
    alone, beside = outputs(ask(QUESTION, "One, two, three,", max_new_tokens=10))
    assert alone[0]["generated_text"][-1]["content"] == "The capital of France is Paris."
    assert "four" in beside[0]["generated_text"]
    drawn = {"do_sample": True, "temperature": 1.5, "max_new_tokens": 8}
    rows = [{"inputs": "Once upon a time", "parameters": {"seed": seed}} for seed in (1, 2, 1)]
    first, second, third = outputs(ask(*rows, **drawn))
    assert first == third != second


def test_a_recording_is_transcribed(folder: Path) -> None:
    recording = folder_of("moonshine_voice") / "assets" / "beckett.wav"
    ask = serve(write_whisper(folder), "automatic-speech-recognition")
    digest = hashlib.sha256(recording.read_bytes()).hexdigest()
    (answer,) = outputs(ask({"$file": str(recording), "sha256": digest, "content_type": "audio/wav"}))
    assert answer["text"].strip() == BECKETT


def test_grammar_errors_are_tagged_with_the_correction(folder: Path) -> None:
    ask = serve(write_grammar_tagger(folder), "token-classification")
    sentences = ["I seen him yesterday and he dont like there new house.", "All is well."]
    wrong, right = outputs(ask(*sentences))
    assert [tag["entity"] for tag in wrong if tag["entity"] != "$KEEP"] == ["$REPLACE_don't", "$REPLACE_their"]
    assert {tag["entity"] for tag in right} == {"$KEEP"}


def test_sentiment_matches_human_labels(folder: Path, tmp_path: Path) -> None:
    rows = rated_texts(tmp_path)
    ask = serve(write_sentiment(folder, rows[1000:6000]), "text-classification")
    answers = outputs(ask(*(text for text, _ in rows[:1000]), truncation=True, max_length=48))
    right = sum(answer[0]["label"] == LABELS[label] for answer, (_, label) in zip(answers, rows, strict=False))
    assert right / 1000 > 0.72  # the more common label alone is right in 53 of 100
    assert len({answer[0]["label"] for answer in answers}) == 2
