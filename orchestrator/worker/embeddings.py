"""feature-extraction: one pooled vector per text if the model says how to pool, otherwise one per token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from orchestrator.worker.cutting import Cut, CutWatch
from orchestrator.worker.model import Loaded, Parameters, PreparedInput, Rejected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.worker.sentences import Pooling


class EmbeddingModel:
    """A tokenizer and an encoder. We pad batches ourselves, so a batch costs only its own tokens and padding."""

    task = "feature-extraction"

    def __init__(self, loaded: Loaded, pooling: Pooling | None) -> None:
        self.info = loaded.info
        self.budget = loaded.budget
        self._model = loaded.model
        self._tokenizer = loaded.processor
        self._pooling = pooling
        self._pad: int = self._tokenizer.pad_token_id or 0
        self._watch = CutWatch(self._tokenizer)
        known = [self._tokenizer.model_max_length, getattr(self._model.config, "max_position_embeddings", None)]
        if pooling:
            known.append(pooling.max_tokens)
        self._limit = min(length for length in known if length)

    def prepare(self, values: Sequence[object], parameters: Parameters) -> Sequence[PreparedInput | Rejected]:
        """Tokenize. Beyond the model's length, pooled texts are cut; others are refused unless `truncation` is set.

        If `truncation` is false, pooled texts are refused too.
        """
        texts = [value for value in values if isinstance(value, str)]
        if self._pooling:
            texts = [self._pooling.prompt + (text.lower() if self._pooling.lower_case else text) for text in texts]
        options = {"truncation": self._pooling is not None, "max_length": self._limit, **parameters}
        options |= {"padding": False, "return_tensors": None}  # batches are formed and padded later
        if not options["truncation"]:
            del options["max_length"]
        self._watch.taken()
        ids = self._tokenizer(texts, **options)["input_ids"] if texts else ()
        made = zip(ids, self._watch.taken(), strict=True)
        return [
            self._fitting(*next(made)) if isinstance(value, str) else Rejected(f"{self.task} takes a text")
            for value in values
        ]

    def _fitting(self, ids: list[int], cut: Cut | None) -> PreparedInput | Rejected:
        if len(ids) > self._limit:
            return Rejected(f"{len(ids)} tokens; the model takes {self._limit} (set the parameter truncation to cut)")
        return PreparedInput(ids, len(ids), None if cut is None else cut.limit)

    def collate(self, values: Sequence[list[int]], _parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
        """Return token ids and attention, [texts, tokens]."""
        lengths = np.fromiter(map(len, values), np.int64, len(values))
        mask = np.arange(lengths.max()) < lengths[:, None]
        ids = np.full(mask.shape, self._pad, np.int64)
        ids[mask] = np.concatenate([np.asarray(value, np.int64) for value in values])
        return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))

    def call(self, batch: tuple[torch.Tensor, torch.Tensor], _parameters: Parameters) -> Sequence[object]:
        """Return float32 arrays: [dimensions] if pooled, else [1, tokens, dimensions] as in the pipeline."""
        with torch.inference_mode():
            return self._vectors(*batch)

    def _vectors(self, ids: torch.Tensor, given: torch.Tensor) -> Sequence[object]:
        attention = given.to(self._model.device)
        made = self._model(input_ids=ids.to(self._model.device), attention_mask=attention).last_hidden_state
        hidden = made.float()  # in bfloat16, a mean and a vector's length would be off by up to 0.4 %
        if not self._pooling:
            rows = hidden.cpu().numpy()
            return [row[None, :length] for row, length in zip(rows, given.sum(1).tolist(), strict=True)]
        vectors = torch.cat([_POOLED[mode](hidden, attention) for mode in self._pooling.modes], 1)
        if self._pooling.normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        return [*vectors.cpu().numpy()]


def _first(hidden: torch.Tensor, _attention: torch.Tensor) -> torch.Tensor:
    return hidden[:, 0]


def _last(hidden: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
    return hidden[torch.arange(len(hidden), device=hidden.device), attention.sum(1) - 1]


def _mean(hidden: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
    weights = attention / attention.sum(1, keepdim=True)
    return torch.bmm(weights[:, None], hidden)[:, 0]


def _max(hidden: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
    return hidden.masked_fill(attention[..., None] == 0, float("-inf")).amax(1)


_POOLED = {"cls": _first, "max": _max, "mean": _mean, "lasttoken": _last}
