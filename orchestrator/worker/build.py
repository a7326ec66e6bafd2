"""Settings -> a model in memory, on its device, with the budget that suits both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from orchestrator.worker.batches import Batches
from orchestrator.worker.dropped_tasks import build_dropped, dropped_task
from orchestrator.worker.embeddings import EmbeddingModel
from orchestrator.worker.needed_packages import check_packages
from orchestrator.worker.own_modules import import_modules
from orchestrator.worker.pipelines import PipelineModel
from orchestrator.worker.sentences import read_sentence_layout
from orchestrator.worker.tasks import find_task

if TYPE_CHECKING:
    from orchestrator.worker.model import Model, Settings

_CPU_BUDGET = 1024  # padded tokens; MiniLM was fastest here, 512 and 2,048 within 5 % of it
_ACCELERATOR_BUDGET = 32768
_GENERATION = 8  # a step of generation reads all the weights whatever the batch: wide batches pay


def build(settings: Settings) -> Batches:
    """Load the model in the thread that will call it."""
    torch.set_num_threads(settings.threads)  # OpenMP counts for each calling thread
    import_modules(settings.imports)
    task, own = find_task(settings)
    first = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    device = torch.device(settings.device or first or "cpu")
    budget = _CPU_BUDGET if device.type == "cpu" else _ACCELERATOR_BUDGET
    if own is None and dropped_task(task):
        return Batches(build_dropped(task, settings, device, budget, lambda model: _info(settings, model)))
    if own is None and task == "feature-extraction":
        return Batches(_embedding_model(settings, device, budget))
    if own is None:
        check_packages(task)
    pipe = transformers.pipeline(
        task,
        model=settings.model,
        revision=settings.revision,
        device=device,
        dtype=settings.dtype,
        trust_remote_code=settings.trust_remote_code,
        pipeline_class=own,
    )
    if task == "text-generation":
        budget *= _GENERATION
    return Batches(PipelineModel(pipe, task, budget, _info(settings, pipe.model)))


def _embedding_model(settings: Settings, device: torch.device, budget: int) -> Model:
    folder, pooling = read_sentence_layout(settings)
    source = {"revision": settings.revision, "subfolder": folder, "trust_remote_code": settings.trust_remote_code}
    tokenizer = transformers.AutoTokenizer.from_pretrained(settings.model, **source)
    model = transformers.AutoModel.from_pretrained(settings.model, dtype=settings.dtype, **source).to(device).eval()
    if pooling and model.config.is_encoder_decoder:
        model = model.get_encoder()
    return EmbeddingModel(model, tokenizer, pooling, budget, _info(settings, model))


def _info(settings: Settings, model: Any) -> dict[str, object]:  # noqa: ANN401 - untyped library
    return {
        "task": settings.task,
        "model": Path(settings.model).name,
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": settings.threads,
    }
