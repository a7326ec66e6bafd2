"""Every task of transformers as a `Model`: the inputs that a pipeline takes, and how it handles lists."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from transformers.utils.chat_template_utils import Chat

from orchestrator.worker.cutting import table_cut
from orchestrator.worker.files import open_files
from orchestrator.worker.generation import reproducible
from orchestrator.worker.handler.failures import judged
from orchestrator.worker.limits import LimitWatch
from orchestrator.worker.model import Parameters, PreparedInput, Rejected, as_rejected, one_line
from orchestrator.worker.stages import ModelBatch, Stages, has_stages

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_TAKES: dict[str, tuple[type, ...]] = {  # other tasks check their input themselves
    "text-classification": (str, dict),
    "fill-mask": (str,),
    "keypoint-matching": (list,),
    "table-question-answering": (dict,),
    "text-generation": (str, Chat),
    "text-to-audio": (str, Chat),
    "zero-shot-classification": (str,),
}
_UNWRAPS_ONE = frozenset({"keypoint-matching", "table-question-answering"})  # a list of one: no list
_ONE_BY_ONE = frozenset(  # these do not form batches, or a list means something else to them
    {"any-to-any", "decision", "image-text-to-text", "mask-generation", "text-to-audio", "video-classification"}
)
_CUTS = frozenset(  # or may, if told to
    {"table-question-answering", "text-classification", "token-classification", "zero-shot-classification"}
)
_CHARACTERS_PER_TOKEN = 4
_IMAGE_TOKENS = 256
_SAMPLES_PER_TOKEN = 320  # 50 tokens a second at 16 kHz, as Whisper and wav2vec2 have it


class PipelineModel:
    """A transformers pipeline. Its own code prepares inputs, pads batches and makes answers.

    Most pipelines do the first two while the model computes; others are called with their inputs unchanged.
    """

    def __init__(
        self,
        pipe: Any,
        task: str,
        budget: int,
        info: Mapping[str, object],
        own: Path | None = None,
    ) -> None:
        """`own`: the folder of the user's code, if the pipeline is not from transformers."""
        self.task = task
        self._own = own
        self.info = info
        self.budget = budget
        self._pipe = pipe
        pads = pipe.tokenizer or pipe.feature_extractor or pipe.image_processor  # without these it cannot form batches
        self._one_by_one = task in _ONE_BY_ONE or not pads
        self._generates = bool(getattr(pipe.model, "can_generate", bool)())
        self._rate: int | None = getattr(pipe.feature_extractor, "sampling_rate", None)
        _give_pad_token(pipe)
        self._limits = LimitWatch(pipe.model) if task == "text-generation" and self._generates else None
        self._stages = Stages(pipe, self._blame) if has_stages(pipe, task) and not self._one_by_one else None

    def prepare(self, values: Sequence[object], parameters: Parameters) -> Sequence[PreparedInput | Rejected]:
        """Open files, turn message lists into chats, refuse wrong types, and tokenize."""
        ready = [self._open(value, parameters) for value in values]
        if self._stages is None:
            return ready
        try:
            asked = self._stages.asked(
                [one.value for one in ready if isinstance(one, PreparedInput)], self._settings(parameters)
            )
        except Exception as error:
            raise self._blame(error) from error
        inputs = iter(asked.inputs)
        whole = self._never_cut(parameters)
        return [
            one if isinstance(one, Rejected) else self._stages.prepared(next(inputs), one, asked, whole=whole)
            for one in ready
        ]

    def _settings(self, parameters: Parameters) -> Parameters:
        if self._never_cut(parameters):  # our own parameter: the pipelines that cut do not take it
            parameters = {name: value for name, value in parameters.items() if name != "truncation"}
        return reproducible(self.task, parameters, generates=self._generates)

    def _never_cut(self, parameters: Parameters) -> bool:
        return self.task in _CUTS and parameters.get("truncation") is False

    def _open(self, value: object, parameters: Parameters) -> PreparedInput | Rejected:
        try:
            made = _chat(open_files(value, self._rate), self.task)
        except Rejected as error:
            return error
        takes = _TAKES.get(self.task, (object,))
        if self.task == "token-classification":
            takes = (list,) if parameters.get("is_split_into_words") else (str,)
        if not isinstance(made, takes):
            names = " or ".join(_NAMES.get(one, one.__name__) for one in takes)
            return Rejected(f"{self.task} takes {names}, not {_NAMES.get(type(value), type(value).__name__)}")
        try:
            cut = table_cut(self._pipe, made) if self.task == "table-question-answering" else None
        except Exception as error:
            return self._blame(error)
        if cut is not None and self._never_cut(parameters):
            return cut.refused()
        return PreparedInput(made, 8 + _tokens(made), None if cut is None else cut.limit)

    def collate(self, values: Sequence[Any], _parameters: Parameters) -> ModelBatch | Sequence[Any]:
        """Pad the tokenized inputs."""
        return values if self._stages is None else self._stages.collate(values)

    def _blame(self, error: BaseException) -> Rejected:
        """Return the failure. A user's pipeline is judged like a handler: its exception may be a bug, not bad input."""
        if self._own is None:
            return as_rejected(error)
        if isinstance(error, ImportError):  # a handler's import error has another remedy
            return Rejected(one_line(error), "dubious")
        kind, words = judged(error, self._own)
        return Rejected(words, kind)

    def call(self, batch: ModelBatch | Sequence[Any], parameters: Parameters) -> Sequence[object]:
        """Answer a batch as the pipeline would answer its members one by one."""
        try:
            return self._answers(batch, parameters)
        except BaseException as error:
            if self._own is None:
                raise
            raise self._blame(error) from error

    def _answers(self, batch: ModelBatch | Sequence[Any], parameters: Parameters) -> Sequence[object]:
        with torch.inference_mode():
            if isinstance(batch, ModelBatch):
                outputs = batch.answers()
                if self.task == "text-classification" and self._own is None:
                    outputs = [[one] if isinstance(one, dict) else one for one in outputs]
                return outputs if self._limits is None else self._limits.marked(outputs)
            settings = self._settings(parameters)
            if self._one_by_one:
                return [self._one(value, settings) for value in batch]
            outputs = self._pipe([*batch], **settings, batch_size=len(batch))
        return [outputs] if len(batch) == 1 and self.task in _UNWRAPS_ONE else outputs

    def _one(self, value: Any, settings: Parameters) -> object:
        own = copy.deepcopy(settings)  # some pipelines modify their arguments
        if self.task == "image-text-to-text" and isinstance(value, str):
            return self._pipe(text=value, **own)
        if self.task == "image-text-to-text" and isinstance(value, dict) and "image" in value:
            value = {"images": value["image"], **{name: part for name, part in value.items() if name != "image"}}
        return self._pipe(value, **own)


_NAMES: dict[type, str] = {
    str: "a text",
    dict: "an object",
    list: "a list",
    Chat: "a list of messages",
    int: "a number",
    float: "a number",
    bool: "a truth value",
    type(None): "null",
}


def _chat(value: object, task: str) -> object:
    """Return a list of messages as a single input, which pipelines would otherwise take for a batch."""
    if not (isinstance(value, list) and value and isinstance(value[0], dict) and "role" in value[0]):
        return value
    try:
        return Chat(value)
    except ValueError as error:
        raise Rejected(f"{task}: {error}") from error


def _tokens(value: object) -> int:
    """Estimate the tokens, which decides which inputs share a batch, and how many."""
    match value:
        case str():
            return len(value) // _CHARACTERS_PER_TOKEN
        case Image.Image():
            return _IMAGE_TOKENS
        case np.ndarray() | bytes():
            return len(value) // _SAMPLES_PER_TOKEN
        case dict():
            return sum(map(_tokens, value.values()))
        case list():
            return sum(map(_tokens, value))
    return _tokens(value.messages) if isinstance(value, Chat) else 1


def _give_pad_token(pipe: Any) -> None:
    """Set a padding token: without one, every batch of several inputs raises. Padding is masked, so any token works."""
    tokenizer = pipe.tokenizer
    if tokenizer is None:
        return
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    for config in (pipe.model.config, getattr(pipe.model, "generation_config", None)):
        if config is not None and getattr(config, "pad_token_id", None) is None:
            config.pad_token_id = tokenizer.pad_token_id
