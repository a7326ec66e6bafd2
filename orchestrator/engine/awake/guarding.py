"""Guarding: tell the guard process, which pauses an endpoint if we die, what is owed, and replace it if it dies.

A `Guarding` watches the guard inside `awake`, also during the final pause: once a second it replaces a guard that
died, and tells it what the ledger says is owed for the endpoint, whichever run incurred it. If a new guard cannot be
started at once, the run continues; it is alive and pauses by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Protocol

import anyio

from orchestrator.domain.errors import RunFailed
from orchestrator.domain.events import GuardReplaced
from orchestrator.engine.tasks import task_group

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.ports import EventListener
    from orchestrator.store.windows import Windows

LOOK = 1.0  # seconds between two checks that the guard is alive and knows what is owed


class Watching(Protocol):
    """A running guard."""

    async def owe(self, debt: Mapping[str, object]) -> None:
        """Send the guard everything that a pause needs, since the ledger may be gone by then."""
        ...

    async def renew(self) -> bool:
        """Start another guard if this one has died; return whether it had."""
        ...


Guard = Callable[[], AbstractAsyncContextManager[Watching | None]]


class Guarding:
    """The guard of one endpoint, from the moment its window is held until it has been left."""

    def __init__(self, windows: Windows, endpoint: str, events: EventListener) -> None:
        self._windows = windows
        self._endpoint = endpoint
        self._events = events
        self._window = 0
        self._guard: Watching | None = None

    async def begin(self, window: int, guard: Guard, stack: AsyncExitStack) -> None:
        """Start a guard that runs until the stack is closed."""
        self._window = window
        self._guard = await stack.enter_async_context(guard())

    async def tell(self) -> None:
        """Send the guard what the ledger owes for this endpoint, whichever of its users incurred the debt."""
        if self._guard is not None and (debt := await self._windows.owed(self._window)) is not None:
            pause = {"pause_with": dict(debt.pause_with), "to_zero": debt.to_zero}
            await self._guard.owe({"endpoint": debt.endpoint, **pause, "opened_at": debt.opened_at})

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Replace a guard that dies while the block lasts: the kernel may kill it when memory is short."""
        async with task_group() as group:
            group.start_soon(self._keep)
            yield
            group.cancel_scope.cancel()

    async def _keep(self) -> None:
        while True:
            await anyio.sleep(LOOK)
            try:
                if self._guard is not None and await self._guard.renew():
                    self._events.emit(GuardReplaced(self._endpoint))
            except (OSError, RunFailed) as trouble:  # we are alive and pause the endpoint ourselves, so the run goes on
                self._events.emit(GuardReplaced(self._endpoint, str(trouble)))
            with suppress(Exception):  # others report what is wrong with the ledger
                await self.tell()
