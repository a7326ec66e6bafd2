"""Ends a process although the job's code has left tasks or threads running."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

_TASKS = 5.0  # seconds that tasks have to end once they are cancelled
_THREADS = 60.0  # seconds that threads have to end; they may be finishing something
_logger = logging.getLogger(__name__)


async def leaving_tasks_behind(action: Callable[[], Awaitable[T]]) -> T:
    """Do this; then cancel all other tasks, and let the event loop end without those that go on, and without threads.

    The loop itself waits for all tasks, which may ignore that they are cancelled, and for the threads of its executor.
    """
    try:
        return await action()
    finally:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            for task in (await asyncio.wait(others, timeout=_TASKS))[1]:
                import ctypes

                # collected, even at exit, its code would run for ever
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(task))
                asyncio.tasks._unregister_task(task)  # noqa: SLF001 - documented for event loops of others
                _logger.warning("a task goes on although it was cancelled, so it was left behind: %s", _where(task))
        if "concurrent.futures.thread" in sys.modules:
            from concurrent.futures import ThreadPoolExecutor

            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))


def _where(task: asyncio.Task[object]) -> str:
    frames = task.get_stack(limit=1)
    return f"{frames[0].f_code.co_filename}, line {frames[0].f_lineno}" if frames else task.get_name()


def end_in_time(code: object) -> None:
    """End this process with the code of its exit, which has begun, if threads that the exit waits for do not end."""
    if _awaited():
        threading.Thread(target=_end, args=(code,), name="end", daemon=True).start()


def _awaited() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if not (one.daemon or one is threading.main_thread())]


def _end(code: object) -> None:
    time.sleep(_THREADS)
    names = ", ".join(one.name for one in _awaited())
    if not names:  # the last one has just ended
        return
    message = f"orchestrator: ended by force, since threads did not end within {_THREADS:g} s: {names}"
    with suppress(OSError, ValueError):  # their reader may have gone
        sys.stdout.flush()
        sys.stderr.write(f"{message}\n")
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)
