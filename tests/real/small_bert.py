"""A BERT of 4 million weights, computed with numpy: a handler loads it in a moment. The source stands alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

_HEADS = 2
_ERF = np.frompyfunc(math.erf, 1, 1)


class SmallBert:
    """The encoder of the package `cognition`; `folder` is that of its model."""

    def __init__(self, folder: str) -> None:
        self._weights = load_file(f"{folder}/model.safetensors")
        self._tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")

    def vector(self, text: str) -> Any:
        """Return the mean of the last layer: [hidden]."""
        ids = self._tokenizer.encode(text).ids
        at = "bert.embeddings."
        words, places, kinds = (self._weights[f"{at}{n}_embeddings.weight"] for n in ("word", "position", "token_type"))
        x = self._normed(words[ids] + places[: len(ids)] + kinds[0], f"{at}LayerNorm")
        for number in range(2):
            x = self._layer(x, f"bert.encoder.layer.{number}.")
        return x.mean(axis=0)

    def _layer(self, x: Any, at: str) -> Any:
        query, key, value = (
            self._linear(x, f"{at}attention.self.{name}").reshape(len(x), _HEADS, -1).swapaxes(0, 1)
            for name in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1])
        likely = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (likely / likely.sum(axis=-1, keepdims=True) @ value).swapaxes(0, 1).reshape(x.shape)
        x = self._normed(x + self._linear(mixed, f"{at}attention.output.dense"), f"{at}attention.output.LayerNorm")
        wide = self._linear(x, f"{at}intermediate.dense")
        wide = wide * (1 + _ERF(wide / math.sqrt(2)).astype(wide.dtype)) / 2
        return self._normed(x + self._linear(wide, f"{at}output.dense"), f"{at}output.LayerNorm")

    def _linear(self, x: Any, at: str) -> Any:
        return x @ self._weights[f"{at}.weight"].T + self._weights[f"{at}.bias"]

    def _normed(self, x: Any, at: str) -> Any:
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-12)
        return x * self._weights[f"{at}.gamma"] + self._weights[f"{at}.beta"]
