"""Stop: the one value that carries a request to stop, from a signal down to every session and fan-out."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakSet

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


class Stop:
    """Running until somebody asks to stop; then draining until the deadline; then aborting.

    While it drains nothing new is begun, and what is in flight may come in: it is paid for. There is no way back.
    A narrower scope (one shift, one endpoint, one run of a daemon) has a child, which can stop by itself and stops no
    later than its parent.
    """

    def __init__(self, parent: Stop | None = None) -> None:
        self._parent = parent  # kept, because it knows of its children only as long as it exists
        self.requested = False
        self.deadline = math.inf  # on the event loop's clock: when what is in flight is cut off
        self._children: WeakSet[Stop] = WeakSet()
        self._running: set[anyio.CancelScope] = set()
        self._unfinished: set[anyio.CancelScope] = set()

    @property
    def aborting(self) -> bool:
        """Whether what is in flight is being cut off."""
        return anyio.current_time() >= self.deadline

    def child(self) -> Stop:
        """A narrower scope: whatever is asked of this one is asked of it, too, but not the other way round."""
        child = Stop(self)
        if self.requested:
            child.drain_until(self.deadline)
        self._children.add(child)
        return child

    def drain(self, grace: float = math.inf) -> None:
        """Begin nothing new, and give what is in flight so many seconds. A later call can only shorten that."""
        self.drain_until(anyio.current_time() + grace)

    def abort(self) -> None:
        """Cut off what is in flight."""
        self.drain_until(-math.inf)

    def drain_until(self, deadline: float) -> None:
        """The same, with the moment on the event loop's clock."""
        self.requested, self.deadline = True, min(self.deadline, deadline)
        for scope in self._running:
            scope.cancel()
        for scope in self._unfinished:
            scope.deadline = self.deadline
        for child in self._children:
            child.drain_until(deadline)

    async def drain_after(self, happened: Callable[[], Awaitable[None]], grace: float = math.inf) -> None:
        """Drain once something has happened: a budget is spent, a window has closed, somebody holds the run."""
        await happened()
        self.drain(grace)

    @contextmanager
    def while_running(self) -> Iterator[None]:
        """End the block as soon as somebody asks to stop."""
        with anyio.CancelScope(deadline=-math.inf if self.requested else math.inf) as scope:
            self._running.add(scope)
            try:
                yield
            finally:
                self._running.discard(scope)

    @contextmanager
    def until_deadline(self) -> Iterator[None]:
        """End the block when what is in flight is cut off."""
        with anyio.CancelScope(deadline=self.deadline) as scope:
            self._unfinished.add(scope)
            try:
                yield
            finally:
                self._unfinished.discard(scope)

    async def sleep(self, seconds: float) -> None:
        """Wait so long, or until somebody asks to stop."""
        with self.while_running():
            await anyio.sleep(seconds)

    async def wait(self) -> None:
        """Return when somebody asks to stop."""
        with self.while_running():
            await anyio.sleep_forever()
