"""Packages that some tasks cannot do without, and that nobody else needs: looked for before anything is loaded."""

from __future__ import annotations

import importlib.util

from orchestrator.worker.model import LoadFailed

_NEEDED = {  # task: package, and how it is installed
    "mask-generation": ("torchvision", "install the build of it that belongs to your torch"),
    "table-question-answering": ("pandas", "pip install pandas"),
    "video-classification": ("av", "pip install av"),
}


def check_packages(task: str) -> None:
    """`LoadFailed` where the task needs a package that is not installed."""
    package, install = _NEEDED.get(task, (None, None))
    if package is not None and importlib.util.find_spec(package) is None:
        raise LoadFailed(f"task {task!r} needs the package {package}, which is not installed: {install}")
