"""Executing Python files of the user in their current state."""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from typing import TYPE_CHECKING

from orchestrator.domain.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path
    from types import CodeType, ModuleType

_PREFIX = "jobfile_"  # prefix of the module names under which job files are imported


class _Loader(SourceFileLoader):
    """A loader without Python's cache, which misses a change within a second that keeps the file's size."""

    def get_code(self, fullname: str) -> CodeType:
        """Compile the file as it is now."""
        return self.source_to_code(self.get_data(self.get_filename(fullname)), self.path)


def execute(path: Path, name: str) -> ModuleType:
    """Execute a file and return its module, which is registered under `name`. Raises what the file raises."""
    spec = spec_from_loader(name, _Loader(name, str(path)))
    assert spec is not None and spec.loader is not None  # noqa: PT018 - ours
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def execute_job_file(path: Path) -> ModuleType:
    """Execute a job file, or a file that one refers to, and return its module. Makes its folder importable.

    Raises `UsageError`, in one line, for everything that can be wrong with it.
    """
    if not path.is_file():
        raise UsageError(f"there is no job file {path}")
    make_importable(path.parent)
    try:
        return execute(path, f"{_PREFIX}{path.stem}")
    except UsageError:
        raise
    except SystemExit as error:
        raise UsageError(f"{path} called exit({error.code!r}); a job file must only declare a job") from error
    except SyntaxError as error:
        raise UsageError(f"{error.filename or path}, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        raise UsageError(f"{path}{_line_in(path, error)}: {type(error).__name__}: {error}") from error


def make_importable(folder: Path) -> None:
    """Make modules in this folder importable."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def executed_job_files() -> list[ModuleType]:
    """Return the job files that this process has executed; of several with the same name, the last."""
    return [module for name, module in list(sys.modules.items()) if name.startswith(_PREFIX)]


def _line_in(path: Path, error: Exception) -> str:
    """Return the last line of the job file in an error's traceback, in words."""
    line, traceback = None, error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == str(path):
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return f", line {line}" if line else ""
