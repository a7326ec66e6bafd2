"""The tasks that transformers 5 dropped and this worker still has: their names, and a model for each."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from orchestrator.worker.pictures import PictureModel, load_picture_model
from orchestrator.worker.question_answering import QuestionAnsweringModel, load_question_answering
from orchestrator.worker.seq2seq import Seq2SeqModel, load_seq2seq

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from orchestrator.worker.model import Model, Settings

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
_GENERATION = 8  # as for text-generation: a step reads all the weights whatever the batch


def dropped_task(task: str) -> str | None:
    """The task's own name; None for one that is not among these."""
    if task in DROPPED or _TRANSLATION.fullmatch(task):
        return _ALIASES.get(task, task)
    return None


def build_dropped(
    task: str,
    settings: Settings,
    device: torch.device,
    budget: int,
    info: Callable[[Any], Mapping[str, object]],
) -> Model:
    """The model for one of these tasks, loaded."""
    options = {"revision": settings.revision, "trust_remote_code": settings.trust_remote_code}
    source = settings.model, options, settings.dtype, device
    if task == "question-answering":
        model, tokenizer = load_question_answering(*source)
        return QuestionAnsweringModel(model, tokenizer, budget, info(model))
    if task in {"image-to-text", "visual-question-answering"}:
        model, processor = load_picture_model(task, *source)
        return PictureModel(model, processor, task, budget, info(model))
    model, tokenizer = load_seq2seq(*source)
    return Seq2SeqModel(model, tokenizer, task, budget * _GENERATION, info(model))
