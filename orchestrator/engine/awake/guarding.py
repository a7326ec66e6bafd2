"""guarding: the process that pauses an endpoint if we die is told what is owed, and replaced when it dies itself."""

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

LOOK = 1.0  # seconds between two looks at whether the guard still lives, and knows what is owed


class Watching(Protocol):
    """A guard that watches."""

    async def owe(self, debt: Mapping[str, object]) -> None:
        """Tell it how to pause what is owed: the ledger may be gone when that is needed."""
        ...

    async def renew(self) -> bool:
        """Where it has died, start another one; whether that was so."""
        ...


Guard = Callable[[], AbstractAsyncContextManager[Watching | None]]


class Guarding:
    """The guard of one endpoint, from when its window is held until it has been left."""

    def __init__(self, windows: Windows, endpoint: str, events: EventListener) -> None:
        self._windows = windows
        self._endpoint = endpoint
        self._events = events
        self._window = 0
        self._guard: Watching | None = None

    async def begin(self, window: int, guard: Guard, stack: AsyncExitStack) -> None:
        """Have a guard that watches, until the stack is left."""
        self._window = window
        self._guard = await stack.enter_async_context(guard())

    async def tell(self) -> None:
        """Tell the guard what the ledger owes for this endpoint, whichever of its users has incurred it."""
        if self._guard is not None and (debt := await self._windows.owed(self._window)) is not None:
            pause = {"pause_with": dict(debt.pause_with), "to_zero": debt.to_zero}
            await self._guard.owe({"endpoint": debt.endpoint, **pause, "opened_at": debt.opened_at})

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """While the block lasts, a guard that dies is replaced: the kernel may end it when memory is short."""
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
            except (OSError, RunFailed) as trouble:  # we are alive, and pause by ourselves: no reason to end the run
                self._events.emit(GuardReplaced(self._endpoint, str(trouble)))
            with suppress(Exception):  # whatever is wrong with the ledger, others will say
                await self.tell()
