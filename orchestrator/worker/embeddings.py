"""feature-extraction: one pooled vector for a text where the model says how to pool, else one for each token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from orchestrator.worker.model import Parameters, Ready, Rejected, one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.worker.sentences import Pooling


class EmbeddingModel:
    """Tokenizer and encoder, padded by hand: texts of one batch cost no more than their own tokens and its padding."""

    task = "feature-extraction"

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - untyped library
        tokenizer: Any,  # noqa: ANN401 - untyped library
        pooling: Pooling | None,
        budget: int,
        info: Mapping[str, object],
    ) -> None:
        self.info = info
        self.budget = budget
        self._model = model
        self._tokenizer = tokenizer
        self._pooling = pooling
        self._pad: int = tokenizer.pad_token_id or 0
        known = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None)]
        if pooling:
            known.append(pooling.max_tokens)
        self._limit = min(length for length in known if length)

    def prepare(self, values: Sequence[object], parameters: Parameters) -> Sequence[Ready | Rejected]:
        """Tokenize. Past the model's length, pooled texts are cut; others are refused unless `truncation` is set."""
        texts = [value for value in values if isinstance(value, str)]
        if self._pooling:
            texts = [self._pooling.prompt + (text.lower() if self._pooling.lower_case else text) for text in texts]
        options = {"truncation": self._pooling is not None, "max_length": self._limit, **parameters}
        options |= {"padding": False, "return_tensors": None}  # batches are made later, and padded then
        if not options["truncation"]:
            del options["max_length"]
        try:
            ids = iter(self._tokenizer(texts, **options)["input_ids"] if texts else ())
        except (TypeError, ValueError) as error:  # texts are texts: the parameters are wrong
            return [Rejected(one_line(error)) for _ in values]
        return [
            self._fitting(next(ids)) if isinstance(value, str) else Rejected(f"{self.task} takes a text")
            for value in values
        ]

    def _fitting(self, ids: list[int]) -> Ready | Rejected:
        if len(ids) > self._limit:
            return Rejected(f"{len(ids)} tokens; the model takes {self._limit} (set the parameter truncation to cut)")
        return Ready(ids, len(ids))

    def call(self, values: Sequence[Any], _parameters: Parameters) -> Sequence[object]:
        """float32 arrays: [dimensions] where pooled, else [1, tokens, dimensions] as the pipeline has it."""
        with torch.inference_mode():
            return self._vectors(values)

    def _vectors(self, values: Sequence[list[int]]) -> Sequence[object]:
        lengths = np.fromiter(map(len, values), np.int64, len(values))
        mask = np.arange(lengths.max()) < lengths[:, None]
        ids = np.full(mask.shape, self._pad, np.int64)
        ids[mask] = np.concatenate([np.asarray(value, np.int64) for value in values])
        device = self._model.device
        attention = torch.from_numpy(mask.astype(np.int64)).to(device)
        hidden = self._model(input_ids=torch.from_numpy(ids).to(device), attention_mask=attention).last_hidden_state
        if not self._pooling:
            rows = hidden.float().cpu().numpy()
            return [row[None, :length] for row, length in zip(rows, lengths, strict=True)]
        vectors = torch.cat([_POOLED[mode](hidden, attention) for mode in self._pooling.modes], 1)
        if self._pooling.normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        return [*vectors.float().cpu().numpy()]


def _first(hidden: torch.Tensor, _attention: torch.Tensor) -> torch.Tensor:
    return hidden[:, 0]


def _last(hidden: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
    return hidden[torch.arange(len(hidden), device=hidden.device), attention.sum(1) - 1]


def _mean(hidden: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
    weights = (attention / attention.sum(1, keepdim=True)).to(hidden.dtype)
    return torch.bmm(weights[:, None], hidden)[:, 0]


def _max(hidden: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
    return hidden.masked_fill(attention[..., None] == 0, float("-inf")).amax(1)


_POOLED = {"cls": _first, "max": _max, "mean": _mean, "lasttoken": _last}
