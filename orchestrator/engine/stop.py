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
    """Running until a stop is requested; then draining until the deadline; then aborting. There is no way back.

    While draining, nothing new is begun, and answers in flight may still arrive, since they are paid for. A narrower
    scope (one shift, one endpoint, one run of a daemon) has a child, which can stop by itself and stops no later than
    its parent.
    """

    def __init__(self, parent: Stop | None = None) -> None:
        self._parent = parent  # keeps the parent alive, which holds only weak references to its children
        self.requested = False
        self.deadline = math.inf  # on the event loop's clock: when requests in flight are cut off
        self._children: WeakSet[Stop] = WeakSet()
        self._running: set[anyio.CancelScope] = set()
        self._unfinished: set[anyio.CancelScope] = set()

    @property
    def aborting(self) -> bool:
        """Whether requests in flight are being cut off."""
        return anyio.current_time() >= self.deadline

    def child(self) -> Stop:
        """Return a narrower scope, which stops with this one; this one does not stop with its child."""
        child = Stop(self)
        if self.requested:
            child.drain_until(self.deadline)
        self._children.add(child)
        return child

    def drain(self, grace: float = math.inf) -> None:
        """Begin nothing new, and give requests in flight `grace` seconds. A later call can only shorten that."""
        self.drain_until(anyio.current_time() + grace)

    def abort(self) -> None:
        """Cut off requests in flight."""
        self.drain_until(-math.inf)

    def drain_until(self, deadline: float) -> None:
        """Drain until a moment on the event loop's clock."""
        self.requested, self.deadline = True, min(self.deadline, deadline)
        for scope in self._running:
            scope.cancel()
        for scope in self._unfinished:
            scope.deadline = self.deadline
        for child in self._children:
            child.drain_until(deadline)

    async def drain_after(self, happened: Callable[[], Awaitable[None]], grace: float = math.inf) -> None:
        """Drain once `happened` returns: a budget is spent, a window has closed, the user holds the run."""
        await happened()
        self.drain(grace)

    @contextmanager
    def while_running(self) -> Iterator[None]:
        """End the block as soon as a stop is requested."""
        with anyio.CancelScope(deadline=-math.inf if self.requested else math.inf) as scope:
            self._running.add(scope)
            try:
                yield
            finally:
                self._running.discard(scope)

    @contextmanager
    def until_deadline(self) -> Iterator[None]:
        """End the block when requests in flight are cut off."""
        with anyio.CancelScope(deadline=self.deadline) as scope:
            self._unfinished.add(scope)
            try:
                yield
            finally:
                self._unfinished.discard(scope)

    async def sleep(self, seconds: float) -> None:
        """Wait for some seconds, or until a stop is requested."""
        with self.while_running():
            await anyio.sleep(seconds)

    async def wait(self) -> None:
        """Return when a stop is requested."""
        with self.while_running():
            await anyio.sleep_forever()
