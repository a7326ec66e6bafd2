"""A pipeline of our own, as in https://huggingface.co/docs/transformers/add_new_pipeline: two texts, one label.

Importing this module registers it. The second text comes as a parameter, as in that guide, or beside the first in one
input, `{"text": ..., "second_text": ...}`: then pairs share batches.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoModelForSequenceClassification, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY


class PairClassificationPipeline(Pipeline):  # type: ignore[misc]  # the library has no types
    """`pipe("I like you", second_text="I love you")` -> `{"label", "score", "logits"}`."""

    def _sanitize_parameters(self, **given: object) -> tuple[dict[str, object], ...]:
        return {name: given[name] for name in ("second_text",) if name in given}, {}, {}

    def preprocess(self, given: str | dict[str, str], second_text: str | None = None) -> Any:
        """Tokenize the pair."""
        pair = (given["text"], given["second_text"]) if isinstance(given, dict) else (given, second_text)
        return self.tokenizer(*pair, return_tensors="pt")

    def _forward(self, model_inputs: Any) -> Any:
        return self.model(**model_inputs)

    def postprocess(self, model_outputs: Any) -> dict[str, object]:
        """Name the likelier label."""
        logits = model_outputs.logits[0].float()
        likely = logits.softmax(-1)
        best = int(likely.argmax())
        return {"label": self.model.config.id2label[best], "score": likely[best].item(), "logits": logits.tolist()}


PIPELINE_REGISTRY.register_pipeline(
    "pair-classification", pipeline_class=PairClassificationPipeline, pt_model=AutoModelForSequenceClassification
)
