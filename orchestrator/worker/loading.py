"""Loads a model, or says in one line why it cannot be loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.worker.model import TOO_LITTLE_MEMORY, LoadFailed, ModelSettings, is_out_of_memory, one_line
from orchestrator.worker.needed_packages import check_companions

if TYPE_CHECKING:
    from orchestrator.worker.batches import BatchedModel


def load(settings: ModelSettings) -> BatchedModel:
    """Return the model, ready to answer. Raises `LoadFailed` if it cannot be loaded."""
    try:
        check_companions()
        from orchestrator.worker.build import build

        return build(settings)
    except LoadFailed:
        raise
    except ImportError as error:
        raise LoadFailed(_missing(error)) from error
    except Exception as error:
        raise LoadFailed(_reason(error, settings)) from error


def _missing(error: ImportError) -> str:
    if error.name and error.name.partition(".")[0] in {"torch", "transformers", "PIL", "numpy"}:
        why = one_line(error)
        return f"a local model needs more packages: pip install 'batch-inference-orchestrator[local]' ({why})"
    return one_line(error)


def _reason(error: Exception, settings: ModelSettings) -> str:
    if is_out_of_memory(error):
        return f"model {settings.model!r} does not fit in memory: {one_line(error)}; {TOO_LITTLE_MEMORY}"
    if isinstance(error, OSError) and not Path(settings.model).is_dir():
        return (
            f"model {settings.model!r} is neither a folder nor a package that carries a model, and it could not be "
            f"downloaded from the hub: {one_line(error)}"
        )
    return f"model {settings.model!r} cannot be loaded for task {settings.task!r}: {one_line(error)}"
