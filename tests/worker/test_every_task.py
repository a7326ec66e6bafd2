"""Every pipeline task of transformers: with values and files, parameters of the job and of a single row."""

from __future__ import annotations

import base64
import importlib.util
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="needs the `local` extra")

from PIL import Image
from transformers.pipelines import PIPELINE_REGISTRY, pipeline

from orchestrator.worker.model import LoadFailed
from tests import tiny_images, tiny_models, tiny_readers, tiny_sounds
from tests.worker.asking import noise, outputs, serve, stored, tone, wav

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Case:
    """Two inputs, the content of an answer, and a parameter of one row with its effect on the answer."""

    make: Callable[[Path], Path]
    inputs: Callable[[Path], tuple[Any, Any]]
    holds: frozenset[str]
    own: Mapping[str, object]
    does: Callable[[Any], object]
    job: Mapping[str, object] = field(default_factory=dict)
    needs: str | None = None  # a package without a build for the CPU that would be installed with our torch


def texts(_folder: Path) -> tuple[str, str]:
    return "one two", "a much longer text than the other"


def masked(_folder: Path) -> tuple[str, str]:
    return "one <mask>", "a much longer text <mask> than the other"


def images(folder: Path) -> tuple[Any, Any]:
    first, second = (stored(folder / f"{seed}.png", noise(seed), "image/png") for seed in (1, 2))
    return first, second


def sounds(folder: Path) -> tuple[Any, Any]:
    first, second = (stored(folder / f"{rate}.wav", wav(tone(rate), rate), "audio/wav") for rate in (16000, 48000))
    return first, second


def beside(name: str, of: Callable[[Path], tuple[Any, Any]], **more: object) -> Callable[[Path], tuple[Any, Any]]:
    """Return inputs that are objects: the value of `of` under a name, with further fields."""

    def made(folder: Path) -> tuple[Any, Any]:
        first, second = of(folder)
        return {name: first, **more}, {name: second, **more}

    return made


def pairs(folder: Path) -> tuple[Any, Any]:
    first, second = images(folder)
    return [first, second], [second, second]


def videos(folder: Path) -> tuple[Any, Any]:
    av = importlib.import_module("av")
    made = []
    for shade in (0, 200):
        with av.open(str(folder / f"{shade}.mp4"), "w") as video:
            stream = video.add_stream("mpeg4", rate=8)
            stream.width = stream.height = 32
            for _ in range(4):
                frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), shade, np.uint8), format="rgb24")
                video.mux(stream.encode(frame))
            video.mux(stream.encode())
        made.append(stored(folder / f"{shade}.mp4", (folder / f"{shade}.mp4").read_bytes(), "video/mp4"))
    return made[0], made[1]


def keys(answer: Any) -> frozenset[str]:
    """Return the keys of an answer, or of the first of a list of answers."""
    while isinstance(answer, list):
        answer = answer[0]
    return frozenset(answer) if isinstance(answer, dict) else frozenset()


def pixels(png: str) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))).astype(np.float32)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, str) and one.startswith(PNG):
        return np.allclose(pixels(one), pixels(other), atol=3)
    return bool(one == (pytest.approx(other, abs=1e-4) if isinstance(other, float) else other))


PNG = "iVBORw0KGgo"  # in base64
LABELS = {"candidate_labels": ["wet", "very very dry"]}
SCORED = frozenset({"label", "score"})
WORDS = [["Ann", [0, 0, 10, 10]], ["Bob", [10, 10, 50, 50]], ["Carl", [50, 50, 90, 90]]]
REFUND = {"refund": {"type": "noul", "instructions": "Is money wanted back?"}}
PEOPLE = {"city": ["lima", "bonn"], "people": ["10", "3"]}
BOXED = frozenset({"score", "label", "box"})
SAID = frozenset({"input_text", "generated_text"})

CASES = {
    "any-to-any": Case(
        tiny_sounds.listener,
        beside("audio", sounds, text="<|audio_bos|><|AUDIO|><|audio_eos|> what"),
        SAID,
        {"return_tensors": True},
        lambda answer: answer[0]["generated_token_ids"],
        job={"max_new_tokens": 8},
    ),
    "audio-classification": Case(tiny_models.audio_classifier, sounds, SCORED, {"top_k": 1}, lambda one: len(one) == 1),
    "automatic-speech-recognition": Case(
        tiny_sounds.letter_recognizer, sounds, frozenset({"text"}), {"return_timestamps": "char"}, lambda a: a["chunks"]
    ),
    "decision": Case(
        tiny_readers.decider,
        beside("state", texts, questions=REFUND),
        frozenset({"refund"}),
        {},
        lambda answer: answer["refund"]["type"] == "noul",
    ),
    "depth-estimation": Case(
        tiny_images.depth_estimator,
        images,
        frozenset({"depth", "predicted_depth"}),
        {"timeout": 5},
        lambda answer: answer["depth"].startswith(PNG),
    ),
    "document-question-answering": Case(
        tiny_images.document_reader,
        beside("question", texts, image=None, word_boxes=WORDS),
        frozenset({"answer", "score", "start", "end"}),
        {"top_k": 3},
        lambda answer: len(answer) > 1,
    ),
    "feature-extraction": Case(
        tiny_models.encoder, texts, frozenset(), {"truncation": True, "max_length": 2}, lambda one: len(one[0]) == 2
    ),
    "fill-mask": Case(
        tiny_models.mask_filler,
        masked,
        frozenset({"score", "token", "token_str", "sequence"}),
        {"top_k": 1},
        lambda answer: len(answer) == 1,
    ),
    "image-classification": Case(tiny_models.image_classifier, images, SCORED, {"top_k": 1}, lambda one: len(one) == 1),
    "image-feature-extraction": Case(
        tiny_images.embedder, images, frozenset(), {"pool": True}, lambda answer: np.shape(answer) == (1, 32)
    ),
    "image-segmentation": Case(
        tiny_images.segmenter,
        images,
        frozenset({"score", "label", "mask"}),
        {"subtask": "semantic"},
        lambda answer: answer[0]["mask"].startswith(PNG),
    ),
    "image-text-to-text": Case(
        tiny_images.captioner,
        beside("image", images, text="a picture of"),
        SAID,
        {"return_tensors": True},
        lambda answer: answer[0]["generated_token_ids"],
        job={"max_new_tokens": 8},
    ),
    "keypoint-matching": Case(
        tiny_images.matcher,
        pairs,
        frozenset({"keypoint_image_0", "keypoint_image_1", "score"}),
        {"threshold": 1.0},
        lambda answer: answer == [],
    ),
    "mask-generation": Case(
        tiny_images.mask_maker,
        images,
        frozenset({"masks", "scores"}),
        {"points_per_batch": 2},
        lambda answer: answer["masks"],
        job={"points_per_crop": 4, "pred_iou_thresh": -10.0, "stability_score_thresh": -1.0},
        needs="torchvision",
    ),
    "object-detection": Case(
        tiny_images.detector, images, BOXED, {"threshold": 1.0}, lambda answer: answer == [], job={"threshold": 0.0}
    ),
    "table-question-answering": Case(
        tiny_models.table_reader,
        beside("query", lambda _: ("how many people", "how many people lima"), table=PEOPLE),
        frozenset({"answer", "cells", "coordinates"}),
        {"truncation": True},
        lambda answer: "answer" in answer,
    ),
    "text-classification": Case(
        tiny_models.text_classifier, texts, SCORED, {"top_k": None}, lambda answer: len(answer) == 2
    ),
    "text-generation": Case(
        tiny_models.generator,
        texts,
        frozenset({"generated_text"}),
        {"return_full_text": False},
        lambda answer: not answer[0]["generated_text"].startswith("one"),
        job={"max_new_tokens": 4},
    ),
    "text-to-audio": Case(
        tiny_sounds.speaker,
        texts,
        frozenset({"audio", "sampling_rate"}),
        {"seed": 7},
        lambda answer: answer["sampling_rate"] == 16000,
    ),
    "token-classification": Case(
        tiny_models.token_classifier,
        texts,
        frozenset({"entity", "score", "index", "word", "start", "end"}),
        {"aggregation_strategy": "simple"},
        lambda answer: "entity_group" in answer[0],
    ),
    "video-classification": Case(
        tiny_images.video_classifier, videos, SCORED, {"top_k": 1}, lambda answer: len(answer) == 1
    ),
    "zero-shot-audio-classification": Case(
        tiny_sounds.sound_and_text,
        beside("audio", sounds, candidate_labels=["wet", "very very dry"]),
        SCORED,
        {"hypothesis_template": "{}!"},
        lambda answer: len(answer) == 2,
    ),
    "zero-shot-classification": Case(
        tiny_models.entailment,
        texts,
        frozenset({"sequence", "labels", "scores"}),
        {"candidate_labels": ["one"]},
        lambda answer: answer["labels"] == ["one"],
        job=LABELS,
    ),
    "zero-shot-image-classification": Case(
        tiny_images.image_and_text,
        images,
        SCORED,
        {"candidate_labels": ["one"]},
        lambda answer: [guess["label"] for guess in answer] == ["one"],
        job=LABELS,
    ),
    "zero-shot-object-detection": Case(
        tiny_images.detector_by_text,
        beside("image", images, candidate_labels=["wet", "very very dry"]),
        BOXED,
        {"threshold": 1.0},
        lambda answer: answer == [],
        job={"threshold": 0.0},
    ),
}


@pytest.mark.parametrize("task", sorted(CASES))
def test_a_task_gives_the_same_answers_alone_in_batches_and_with_parameters_of_a_row(tmp_path: Path, task: str) -> None:
    case = CASES[task]
    if case.needs is not None and importlib.util.find_spec(case.needs) is None:
        folder = tiny_models.encoder(tmp_path / "model")  # missing parts are reported before a model is loaded
        with pytest.raises(LoadFailed, match=f"task '{task}' needs the package {case.needs}, which is not installed"):
            serve(folder, task)
        return
    ask = serve(case.make(tmp_path / "model"), task)
    first, second = case.inputs(tmp_path)
    together = outputs(ask(first, second, first, **case.job))
    alone = [outputs(ask(one, **case.job))[0] for one in (first, second)]
    assert same(together, [alone[0], alone[1], alone[0]])
    assert keys(together[0]) == case.holds
    changed, plain = outputs(ask({"inputs": first, "parameters": {**case.own}}, first, **case.job))
    assert same(plain, alone[0])
    assert case.does(changed)


def test_the_table_above_covers_every_task() -> None:
    tasks = {name for name, made in PIPELINE_REGISTRY.supported_tasks.items() if isinstance(made["impl"], str)}
    assert tasks == CASES.keys()


@pytest.mark.parametrize(
    ("alias", "task"), [("sentiment-analysis", "text-classification"), ("ner", "token-classification")]
)
def test_an_alias_answers_as_its_task(tmp_path: Path, alias: str, task: str) -> None:
    folder = CASES[task].make(tmp_path / "model")
    assert outputs(serve(folder, alias)("one")) == outputs(serve(folder, task)("one"))


@pytest.mark.parametrize("task", ["fill-mask", "text-classification", "token-classification"])
def test_a_text_is_answered_in_the_format_of_a_hugging_face_endpoint(tmp_path: Path, task: str) -> None:
    folder = CASES[task].make(tmp_path / "model")
    (text, _), called = CASES[task].inputs(tmp_path), pipeline(task, model=str(folder), device="cpu")
    (answer,) = outputs(serve(folder, task)(text))
    theirs = called(text)  # the toolkit passes a single input on unchanged
    assert (type(answer), keys(answer)) == (type(theirs), keys(theirs))


def test_speech_tasks_have_an_alias(tmp_path: Path) -> None:
    speak = serve(tiny_sounds.speaker(tmp_path / "model"), "text-to-speech")
    assert outputs(speak("one"))[0]["sampling_rate"] == 16000


def test_a_generating_model_transcribes_speech(tmp_path: Path) -> None:
    ask = serve(tiny_sounds.speech_writer(tmp_path / "model"), "automatic-speech-recognition")
    sound, other = sounds(tmp_path)
    together = outputs(ask(sound, other, max_new_tokens=4))
    assert together == [outputs(ask(one, max_new_tokens=4))[0] for one in (sound, other)]
    assert outputs(ask({"inputs": sound, "parameters": {"generate_kwargs": {"max_new_tokens": 4}}})) == together[:1]


def test_a_document_without_words_needs_a_package_and_says_so(tmp_path: Path) -> None:
    if importlib.util.find_spec("pytesseract") is not None:
        pytest.skip("the package is installed")
    ask = serve(tiny_images.document_reader(tmp_path / "model"), "document-question-answering")
    image, _ = images(tmp_path)
    ((entry),) = ask({"image": image, "question": "who"})
    assert "pytesseract is not available" in entry["error"]["message"]


def test_a_missing_text_and_a_missing_image_get_different_messages(tmp_path: Path) -> None:
    ask = serve(tiny_images.captioner(tmp_path / "model"), "image-text-to-text")
    image, _ = images(tmp_path)
    entries = ask({"image": image}, 5, max_new_tokens=1)
    assert [entry["error"]["kind"] for entry in entries] == ["rejected", "rejected"]
