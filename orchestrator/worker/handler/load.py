"""Loads the `EndpointHandler` of a handler.py, as the toolkit does."""

from __future__ import annotations

import inspect
import sys
from asyncio import Runner
from typing import TYPE_CHECKING, Any

from orchestrator.user_file import execute
from orchestrator.worker.handler.failures import where
from orchestrator.worker.handler.packages import missing_package
from orchestrator.worker.model import TOO_LITTLE_MEMORY, LoadFailed, is_out_of_memory, one_line
from orchestrator.worker.needed_packages import check_companions

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.worker.handler.data import Data

FILE = "handler.py"
CLASS = "EndpointHandler"
_MODULE = f"handler.{CLASS}"  # the toolkit's name for it


def import_handler(folder: Path) -> type[Any]:
    """Import handler.py with its folder first on the path, and return its class. Raises `LoadFailed`."""
    sys.path.insert(0, str(folder))
    try:
        module = execute(folder / FILE, _MODULE)
    except BaseException as error:
        raise _failed("cannot be imported", error, folder) from error
    made = getattr(module, CLASS, None)
    if not isinstance(made, type):
        classes = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == _MODULE]
        raise LoadFailed(
            f"{FILE} has no class {CLASS}{f' (it has {chr(44).join(classes)})' if classes else ''}: "
            "the class must have this name"
        )
    return made


class Handler:
    """An `EndpointHandler`. Called by one thread, always the same."""

    def __init__(self, kind: type[Any], folder: Path) -> None:
        """Make the handler. Raises `LoadFailed` if it cannot be made."""
        try:
            self._call = kind(str(folder))
        except BaseException as error:
            signature = _signature(kind) if isinstance(error, TypeError) and where(error, folder) is None else ""
            raise _failed(f"cannot be made{signature}", error, folder) from error
        if not callable(self._call):
            raise LoadFailed(f"{FILE}: {CLASS} has no __call__(self, data)")
        self.folder = folder
        self.most = _most(kind)
        self._runner: Runner | None = None

    def __call__(self, data: Data) -> object:
        """Return its answer, awaited if necessary. May raise anything."""
        answer = self._call(data)
        if inspect.isawaitable(answer):
            if self._runner is None:
                self._runner = Runner()
            return self._runner.run(_awaited(answer))
        return answer


async def _awaited(answer: Any) -> object:
    return await answer


def _most(kind: type[Any]) -> int | None:
    """Return how many inputs the handler takes in one call, or None if it does not say and gets them one by one."""
    most = getattr(kind, "max_batch_size", None)
    if most is None or (isinstance(most, int) and not isinstance(most, bool) and most >= 1):
        return most
    raise LoadFailed(f"{FILE}: {CLASS}.max_batch_size must be a whole number of at least 1, not {most!r}")


def _signature(kind: type[Any]) -> str:
    return f", as {CLASS}(path), with a signature of {inspect.signature(kind)}"


def _failed(what: str, error: BaseException, folder: Path) -> LoadFailed:
    if "transformers" in sys.modules:
        check_companions()
    if isinstance(error, LoadFailed):
        return error
    if isinstance(error, ImportError) and (remedy := missing_package(error, folder)):
        return LoadFailed(remedy)
    place = where(error, folder)
    remedy = f"; {TOO_LITTLE_MEMORY}" if is_out_of_memory(error) else ""
    return LoadFailed(f"{FILE} {what}: {one_line(error)}{f' ({place})' if place else ''}{remedy}")
