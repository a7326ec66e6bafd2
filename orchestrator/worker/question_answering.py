"""question-answering, which transformers 5 dropped: finds the part of a context that answers a question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from orchestrator.worker.answer_spans import ContextTokens, Numbers, best_spans, whole_words
from orchestrator.worker.cutting import CutWatch
from orchestrator.worker.model import Loaded, Parameters, PreparedInput, Rejected, as_rejected

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_NUMBERS = {"max_seq_len": 384, "doc_stride": 128, "max_question_len": 64, "max_answer_len": 15, "top_k": 1}
_FLAGS = {"handle_impossible_answer": False, "align_to_words": True, "truncation": True}


@dataclass(frozen=True, slots=True)
class _Window:
    """A part of the context that fits beside the question."""

    inputs: Mapping[str, list[int]]
    allowed: Numbers  # bool for each token: whether it belongs to the context
    spans: Numbers  # where in the context it begins and ends


@dataclass(frozen=True, slots=True)
class _Asked:
    context: str
    windows: Sequence[_Window]


@dataclass(frozen=True, slots=True)
class _Padded:
    asked: Sequence[_Asked]
    parts: Sequence[tuple[Sequence[_Window], Any]]  # windows that share a call, and the tensors for it


class QuestionAnsweringModel:
    """`{"question", "context"}` -> `{"score", "start", "end", "answer"}`, or a list of these if `top_k` is above 1.

    A context that does not fit is read in windows that overlap by `doc_stride` tokens. A question longer than
    `max_question_len` is cut, or refused if `truncation` is false.
    """

    task = "question-answering"

    def __init__(self, loaded: Loaded) -> None:
        self.info = loaded.info
        self.budget = loaded.budget
        self._model = loaded.model
        self._tokenizer = loaded.processor
        self._watch = CutWatch(self._tokenizer)
        known = (self._tokenizer.model_max_length, getattr(self._model.config, "max_position_embeddings", None))
        self._limit: int = min(length for length in known if length)

    def prepare(self, values: Sequence[object], parameters: Parameters) -> Sequence[PreparedInput | Rejected]:
        """Cut each context into windows."""
        try:
            settings = self._settings(parameters)
        except Rejected as error:
            return [error for _ in values]
        return [self._prepare(value, settings) for value in values]

    def _settings(self, parameters: Parameters) -> dict[str, Any]:
        settings: dict[str, Any] = {**_NUMBERS, **_FLAGS, "max_seq_len": min(self._limit, _NUMBERS["max_seq_len"])}
        settings["doc_stride"] = min(settings["max_seq_len"] // 2, _NUMBERS["doc_stride"])
        for name, value in parameters.items():
            if name not in settings:
                raise Rejected(f"{self.task} has no parameter {name}; it has {', '.join(settings)}")
            if name in _FLAGS and not isinstance(value, bool):
                raise Rejected(f"{name} must be true or false, not {value!r}")
            least = 0 if name == "doc_stride" else 1
            if name in _NUMBERS and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise Rejected(f"{name} must be an integer of at least {least}, not {value!r}")
            settings[name] = value
        if settings["max_seq_len"] > self._limit:
            raise Rejected(f"max_seq_len {settings['max_seq_len']} is more than the model takes, {self._limit}")
        return settings

    def _prepare(self, value: object, settings: Parameters) -> PreparedInput | Rejected:
        if not isinstance(value, dict) or value.keys() != {"question", "context"}:
            return Rejected(f"{self.task} takes an object with question and context")
        question, context = value["question"], value["context"]
        if not (isinstance(question, str) and isinstance(context, str) and question.strip() and context.strip()):
            return Rejected("question and context must be non-empty texts")
        self._watch.taken()
        try:
            windows = [*self._windows(question, context, settings)]
        except BaseException as error:
            return as_rejected(error)
        cut = self._watch.longest()  # of the question: the rest of the context is in further windows
        if cut is not None and not settings["truncation"]:
            return cut.refused()
        length = len(windows) * max(len(each.allowed) for each in windows)
        return PreparedInput(_Asked(context, windows), length, None if cut is None else cut.limit)

    def _windows(self, question: str, context: str, settings: Parameters) -> Iterator[_Window]:
        tokenizer = self._tokenizer
        cut = tokenizer(
            question,
            add_special_tokens=False,
            truncation=True,
            max_length=settings["max_question_len"],
            return_offsets_mapping=True,
        )
        question = question[: cut["offset_mapping"][-1][1]]
        first = tokenizer.padding_side == "right"  # otherwise the context comes before the question
        made = tokenizer(
            *((question, context) if first else (context, question)),
            truncation="only_second" if first else "only_first",
            max_length=settings["max_seq_len"],
            stride=settings["doc_stride"],
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        windows = [
            ContextTokens(
                offsets, made.word_ids(place), np.array([part == int(first) for part in made.sequence_ids(place)])
            )
            for place, offsets in enumerate(made["offset_mapping"])
        ]
        whole = settings["align_to_words"]
        spans = whole_words(windows) if whole else [np.array(window.offsets) for window in windows]
        for place, window in enumerate(windows):
            inputs = {name: made[name][place] for name in tokenizer.model_input_names if name in made}
            yield _Window(inputs, window.allowed, spans[place])

    def collate(self, values: Sequence[_Asked], _parameters: Parameters) -> _Padded:
        """Pad all windows of the batch, with as many per call as the budget allows."""
        windows = [window for asked in values for window in asked.windows]
        together = max(1, self.budget // max(len(window.allowed) for window in windows))
        parts = [windows[start : start + together] for start in range(0, len(windows), together)]
        pad = self._tokenizer.pad
        return _Padded(values, [(part, pad([one.inputs for one in part], return_tensors="pt")) for part in parts])

    def call(self, batch: _Padded, parameters: Parameters) -> Sequence[object]:
        """Run all windows and return the best spans of each context."""
        settings = self._settings(parameters)
        logits = self._logits(batch)
        return [_answer(asked, [next(logits) for _ in asked.windows], settings) for asked in batch.asked]

    def _logits(self, batch: _Padded) -> Iterator[tuple[Numbers, Numbers]]:
        for windows, inputs in batch.parts:
            with torch.inference_mode():
                made = self._model(**inputs.to(self._model.device))
            starts, ends = made.start_logits.float().cpu().numpy(), made.end_logits.float().cpu().numpy()
            right = self._tokenizer.padding_side == "right"
            for place, window in enumerate(windows):
                own = slice(len(window.allowed)) if right else slice(-len(window.allowed), None)
                yield starts[place, own], ends[place, own]


def _answer(asked: _Asked, logits: Sequence[tuple[Numbers, Numbers]], settings: Parameters) -> object:
    """Return the best spans of all windows; a span found in two windows counts once."""
    best: dict[tuple[int, int], float] = {}
    nothing = 1.0
    for window, (start, end) in zip(asked.windows, logits, strict=True):
        found, empty = best_spans(start, end, window.allowed, settings["top_k"], settings["max_answer_len"])
        nothing = min(nothing, empty)
        for score, first, last in found:
            span = int(window.spans[first][0]), int(window.spans[last][1])
            best[span] = max(score, best.get(span, 0.0))
    answers: list[dict[str, Any]] = [
        {"score": score, "start": first, "end": last, "answer": asked.context[first:last]}
        for (first, last), score in best.items()
    ]
    if settings["handle_impossible_answer"]:
        answers.append({"score": nothing, "start": 0, "end": 0, "answer": ""})
    answers.sort(key=lambda answer: float(answer["score"]), reverse=True)
    answers = answers[: settings["top_k"]]
    return answers[0] if settings["top_k"] == 1 and answers else answers
