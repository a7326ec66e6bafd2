"""orders: what somebody wants of a live run, from this process or another, within a second."""

from __future__ import annotations

import anyio

LOOK = 0.5  # seconds between two looks at the ledger


class RunControls:
    """The latest orders for one run. `concurrency` wins over the policy's."""

    def __init__(self) -> None:
        self.held = False
        self.concurrency: int | None = None
        self._changed = anyio.Event()

    def apply(self, *, held: bool, concurrency: int | None) -> None:
        """Take over what the ledger says."""
        if (held, concurrency) != (self.held, self.concurrency):
            self.held, self.concurrency = held, concurrency
            self._changed.set()
            self._changed = anyio.Event()

    async def changed(self) -> None:
        """Return when there are new orders."""
        await self._changed.wait()

    async def until(self, *, held: bool) -> None:
        """Return when the run is held, or is not."""
        while self.held is not held:
            await self._changed.wait()
