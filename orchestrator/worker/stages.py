"""Runs the three stages of a pipeline (preprocess, forward, postprocess) separately, so that the first two overlap.

The pipeline's own `__call__` resolves inputs and parameters, and its own code runs each stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers.pipelines.base import ChunkPipeline, Pipeline, no_collate_fn, pad_collate_fn
from transformers.pipelines.pt_utils import PipelineIterator, PipelinePackIterator

from orchestrator.worker.cutting import Cut, CutWatch
from orchestrator.worker.model import Parameters, PreparedInput, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_TASKS = frozenset(  # transformers' own tasks whose inputs become tensors of moderate size
    {
        "audio-classification",
        "fill-mask",
        "image-classification",
        "image-feature-extraction",
        "text-classification",
        "text-generation",
        "token-classification",
        "zero-shot-classification",
    }
)


def has_stages(pipe: Any, task: str) -> bool:
    """Whether the pipeline works in the usual way: one of the tasks above, or a user's that does not override it."""
    kind = type(pipe)
    if kind.__module__.startswith("transformers.pipelines."):
        return task in _TASKS
    return kind.__call__ is Pipeline.__call__ and kind.get_iterator is Pipeline.get_iterator


class _Asked(Exception):
    """The inputs and parameters of a pipeline call, raised from inside it to hand them out."""

    def __init__(self, inputs: Sequence[object], *parameters: Parameters) -> None:
        super().__init__()
        self.inputs = inputs
        self.preprocess, self.forward, self.postprocess = parameters


@dataclass(frozen=True, slots=True)
class Prepared:
    """One preprocessed input, in several pieces if the pipeline splits its inputs."""

    pieces: list[Any]
    asked: _Asked


@dataclass(frozen=True, slots=True)
class ModelBatch:
    """The inputs of one model call."""

    pipe: Any
    inputs: Any
    pieces: int
    asked: _Asked

    def answers(self) -> list[object]:
        """Run forward and postprocess. Return one output per input."""
        pack = PipelinePackIterator if isinstance(self.pipe, ChunkPipeline) else PipelineIterator
        outputs = pack([self.inputs], self.pipe.forward, self.asked.forward, self.pieces)
        return [*PipelineIterator(outputs, self.pipe.postprocess, self.asked.postprocess)]


class Stages:
    """A pipeline that is only called with lists.

    `blame`: turns the exception over an input into its failure.
    """

    def __init__(self, pipe: Any, blame: Callable[[BaseException], Rejected]) -> None:
        self._pipe = pipe
        self._blame = blame
        self._pad: Callable[[Sequence[Any]], Any] = pad_collate_fn(
            pipe.tokenizer, pipe.feature_extractor or pipe.image_processor
        )
        self._watch = None if pipe.tokenizer is None else CutWatch(pipe.tokenizer)
        pipe.get_iterator = _hand_out

    def asked(self, values: Sequence[object], settings: Parameters) -> _Asked:
        """Return the inputs and parameters that the pipeline makes of these. Raises what the pipeline raises."""
        if not values:
            return _Asked([], {}, {}, {})
        try:
            self._pipe([*values], **settings)
        except _Asked as asked:
            return asked
        raise TypeError(f"{type(self._pipe).__name__} does not take a list")

    def prepared(self, made: object, opened: PreparedInput, asked: _Asked, *, whole: bool) -> PreparedInput | Rejected:
        """Preprocess one input: `made` is the pipeline's form of what was `opened`. `whole`: nothing may be cut."""
        if self._watch is not None:
            self._watch.taken()
        try:
            pieces = self._pipe.preprocess(made, **asked.preprocess)
            pieces = [*pieces] if isinstance(self._pipe, ChunkPipeline) else [pieces]
        except BaseException as error:
            return self._blame(error)
        cut = None if self._watch is None else self._watch.longest()
        if whole and (too_long := cut or self._too_long(pieces)) is not None:
            return too_long.refused()
        return PreparedInput(
            Prepared(pieces, asked), _tokens(pieces) or opened.length, None if cut is None else cut.limit
        )

    def _too_long(self, pieces: Sequence[Any]) -> Cut | None:
        """Return the excess length at which the model itself would fail."""
        known = [
            getattr(self._pipe.tokenizer, "model_max_length", None),
            getattr(self._pipe.model.config, "max_position_embeddings", None),
        ]
        limit = min((length for length in known if length), default=None)
        longest = max((piece["input_ids"].shape[-1] for piece in pieces if "input_ids" in piece), default=0)
        return None if limit is None or longest <= limit else Cut(longest, limit)

    def collate(self, values: Sequence[Prepared]) -> ModelBatch:
        """Pad the pieces of several inputs to one length."""
        pieces = [piece for value in values for piece in value.pieces]
        inputs = no_collate_fn(pieces) if len(pieces) == 1 else self._pad(pieces)
        return ModelBatch(self._pipe, inputs, len(pieces), values[0].asked)


def _hand_out(
    inputs: Sequence[object], _workers: int, _size: int, preprocess: Parameters, forward: Parameters, after: Parameters
) -> None:
    """Replaces `Pipeline.get_iterator`."""
    raise _Asked(inputs, preprocess, forward, after)


def _tokens(pieces: Sequence[Any]) -> int:
    """Count all tokens of an input; 0 if it has none."""
    ids = [piece["input_ids"] for piece in pieces if "input_ids" in piece]
    return sum(one.numel() for one in ids if isinstance(one, torch.Tensor))
