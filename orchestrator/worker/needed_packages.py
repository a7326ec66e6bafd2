"""Packages beside torch and transformers: those that a task needs are there, and those that are there fit."""

from __future__ import annotations

import importlib
import importlib.util

from orchestrator.worker.model import LoadFailed, one_line

_NEEDED = {  # task: package, and how to install it
    "mask-generation": ("torchvision", "install the build of it that belongs to your torch"),
    "table-question-answering": ("pandas", "pip install pandas"),
    "video-classification": ("av", "pip install av"),
}


def check_packages(task: str) -> None:
    """Raise `LoadFailed` if the task needs a package that is not installed."""
    package, install = _NEEDED.get(task, (None, None))
    if package is not None and importlib.util.find_spec(package) is None:
        raise LoadFailed(f"task {task!r} needs the package {package}, which is not installed: {install}")


def check_companions() -> None:
    """A torchvision built for another torch breaks `import transformers` in a way that names neither."""
    for name in ("torchvision", "torchaudio"):
        if importlib.util.find_spec(name) is None:
            continue
        try:
            importlib.import_module(name)
        except Exception as error:
            raise LoadFailed(
                f"the installed {name} does not fit the installed torch: pip uninstall {name}, or install the build "
                f"of it that belongs to this torch ({one_line(error)})"
            ) from error
