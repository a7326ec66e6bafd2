"""FLOOR 1: a Python file of the user's, executed as it is now."""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from typing import TYPE_CHECKING

from orchestrator.domain.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path
    from types import CodeType, ModuleType

_PREFIX = "jobfile_"  # of the names under which job files are imported


class _Loader(SourceFileLoader):
    """Without Python's cache, which takes a file for the same if its size is and its time is, to the second."""

    def get_code(self, fullname: str) -> CodeType:
        """Compile what is there."""
        return self.source_to_code(self.get_data(self.get_filename(fullname)), self.path)


def execute(path: Path, name: str) -> ModuleType:
    """The module that this file is; it is imported by that name from now on. Raises whatever the file raises."""
    spec = spec_from_loader(name, _Loader(name, str(path)))
    assert spec is not None and spec.loader is not None  # noqa: PT018 - ours
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def execute_job_file(path: Path) -> ModuleType:
    """The module that a job file is, or a file that one refers to. Its folder is importable from now on.

    Everything that can be wrong with it is a `UsageError` of one line.
    """
    if not path.is_file():
        raise UsageError(f"there is no job file {path}")
    make_importable(path.parent)
    try:
        return execute(path, f"{_PREFIX}{path.stem}")
    except UsageError:
        raise
    except SystemExit as error:
        raise UsageError(f"{path} ended itself with exit({error.code!r}); a job file only declares") from error
    except SyntaxError as error:
        raise UsageError(f"{error.filename or path}, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        raise UsageError(f"{path}{_line_in(path, error)}: {type(error).__name__}: {error}") from error


def make_importable(folder: Path) -> None:
    """Look for modules in this folder, too."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def executed_job_files() -> list[ModuleType]:
    """The job files that this process has executed; of several with one name, the last."""
    return [module for name, module in list(sys.modules.items()) if name.startswith(_PREFIX)]


def _line_in(path: Path, error: Exception) -> str:
    """Where in the job file an error passed through."""
    line, traceback = None, error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == str(path):
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return f", line {line}" if line else ""
