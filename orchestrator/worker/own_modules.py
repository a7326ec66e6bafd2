"""The user's modules, imported before the model is made, because they may register pipelines."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.worker.model import LoadFailed, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable


def import_modules(modules: Iterable[str]) -> None:
    """Import each NAME=FOLDER. Raises `LoadFailed` if an import fails, or if another module has that name.

    Folders are searched last, so a user's file named `json.py` replaces no other module.
    """
    for given in modules:
        name, _, folder = given.partition("=")
        if folder not in sys.path:
            sys.path.append(folder)
        try:
            module = importlib.import_module(name)
        except Exception as error:
            raise LoadFailed(f"imports: {name} cannot be imported: {one_line(error)}") from error
        found = Path(module.__file__ or "")
        if not found.is_relative_to(folder):
            raise LoadFailed(f"imports: {name} in {folder} needs another name: {found} goes by this one")
