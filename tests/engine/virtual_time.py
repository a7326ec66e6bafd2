"""Virtual time: while nothing can run, the clocks jump to the next timer, so waits end at once and exactly on time.

However busy the machine is, a wait of 0.02 s takes 0.02 s on these clocks, and work takes almost none. Worker threads
take none either: the clocks stand still until they have finished. While the loop watches sockets or pipes, it really
waits, because the other end may need that time.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import aiosqlite
import pytest
from anyio._backends._asyncio import AsyncIOBackend

from orchestrator.domain.budget import day_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Iterator
    from selectors import BaseSelector, SelectorKey

TICK = 0.000001  # seconds
OWN = 1  # descriptors that the loop itself watches; if there are more, others can wake it


class VirtualTime:
    """The clocks of this process, which only `select` advances. `threads`: how many are working for the event loop."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.threads = 0

    def clock(self, began: float) -> Callable[[], float]:
        def now() -> float:
            self.passed += TICK  # no two times are equal
            return began + self.passed

        return now

    def counting(self, work: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """Return the same function; while it runs, a thread is working."""

        async def counted(*args: Any, **kwargs: Any) -> Any:
            self.threads += 1
            try:
                return await work(*args, **kwargs)
            finally:
                self.threads -= 1

        return counted

    def selecting(self, selector: BaseSelector) -> Callable[[float | None], list[tuple[SelectorKey, int]]]:
        """Return the selector's `select`, except that it jumps instead of waiting for a timer."""
        select = selector.select

        def selected(timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
            if timeout is None or timeout <= 0:
                return select(timeout)
            if self.threads:
                return select(None)  # a thread that has finished wakes the loop
            ready = select(timeout if len(selector.get_map()) > OWN else 0)
            if not ready:
                self.passed += timeout + TICK
            return ready

        return selected


@contextmanager
def virtual_time(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """For the block, make this whole process use virtual time. It starts at noon today."""
    virtual = VirtualTime()
    selector: BaseSelector = loop._selector  # type: ignore[attr-defined]  # that of every loop of the standard library
    with pytest.MonkeyPatch.context() as patch:
        for library, starts_work in (
            (AsyncIOBackend, "run_sync_in_worker_thread"),
            (aiosqlite.Connection, "_connect"),
            (aiosqlite.Connection, "_execute"),
        ):
            patch.setattr(library, starts_work, virtual.counting(getattr(library, starts_work)))
        patch.setattr(time, "time", virtual.clock(day_of(time.time())[0] + 12 * 3600))
        patch.setattr(time, "monotonic", virtual.clock(time.monotonic()))
        patch.setattr(selector, "select", virtual.selecting(selector))
        yield
