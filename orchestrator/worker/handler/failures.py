"""Failures of a handler: their cause and their message."""

from __future__ import annotations

import sys
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING

from orchestrator.worker.handler.answer import Unwritable
from orchestrator.worker.handler.packages import missing_package
from orchestrator.worker.lifeline import leave
from orchestrator.worker.model import Rejected, is_out_of_memory, one_line

if TYPE_CHECKING:
    from pathlib import Path


def judged(error: BaseException, folder: Path) -> tuple[str, str]:
    """Return the `FailureKind` and the message of an exception that a call raised.

    Rejected: the input was wrong, according to the worker or to a ValueError of the handler. Unavailable: a service
    that the handler uses did not answer. Dubious: anything else, most likely a bug; its traceback is logged.
    """
    if isinstance(error, Rejected):
        return "rejected", str(error)
    if isinstance(error, Unwritable):
        return "bad_answer", str(error)
    words = f"{one_line(error)}{_place(error, folder)}"
    if isinstance(error, ValueError):
        return "rejected", words
    with suppress(OSError):  # the log's disk may be full
        traceback.print_exception(error)
        sys.stderr.flush()
    if _is_of_the_accelerator(error):
        leave(f"the accelerator failed: {words}")
    if isinstance(error, ImportError):
        return "dubious", missing_package(error, folder) or words
    return ("unavailable" if isinstance(error, TimeoutError | ConnectionError) else "dubious"), words


def where(error: BaseException, folder: Path) -> str | None:
    """Return the innermost line of the handler's own code in the traceback: "handler.py, line 12"."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename.rpartition('/')[2]}, line {error.lineno}"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(f"{folder}/")]
    return f"{own[-1].filename.removeprefix(f'{folder}/')}, line {own[-1].lineno}" if own else None


def _place(error: BaseException, folder: Path) -> str:
    place = where(error, folder)
    return f" ({place})" if place else ""


def _is_of_the_accelerator(error: BaseException) -> bool:
    """Whether every later call would fail too. Running out of memory does not count."""
    kind = getattr(sys.modules.get("torch"), "AcceleratorError", None)  # torch < 2.8 has no name for it
    return kind is not None and isinstance(error, kind) and not is_out_of_memory(error)
