"""The tasks that transformers 5 dropped and this worker still supports: their names, and a model for each."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import transformers

from orchestrator.worker.pictures import PictureModel
from orchestrator.worker.question_answering import QuestionAnsweringModel
from orchestrator.worker.seq2seq import Seq2SeqModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.worker.model import Loaded, Model

DROPPED = (  # translation_xx_to_yy stands for every pair of languages
    "image-to-text",
    "question-answering",
    "summarization",
    "text2text-generation",
    "translation",
    "translation_xx_to_yy",
    "visual-question-answering",
    "vqa",
)
_TRANSLATION = re.compile(r"translation_[\w-]+?_to_[\w-]+")
_ALIASES = {"vqa": "visual-question-answering"}


class Kind(NamedTuple):
    """How a task's model is loaded and served: the library's classes, and ours."""

    model: Any
    processor: Any
    served: Callable[[Loaded], Model]
    generates: bool = True


_KINDS = {
    "image-to-text": Kind(
        transformers.AutoModelForImageTextToText, transformers.AutoProcessor, PictureModel, generates=False
    ),
    "question-answering": Kind(
        transformers.AutoModelForQuestionAnswering,
        transformers.AutoTokenizer,
        QuestionAnsweringModel,
        generates=False,
    ),
    "visual-question-answering": Kind(
        transformers.AutoModelForVisualQuestionAnswering, transformers.AutoProcessor, PictureModel, generates=False
    ),
}
_TEXT_TO_TEXT = Kind(transformers.AutoModelForSeq2SeqLM, transformers.AutoTokenizer, Seq2SeqModel)


def dropped_task(task: str) -> str | None:
    """Return the task's canonical name, or None if it is not one of these."""
    if task in DROPPED or _TRANSLATION.fullmatch(task):
        return _ALIASES.get(task, task)
    return None


def kind_of(task: str) -> Kind:
    """Load the model of one of these tasks, by its canonical name."""
    return _KINDS.get(task, _TEXT_TO_TEXT)
