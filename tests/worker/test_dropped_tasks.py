"""The tasks that transformers 5 dropped: inputs, outputs and parameters of the old pipelines."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="needs the `local` extra")

from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from orchestrator.worker.answer_spans import ContextTokens, best_spans, whole_words
from orchestrator.worker.dropped_tasks import DROPPED
from orchestrator.worker.model import LoadFailed
from tests import tiny_images, tiny_models, tiny_readers
from tests.worker.asking import noise, outputs, serve, stored

if TYPE_CHECKING:
    from pathlib import Path

LONG = "a much longer text than the others, so that the short ones are padded beside it"


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("summarization", "summary_text"),
        ("translation", "translation_text"),
        ("translation_en_to_fr", "translation_text"),
        ("text2text-generation", "generated_text"),
    ],
)
@pytest.mark.parametrize("make", [tiny_readers.t5, tiny_readers.bart])
def test_a_text_to_text_task_returns_text(tmp_path: Path, task: str, name: str, make: Any) -> None:
    ask = serve(make(tmp_path / "model"), task)
    texts = ["one two", LONG, "three"]
    together = outputs(ask(*texts, max_new_tokens=6))
    assert together == [outputs(ask(text, max_new_tokens=6))[0] for text in texts]
    assert [list(answer[0]) for answer in together] == [[name]] * 3
    assert ask(5)[0]["error"]["message"] == f"{task} takes a text"


def test_the_worker_generates_what_the_model_generates(tmp_path: Path) -> None:
    folder = tiny_readers.bart(tmp_path / "model")
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = model.generate(**tokenizer("one two", return_tensors="pt"), max_new_tokens=9, num_beams=2, do_sample=False)
    expected = tokenizer.batch_decode(ids, skip_special_tokens=True)[0]
    ask = serve(folder, "summarization")
    settings = {"max_new_tokens": 9, "num_beams": 2}
    nested = {"inputs": "one two", "parameters": {"generate_kwargs": settings}}
    toolkits = {"inputs": "one two", "parameters": {"generation_parameters": settings}}
    plain, by_row = outputs(ask("one two", nested, **settings))
    assert outputs(ask(toolkits)) == [plain]
    assert "generate_kwargs must be an object" in ask("one", generate_kwargs=5)[0]["error"]["message"]
    assert plain == by_row == [{"summary_text": expected}]
    (tensors,) = outputs(ask("one two", **settings, return_tensors=True))
    assert tensors[0]["summary_token_ids"] == ids[0].tolist()[: len(tensors[0]["summary_token_ids"])]
    (several,) = outputs(ask("one two", **settings, num_return_sequences=2))
    assert len(several) == 2


def test_a_text_that_is_too_long_is_refused_or_truncated(tmp_path: Path) -> None:
    ask = serve(tiny_readers.bart(tmp_path / "model"), "summarization")
    too_long = "far too long " * tiny_readers.POSITIONS
    refused, fine = ask(too_long, "fine", max_new_tokens=2)
    assert "set the parameter truncation to cut" in refused["error"]["message"]
    assert "output" in fine
    assert outputs(ask(too_long, truncation=True, max_new_tokens=2))
    assert "nonsense" in ask("fine", nonsense=1)[0]["error"]["message"]


def test_a_model_defines_the_prompt_for_a_pair_of_languages(tmp_path: Path) -> None:
    prefix = "translate English to German: "
    specific = {"translation_en_to_de": {"prefix": prefix, "max_length": 9, "num_beams": 2}}
    told = serve(tiny_readers.t5(tmp_path / "told", task_specific_params=specific), "translation_en_to_de")
    plain = serve(tiny_readers.t5(tmp_path / "plain"), "text2text-generation")
    (translated,), (generated,) = outputs(told("yes")), outputs(plain(prefix + "yes", max_length=9, num_beams=2))
    assert translated[0]["translation_text"] == generated[0]["generated_text"]


def test_a_question_is_answered_with_a_span_of_the_context(tmp_path: Path) -> None:
    ask = serve(tiny_readers.span_finder(tmp_path / "model"), "question-answering")
    short = {"question": "who?", "context": "Ann met Bob."}
    long = {"question": "who was that?", "context": "Bob saw Carl and Ann in a much longer context. " * 2}
    together = outputs(ask(short, long, short))
    assert together[0] == together[2]
    for asked, answer in zip((short, long), together, strict=False):
        assert answer.keys() == {"score", "start", "end", "answer"}
        assert answer["answer"] == asked["context"][answer["start"] : answer["end"]]
        assert 0 < answer["score"] <= 1
        (alone,) = outputs(ask(asked))
        assert alone == {**answer, "score": pytest.approx(answer["score"], abs=1e-5)}
    (several,) = outputs(ask({"inputs": short, "parameters": {"top_k": 3, "align_to_words": False}}))
    assert [one["score"] for one in several] == sorted((one["score"] for one in several), reverse=True)
    assert len(several) == 3
    (shortest,) = outputs(ask(long, max_answer_len=1, top_k=5, align_to_words=False))
    assert max(one["end"] - one["start"] for one in shortest) <= 10
    (empty,) = outputs(ask(short, handle_impossible_answer=True, top_k=100))
    assert {"start": 0, "end": 0, "answer": ""}.items() <= next(one for one in empty if not one["answer"]).items()


def test_a_long_context_is_read_in_windows_and_every_span_can_be_found(tmp_path: Path) -> None:
    ask = serve(tiny_readers.span_finder(tmp_path / "model"), "question-answering")
    words = ["".join(letters) for letters in itertools.product("abcdef", repeat=3)]
    asked = {"question": "which?", "context": " ".join(words)}
    (found,) = outputs(ask(asked, top_k=10_000, max_answer_len=6, doc_stride=16))
    assert {word for one in found for word in one["answer"].split()} == {*words}
    spans = [(one["start"], one["end"]) for one in found]
    assert len(spans) == len({*spans})  # a span found in two windows is listed once


@pytest.mark.parametrize(
    ("asked", "parameters", "words"),
    [
        ("who?", {}, "takes an object with question and context"),
        ({"question": "who?"}, {}, "takes an object with question and context"),
        ({"question": "who?", "context": " "}, {}, "non-empty"),
        ({"question": "who?", "context": "Ann"}, {"top_k": 0}, "top_k must be an integer of at least 1, not 0"),
        ({"question": "who?", "context": "Ann"}, {"align_to_words": 1}, "true or false"),
        ({"question": "who?", "context": "Ann"}, {"topk": 1}, "no parameter topk; it has max_seq_len"),
        ({"question": "who?", "context": "Ann"}, {"max_seq_len": 999}, "more than the model takes, 64"),
        ({"question": "who is that?", "context": "Ann " * 99}, {"max_seq_len": 8, "doc_stride": 7}, "Error"),
    ],
)
def test_an_invalid_question_is_refused(
    tmp_path: Path, asked: object, parameters: dict[str, object], words: str
) -> None:
    ask = serve(tiny_readers.span_finder(tmp_path / "model"), "question-answering")
    refused, fine = ask({"inputs": asked, "parameters": parameters}, {"question": "who?", "context": "Ann"})
    assert words in refused["error"]["message"]
    assert "output" in fine


def test_spans_are_ranked_by_the_probability_of_both_ends() -> None:
    start, end = np.array([0.0, 5.0, 0.0, 3.5]), np.array([0.0, 0.0, 4.0, 5.0])
    allowed = np.array([False, True, True, True])
    found, nothing = best_spans(start, end, allowed, 3, 3)
    assert [(span.first, span.last) for span in found] == [(1, 3), (1, 2), (3, 3)]
    assert found[0].score > found[1].score > found[2].score > nothing
    assert [(span.first, span.last) for span in best_spans(start, end, allowed, 1, 1)[0]] == [(3, 3)]
    assert best_spans(start, end, np.zeros(4, bool), 3, 3)[0] == []


def test_a_part_of_a_word_is_extended_to_the_word() -> None:
    first = ContextTokens([(0, 0), (0, 3), (3, 5), (6, 8)], [None, 0, 0, 1], np.array([False, True, True, True]))
    second = ContextTokens([(0, 0), (3, 5), (6, 8)], [0, 0, 1], np.array([False, True, True]))
    spans = [window.tolist() for window in whole_words([first, second])]
    assert spans == [[[0, 0], [0, 5], [0, 5], [6, 8]], [[0, 0], [0, 5], [6, 8]]]


@pytest.mark.parametrize("task", ["visual-question-answering", "vqa"])
def test_a_question_about_an_image_is_answered_from_a_list(tmp_path: Path, task: str) -> None:
    ask = serve(tiny_images.chooser(tmp_path / "model"), task)
    image, other = (stored(tmp_path / f"{n}.png", noise(n, 16 * n), "image/png") for n in (1, 2))
    questions = [{"image": image, "question": "how many?"}, {"image": other, "question": LONG[:30]}]
    together = outputs(ask(*questions))
    for asked, answers in zip(questions, together, strict=True):
        assert {answer["answer"] for answer in answers} == {"yes", "no", "two"}
        scores = [answer["score"] for answer in answers]
        assert scores == sorted(scores, reverse=True)
        (alone,) = outputs(ask(asked))
        assert [answer["score"] for answer in alone] == pytest.approx(scores, abs=1e-4)
    (best,) = outputs(ask({"inputs": questions[0], "parameters": {"top_k": 1}}))
    assert best[0] == pytest.approx(outputs(ask(questions[0]))[0][0])
    path = {"image": image["$file"], "question": "how many?"}
    assert outputs(ask(path))[0][0]["answer"] == together[0][0]["answer"]
    for nonsense in (image, {"image": image, "question": 3}, {"image": "/nowhere.png", "question": "?"}):
        assert ask(nonsense)[0]["error"]["kind"] == "rejected"


def test_a_question_about_an_image_is_answered_with_text(tmp_path: Path) -> None:
    ask = serve(tiny_images.answerer(tmp_path / "model"), "vqa")
    image = stored(tmp_path / "one.png", noise(1), "image/png")
    asked = [{"image": image, "question": "how many?"}, {"image": image, "question": LONG[:30]}]
    together = outputs(ask(*asked, max_new_tokens=4))
    assert [list(answer[0]) for answer in together] == [["answer"]] * 2
    assert together == [outputs(ask(one, max_new_tokens=4))[0] for one in asked]


def test_an_image_is_described_with_or_without_a_prompt(tmp_path: Path) -> None:
    ask = serve(tiny_images.captioner(tmp_path / "model"), "image-to-text")
    images = [stored(tmp_path / f"{n}.png", noise(n), "image/png") for n in (1, 2)]
    together = outputs(ask(*images, max_new_tokens=4))
    assert together == [outputs(ask(image, max_new_tokens=4))[0] for image in images]
    assert list(together[0][0]) == ["generated_text"]
    (prompted,) = outputs(ask({"inputs": images[0], "parameters": {"prompt": "a picture of"}}, max_new_tokens=4))
    assert prompted[0]["generated_text"].startswith("a picture of")
    assert ask(5)[0]["error"]["kind"] == "rejected"


def test_an_unknown_task_lists_all_known_tasks(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed) as failure:
        serve(tiny_models.encoder(tmp_path / "model"), "translation_to_nowhere")
    words = str(failure.value)
    assert "unknown task 'translation_to_nowhere'" in words
    assert {*DROPPED, "ner", "any-to-any", "mask-generation"} <= {*words.partition("knows ")[2].split(", ")}


def test_a_multilingual_tokenizer_is_told_both_languages(tmp_path: Path) -> None:
    folder = tiny_readers.many_languages(tmp_path / "model")
    ask = serve(folder, "translation")
    asked = [{"inputs": "yes", "parameters": {"tgt_lang": language}} for language in ("de_DE", "fr_XX")]
    german, french = outputs(ask(*asked, src_lang="en_XX", max_new_tokens=4, return_tensors=True))
    ids = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(["de_DE", "fr_XX"])
    assert [answer[0]["translation_token_ids"][1] for answer in (german, french)] == ids
