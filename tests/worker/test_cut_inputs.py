"""An input that a tokenizer truncates is answered and marked; with truncation false it is refused with both lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("transformers", reason="needs the `local` extra")

from transformers import AutoTokenizer, BertConfig, BertForQuestionAnswering, T5Config, T5ForConditionalGeneration

from tests import tiny_models
from tests.worker.asking import Ask, serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHORT, LONG = "a b", "a b " * 400
LABELS: dict[str, object] = {"candidate_labels": ["one", "two"]}


def limited(folder: Path, tokens: int = 32) -> Path:
    """Make the tokenizer of the model limit the length of an input, as those of real models do."""
    words = AutoTokenizer.from_pretrained(folder)
    words.model_max_length = tokens
    words.save_pretrained(folder)
    return folder


def sentences(folder: Path) -> Ask:
    return serve(tiny_models.sentence_encoder(folder, "mean"), "feature-extraction")


def tokens(folder: Path) -> Ask:
    return serve(limited(tiny_models.token_classifier(folder)), "token-classification")


def labels(folder: Path) -> Ask:
    return serve(limited(tiny_models.entailment(folder)), "zero-shot-classification")


def texts(folder: Path) -> Ask:
    return serve(limited(tiny_models.text_classifier(folder)), "text-classification")


def summaries(folder: Path) -> Ask:
    words = tiny_models.tokenizer()
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2}
    config = T5Config(vocab_size=len(words), decoder_start_token_id=0, pad_token_id=0, **sizes)
    words.model_max_length = 32
    return serve(tiny_models.save(folder, T5ForConditionalGeneration(config), words), "summarization")


CASES: dict[str, tuple[Callable[[Path], Ask], dict[str, object]]] = {
    "sentence embeddings": (sentences, {}),
    "token classification": (tokens, {}),
    "zero-shot": (labels, LABELS),
    "text classification": (texts, {"truncation": True}),
    "summarization": (summaries, {"truncation": True, "max_new_tokens": 2}),
}


@pytest.mark.parametrize(("made", "parameters"), CASES.values(), ids=CASES.keys())
def test_truncated_inputs_are_marked_and_no_others(
    tmp_path: Path, made: Callable[[Path], Ask], parameters: dict[str, object]
) -> None:
    entries = made(tmp_path / "model")(SHORT, LONG, SHORT, **parameters)
    assert all("output" in entry for entry in entries)
    assert ["input_cut" in entry for entry in entries] == [False, True, False]
    assert entries[1]["input_cut"] in {16, 32}  # tokens, the limit of these models


@pytest.mark.parametrize("case", ["sentence embeddings", "token classification", "zero-shot", "text classification"])
def test_without_truncation_a_long_input_is_refused_with_its_length_and_the_limit(tmp_path: Path, case: str) -> None:
    made, parameters = CASES[case]
    entries = made(tmp_path / "model")(SHORT, LONG, **parameters | {"truncation": False})
    assert "output" in entries[0]
    length, _, rest = entries[1]["error"]["message"].partition(" tokens; the model takes ")
    assert int(length) > 32
    assert rest.split()[0].rstrip(",") in {"16", "32"}


def test_an_input_of_exactly_the_limit_is_not_truncated(tmp_path: Path) -> None:
    ask = sentences(tmp_path / "model")
    words = AutoTokenizer.from_pretrained(tmp_path / "model")
    text = next(text for count in range(64) if len(words(text := "a" * count)["input_ids"]) == 16)
    assert ["input_cut" in entry for entry in ask(text, text + "bcdefgh" * 9)] == [False, True]


def test_a_question_too_long_is_truncated_and_marked_or_refused(tmp_path: Path) -> None:
    words = tiny_models.tokenizer(marked=True)
    config = BertConfig(vocab_size=len(words), max_position_embeddings=128, **tiny_models.SMALL)
    ask = serve(tiny_models.save(tmp_path / "model", BertForQuestionAnswering(config), words), "question-answering")
    asked = [{"question": "what", "context": LONG}, {"question": LONG, "context": "a b c"}]
    assert ["input_cut" in entry for entry in ask(*asked)] == [False, True]
    refused = ask(asked[1], truncation=False)[0]["error"]["message"]
    assert "tokens; the model takes 64, and truncation is false" in refused


def test_a_table_that_loses_rows_is_marked_or_refused(tmp_path: Path) -> None:
    ask = serve(tiny_models.table_reader(tmp_path / "model"), "table-question-answering")
    tables = [{"city": ["lima"] * rows, "people": ["many"] * rows} for rows in (2, 60)]
    asked = [{"table": table, "query": "how many people"} for table in tables]
    entries = ask(*asked)
    assert [entry.get("input_cut") for entry in entries] == [None, 64]
    short, long = ask(*asked, truncation=False)
    assert "output" in short
    assert "tokens; the model takes 64, and truncation is false" in long["error"]["message"]
    assert "error" in ask({"table": {}, "query": "how"})[0]
