"""Names a rollout that blocks the event loop, since everything else then waits, even the leases."""

from __future__ import annotations

import logging
import sys
import threading
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio

from orchestrator.engine.rollouts.where import is_the_users
from orchestrator.engine.tasks import task_group

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import FrameType

_BEAT = 0.25  # seconds between two signs of life of the event loop
_LIMIT = 2.0  # seconds without one
_logger = logging.getLogger(__name__)


@asynccontextmanager
async def named_if_blocking(function: Callable[..., object]) -> AsyncIterator[None]:
    """While the block lasts, log each time where the function holds the event loop for too long."""
    watch = _Watch(function)
    thread = threading.Thread(target=watch.look, name="rollout watch", daemon=True)
    thread.start()
    try:
        async with task_group() as beating:
            beating.start_soon(watch.keep_beating)
            yield
            beating.cancel_scope.cancel()
    finally:
        watch.ended.set()


class _Watch:
    def __init__(self, function: Callable[..., object]) -> None:
        self.ended = threading.Event()
        self._file = getattr(getattr(function, "__code__", None), "co_filename", None)
        self._thread = threading.get_ident()
        self._beat = time.monotonic()

    async def keep_beating(self) -> None:
        while True:
            self._beat = time.monotonic()
            await anyio.sleep(_BEAT)

    def look(self) -> None:
        named: float | None = None  # the last sign of life before the block that was named
        while not self.ended.wait(_BEAT):
            beat = self._beat
            if beat != named and time.monotonic() - beat > _LIMIT and (where := self._where()) is not None:
                named = beat
                _logger.warning(
                    "a rollout holds the event loop at %s: everything waits for it, so let it await what takes "
                    "long, as in `await asyncio.to_thread(function)`",
                    where,
                )

    def _where(self) -> str | None:
        """Return the innermost place in the user's code that the event loop is executing; None if it is elsewhere."""
        frame: FrameType | Any = sys._current_frames().get(self._thread)  # noqa: SLF001 - documented, for debuggers
        while frame is not None:
            file = frame.f_code.co_filename
            if file == self._file or is_the_users(file):
                return f"{file}:{frame.f_lineno} in {frame.f_code.co_name}"
            frame = frame.f_back
        return None
