"""Load the model that the settings name, on its device, with a suitable budget."""

from __future__ import annotations

import inspect
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from orchestrator.worker.batches import BatchedModel
from orchestrator.worker.device import accelerator, device_of
from orchestrator.worker.dropped_tasks import dropped_task, kind_of
from orchestrator.worker.embeddings import EmbeddingModel
from orchestrator.worker.model import Loaded
from orchestrator.worker.needed_packages import check_packages
from orchestrator.worker.own_modules import import_modules
from orchestrator.worker.pipelines import PipelineModel
from orchestrator.worker.sentences import read_sentence_layout
from orchestrator.worker.tasks import find_task

if TYPE_CHECKING:
    from orchestrator.worker.model import Model, ModelSettings

_CPU_BUDGET = 1024  # padded tokens; MiniLM was fastest here, 512 and 2,048 within 5 % of it
_ACCELERATOR_BUDGET = 32768
_GENERATION = 8  # a step of generation reads all the weights whatever the batch, so wide batches pay


def build(settings: ModelSettings) -> BatchedModel:
    """Load the model in the thread that will call it."""
    torch.set_num_threads(settings.threads)  # OpenMP counts for each calling thread
    import_modules(settings.imports)
    device = device_of(settings.device, accelerator())
    model, served = _model(settings, device)
    return BatchedModel(served, _what_counts(settings, model, device))


def _model(settings: ModelSettings, device: torch.device) -> tuple[Any, Model]:
    """Load the library's model and wrap it in ours."""
    task, own = find_task(settings)
    budget = _CPU_BUDGET if device.type == "cpu" else _ACCELERATOR_BUDGET
    if own is None and dropped_task(task):
        kind = kind_of(task)
        budget *= _GENERATION if kind.generates else 1
        loaded = _loaded(task, settings, device, budget, (kind.model, kind.processor))
        return loaded.model, kind.served(loaded)
    if own is None and task == "feature-extraction":
        folder, pooling = read_sentence_layout(settings)
        classes = transformers.AutoModel, transformers.AutoTokenizer
        loaded = _loaded(task, settings, device, budget, classes, subfolder=folder)
        if pooling and loaded.model.config.is_encoder_decoder:
            loaded = Loaded(task, loaded.model.get_encoder(), loaded.processor, budget, loaded.info)
        return loaded.model, EmbeddingModel(loaded, pooling)
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
    own_folder = None if own is None else Path(inspect.getfile(own)).parent
    return pipe.model, PipelineModel(pipe, task, budget, _info(settings, pipe.model), own_folder)


def _loaded(
    task: str, settings: ModelSettings, device: torch.device, budget: int, classes: tuple[Any, Any], **source: str
) -> Loaded:
    options = {"revision": settings.revision, "trust_remote_code": settings.trust_remote_code, **source}
    made, processed = classes
    processor = processed.from_pretrained(settings.model, **options)
    model = made.from_pretrained(settings.model, dtype=settings.dtype, **options).to(device).eval()
    return Loaded(task, model, processor, budget, _info(settings, model))


def _info(settings: ModelSettings, model: Any) -> dict[str, object]:
    return {
        "task": settings.task,
        "model": Path(settings.model).name,
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": settings.threads,
    }


def _what_counts(settings: ModelSettings, model: Any, device: torch.device) -> dict[str, object]:
    """Return what the best batch depends on, apart from the requests."""
    seen = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    return {
        "task": settings.task,
        "model": settings.model,
        "revision": settings.revision,
        "weights": sum(weights.numel() for weights in getattr(model, "parameters", list)()),
        "dtype": str(model.dtype),
        "threads": settings.threads,
        "device": seen.name if seen else f"{device.type} {platform.machine()}",
        "memory": seen.total_memory if seen else None,
        "torch": torch.__version__,
    }
