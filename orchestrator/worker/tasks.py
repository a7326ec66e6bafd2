"""Finds the named task: one of transformers, one that it dropped, or one from the user's or the model's code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils.hub import cached_file

from orchestrator.worker.dropped_tasks import DROPPED, dropped_task
from orchestrator.worker.model import LoadFailed, ModelSettings


def find_task(settings: ModelSettings) -> tuple[str, type | None]:
    """Return the task's canonical name, and its pipeline's class if the user's or the model's code has one.

    Raises `LoadFailed` if the task is unknown, or known only to code that is not trusted.
    """
    task = settings.task
    own = _own_pipeline(task)
    if own is not None:
        return task, own
    brought = _brought_by_model(settings)
    if task in brought:
        if settings.trust_remote_code:
            made = brought[task]["impl"]
            return task, get_class_from_dynamic_module(made, settings.model, revision=settings.revision)
        raise LoadFailed(
            f"task {task!r} is code that comes with model {settings.model!r}: read that code, then set "
            f"trust_remote_code=True"
        )
    try:
        return str(PIPELINE_REGISTRY.check_task(task)[0]), None
    except KeyError as error:
        if dropped := dropped_task(task):
            return dropped, None
        known = sorted({*PIPELINE_REGISTRY.get_supported_tasks(), *DROPPED, *brought})
        raise LoadFailed(f"unknown task {task!r}; this worker knows {', '.join(known)}") from error


def _own_pipeline(task: str) -> type | None:
    made = PIPELINE_REGISTRY.supported_tasks.get(task, {}).get("impl")
    return made if isinstance(made, type) and not made.__module__.startswith("transformers.") else None


def _brought_by_model(settings: ModelSettings) -> dict[str, Any]:
    """Return `custom_pipelines` of config.json; empty if there is no such file, which is reported elsewhere."""
    found = cached_file(
        settings.model,
        "config.json",
        revision=settings.revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return (orjson.loads(Path(found).read_bytes()).get("custom_pipelines") or {}) if found else {}
