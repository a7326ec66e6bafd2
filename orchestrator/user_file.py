"""A Python file of the user's, executed as it is now."""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from types import CodeType, ModuleType


class _Loader(SourceFileLoader):
    """Without Python's cache, which takes a file for the same if its size is and its time is, to the second."""

    def get_code(self, fullname: str) -> CodeType:
        """Compile what is there."""
        return self.source_to_code(self.get_data(self.get_filename(fullname)), self.path)


def execute(path: Path, name: str) -> ModuleType:
    """The module that this file is; it is imported by that name from now on. Raises whatever the file raises."""
    spec = spec_from_loader(name, _Loader(name, str(path)))
    assert spec is not None and spec.loader is not None  # noqa: S101, PT018 - ours
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
