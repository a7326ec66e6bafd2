"""Every kind of task, with the model loaded and asked as in the worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="needs the `local` extra")

from orchestrator.worker.model import LoadFailed
from tests import tiny_models
from tests.worker.asking import outputs, png, serve, stored, tone, wav

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LONG = "a much longer text than the others, so that the short ones are padded beside it, and badly if at all"


def test_texts_are_classified_in_order_and_as_they_would_be_alone(tmp_path: Path) -> None:
    ask = serve(tiny_models.text_classifier(tmp_path / "model"), "text-classification")
    texts = ["short", LONG, "a little longer", {"text": "one", "text_pair": "another"}]
    together = outputs(ask(*texts))
    for text, answer in zip(texts, together, strict=True):
        ((alone,),) = outputs(ask(text))
        (label,) = answer  # in a list, as endpoints of Hugging Face answer
        assert label["label"] == alone["label"]
        assert label["score"] == pytest.approx(alone["score"], abs=1e-5)
    assert ask() == []


def test_an_alias_means_its_task(tmp_path: Path) -> None:
    ask = serve(tiny_models.text_classifier(tmp_path / "model"), "sentiment-analysis")
    assert outputs(ask("fine"))[0][0]["label"].startswith("LABEL_")
    assert ask(5)[0]["error"] == {
        "kind": "rejected",
        "message": "text-classification takes a text or an object, not a number",
    }


def test_parameters_of_an_item_win_and_do_not_affect_its_neighbours(tmp_path: Path) -> None:
    ask = serve(tiny_models.text_classifier(tmp_path / "model"), "text-classification")
    all_labels = {"inputs": "one", "parameters": {"top_k": None}}
    first, second, third = outputs(ask("one", all_labels, {"inputs": "one"}))
    assert first == third
    assert [len(first), len(second), second[0]] == [1, 2, pytest.approx(first[0])]
    assert ask("one", function_to_apply="nonsense")[0]["error"]["kind"] == "rejected"


def test_only_the_poisonous_text_of_a_batch_has_no_answer(tmp_path: Path) -> None:
    ask = serve(tiny_models.text_classifier(tmp_path / "model"), "text-classification")
    texts: list[object] = [f"text {number}" for number in range(20)]
    texts[7] = "far too long " * tiny_models.POSITIONS
    texts[11] = None
    texts[13] = {"nonsense": "x"}
    entries = ask(*texts)
    assert [place for place, entry in enumerate(entries) if "error" in entry] == [7, 11, 13]
    assert {entry["error"]["kind"] for entry in entries if "error" in entry} == {"rejected"}
    assert outputs(ask(texts[7], truncation=True, max_length=16))


def test_masks_are_filled_alone_and_in_batches(tmp_path: Path) -> None:
    ask = serve(tiny_models.mask_filler(tmp_path / "model"), "fill-mask")
    (alone,) = outputs(ask("one <mask>", top_k=2))
    together = outputs(ask("one <mask>", LONG + "<mask>", top_k=2))
    assert [len(answer) for answer in (alone, *together)] == [2, 2, 2]
    assert [guess["token"] for guess in together[0]] == [guess["token"] for guess in alone]
    assert [("error" in entry) for entry in ask("no mask", "a <mask>", ["<mask>"])] == [True, False, True]


def test_tokens_are_classified_and_padding_is_not(tmp_path: Path) -> None:
    ask = serve(tiny_models.token_classifier(tmp_path / "model"), "token-classification")
    short, _ = outputs(ask("one two", LONG))
    assert [entity["word"] for entity in short] == [entity["word"] for entity in outputs(ask("one two"))[0]]
    assert short[-1]["end"] == len("one two")


def test_each_item_may_have_its_own_labels(tmp_path: Path) -> None:
    ask = serve(tiny_models.entailment(tmp_path / "model"), "zero-shot-classification")
    answers = outputs(
        ask(
            {"sequences": "goals", "candidate_labels": ["sport", "politics"]},
            {"inputs": "votes", "candidate_labels": ["a", "b", "c"]},
            {"inputs": "rain", "parameters": {"candidate_labels": "wet, dry"}},
            "bare",
            candidate_labels=["x"],
        )
    )
    assert [sorted(answer["labels"]) for answer in answers] == [
        ["politics", "sport"],
        ["a", "b", "c"],
        ["dry", "wet"],
        ["x"],
    ]
    assert [answer["sequence"] for answer in answers] == ["goals", "votes", "rain", "bare"]
    assert "sequences" in ask({"text_": "no"})[0]["error"]["message"]


def test_labels_may_have_the_name_from_the_toolkit_and_missing_labels_are_reported(tmp_path: Path) -> None:
    ask = serve(tiny_models.entailment(tmp_path / "model"), "zero-shot-classification")
    answers = outputs(
        ask(
            {"sequences": "goals", "candidateLabels": ["sport", "politics"]},
            {"inputs": "rain", "parameters": {"candidateLabels": ["wet", "dry"]}},
        )
    )
    assert [sorted(answer["labels"]) for answer in answers] == [["politics", "sport"], ["dry", "wet"]]
    needs = {"kind": "rejected", "message": "zero-shot-classification needs the parameter candidate_labels"}
    assert [entry["error"] for entry in ask("bare", {"inputs": "x", "parameters": {"candidate_labels": []}})] == [
        needs
    ] * 2


@pytest.mark.parametrize(
    ("make", "task"),
    [
        (tiny_models.text_classifier, "text-classification"),
        (tiny_models.encoder, "feature-extraction"),
        (tiny_models.generator, "text-generation"),
    ],
)
def test_a_batch_size_parameter_is_accepted_and_ignored(
    tmp_path: Path, make: Callable[[Path], Path], task: str
) -> None:
    ask = serve(make(tmp_path / "model"), task)
    plain = outputs(ask("one", "two"))
    with_width = outputs(ask("one", {"inputs": "two", "parameters": {"batch_size": 4}}, batch_size=16, num_workers=2))
    assert with_width == plain


def test_a_list_as_task_input_is_refused_by_name(tmp_path: Path) -> None:
    ask = serve(tiny_models.text_classifier(tmp_path / "model"), "text-classification")
    refused, taken = ask({"inputs": ["one", "two"]}, "three")
    assert refused["error"]["message"] == "text-classification takes a text or an object, not a list"
    assert "output" in taken


def test_generation_settings_may_have_the_name_from_the_toolkit(tmp_path: Path) -> None:
    ask = serve(tiny_models.generator(tmp_path / "model"), "text-generation")
    short, named, both, long = outputs(
        ask(
            {"inputs": "once", "parameters": {"max_new_tokens": 2}},
            {"inputs": "once", "parameters": {"generation_parameters": {"max_new_tokens": 2}}},
            {"inputs": "once", "parameters": {"generation_parameters": {"max_new_tokens": 9}, "max_new_tokens": 2}},
            {"inputs": "once", "parameters": {"max_new_tokens": 9}},
        )
    )
    assert short == named == both != long
    assert ask("once", generation_parameters=5)[0]["error"]["message"] == "generation_parameters must be an object"


@pytest.mark.parametrize("pad_token", [True, False])
def test_prompts_and_chats_are_continued_reproducibly(tmp_path: Path, *, pad_token: bool) -> None:
    ask = serve(tiny_models.generator(tmp_path / "model", pad_token=pad_token), "text-generation")
    chat = [{"role": "user", "content": "hello"}]
    inputs = ["once", chat, LONG]
    together = outputs(ask(*inputs, max_new_tokens=4))
    assert together == [outputs(ask(one, max_new_tokens=4))[0] for one in inputs]
    assert together[0][0]["generated_text"].startswith("once")
    assert together[1][0]["generated_text"][-1]["role"] == "assistant"
    assert ask(["a", "list"])[0]["error"]["message"] == "text-generation takes a text or a list of messages, not a list"


def test_token_embeddings_exclude_padding(tmp_path: Path) -> None:
    ask = serve(tiny_models.encoder(tmp_path / "model"), "feature-extraction")
    (alone,), (together, _) = outputs(ask("one two")), outputs(ask("one two", LONG))
    assert np.shape(together) == np.shape(alone)
    assert np.ndim(together) == 3
    np.testing.assert_allclose(together, alone, atol=1e-5)
    too_long = "far too long " * tiny_models.POSITIONS
    assert "truncation" in ask(too_long)[0]["error"]["message"]
    assert np.shape(outputs(ask(too_long, truncation=True))[0])[1] == tiny_models.POSITIONS


@pytest.mark.parametrize(
    ("pooling", "pool"),
    [
        ("mean", lambda tokens: tokens.mean(0)),
        ("max", lambda tokens: tokens.max(0)),
        ("cls", lambda tokens: tokens[0]),
        ("lasttoken", lambda tokens: tokens[-1]),
    ],
)
def test_a_sentence_encoder_returns_one_vector_pooled_as_configured(
    tmp_path: Path, pooling: str, pool: Callable[[Any], Any]
) -> None:
    tokens = serve(tiny_models.encoder(tmp_path / "plain"), "feature-extraction")
    pooled = serve(tiny_models.sentence_encoder(tmp_path / "pooled", pooling), "feature-extraction")
    texts = ["one two", "three", LONG]
    cut = outputs(tokens(*texts, truncation=True, max_length=16))  # its max_seq_length
    for vector, each in zip(outputs(pooled(*texts)), cut, strict=True):
        np.testing.assert_allclose(vector, pool(np.array(each[0])), atol=1e-5)


def test_a_sentence_encoder_with_an_unknown_module_is_refused(tmp_path: Path) -> None:
    folder = tiny_models.sentence_encoder(tmp_path / "model", "weightedmean")
    with pytest.raises(LoadFailed, match="vectors with weightedmean, which"):
        serve(folder, "feature-extraction")


def test_a_question_about_a_table_is_answered(tmp_path: Path) -> None:
    ask = serve(tiny_models.table_reader(tmp_path / "model"), "table-question-answering")
    table = {"city": ["lima", "bonn"], "people": ["10", "3"]}
    question = {"table": table, "query": "how many people"}
    alone, together = outputs(ask(question)), outputs(ask(question, question))
    assert together == alone * 2
    assert "answer" in alone[0]
    assert "error" in ask({"query": "no table"})[0]


def test_an_image_is_read_from_its_file(tmp_path: Path) -> None:
    ask = serve(tiny_models.image_classifier(tmp_path / "model"), "image-classification")
    files = [stored(tmp_path / f"{shade}.png", png(shade), "image/png") for shade in (0, 120, 255)]
    together = outputs(ask(*files))
    assert [answer[0]["label"] for answer in together] == [outputs(ask(file))[0][0]["label"] for file in files]


def test_a_changed_file_is_refused_and_the_others_are_answered(tmp_path: Path) -> None:
    ask = serve(tiny_models.image_classifier(tmp_path / "model"), "image-classification")
    files = [stored(tmp_path / f"{name}.png", png(9), "image/png") for name in "abcd"]
    (tmp_path / "a.png").write_bytes(png(10))
    (tmp_path / "b.png").unlink()
    files[2] = stored(tmp_path / "c.png", b"no image", "image/png")
    assert [entry.get("error", {}).get("message") for entry in ask(*files)] == [
        "a.png: file changed since it was ingested",
        "b.png: No such file or directory",
        "c.png: not an image that can be read",
        None,
    ]


def test_wav_files_of_any_width_rate_and_channel_count_are_read(tmp_path: Path) -> None:
    ask = serve(tiny_models.audio_classifier(tmp_path / "model"), "audio-classification")
    plain = tone(16000)
    wide = plain.astype("<i4") << 16
    sounds = {
        "plain": wav(plain, 16000),
        "stereo": wav(np.repeat(plain, 2), 16000, channels=2),
        "wide": wav(wide, 16000),
        "fast": wav(tone(48000), 48000),
        "narrow": wav((plain // 256 + 128).astype("u1"), 16000),
    }
    answers = outputs(ask(*(stored(tmp_path / name, sound, "audio/wav") for name, sound in sounds.items())))
    expected = {guess["label"]: guess["score"] for guess in answers[0]}
    for answer in answers[1:]:
        assert {guess["label"]: guess["score"] for guess in answer} == pytest.approx(expected, abs=0.01)
