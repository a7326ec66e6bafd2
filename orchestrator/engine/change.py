"""Change: wakes everything that waits for something to be different."""

from __future__ import annotations

import anyio


class Change:
    """`await change.next()` returns at the next `notify()`. Notifying costs nothing if nothing waits."""

    def __init__(self) -> None:
        self._awaited: anyio.Event | None = None

    async def next(self) -> None:
        """Return at the next change."""
        if self._awaited is None:
            self._awaited = anyio.Event()
        await self._awaited.wait()

    def notify(self) -> None:
        """Wake all that wait."""
        if self._awaited is not None:
            self._awaited.set()
            self._awaited = None
