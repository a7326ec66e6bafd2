"""Deadlines: one time limit for every request of an endpoint, with a single timer.

aiohttp creates and cancels a timer for every request, which is a tenth of the cost of a request here. All requests of
an endpoint have the same time limit, so the one that began first is due first.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


class Deadlines:
    """`with deadlines:` around a request raises `TimeoutError` in it once its time is up. Blocks cannot be nested.

    As with `asyncio.timeout`, the task is cancelled, and the cancellation becomes a `TimeoutError` unless the task was
    also cancelled for another reason.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._begun: dict[
            asyncio.Task[object], tuple[float, int]
        ] = {}  # start time and number of cancellations, oldest first
        self._overdue: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("a deadline needs a task")
        self._begun[task] = self._loop.time(), task.cancelling()
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._look)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        task = asyncio.current_task(self._loop)
        if task is None:
            return
        _, cancelled = self._begun.pop(task)
        if task in self._overdue:
            self._overdue.discard(task)
            if task.uncancel() <= cancelled and kind is not None and issubclass(kind, asyncio.CancelledError):
                raise TimeoutError from error

    def _look(self) -> None:
        now = self._loop.time()
        for task, (begun, _) in self._begun.items():
            if begun + self._seconds > now:
                self._timer = self._loop.call_at(begun + self._seconds, self._look)
                return
            if task not in self._overdue:
                self._overdue.add(task)
                task.cancel()
        self._timer = None
