"""Run controls: commands for a live run, followed within a second; and how members share the concurrency."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from orchestrator.engine.change import Change

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOK = 0.5  # seconds between two checks of the ledger


class RunControls:
    """The latest commands for one run. `concurrency` overrides the policy's."""

    def __init__(self) -> None:
        self.held = False
        self.concurrency: int | None = None
        self._changed = Change()

    def apply(self, *, held: bool, concurrency: int | None) -> None:
        """Apply what the ledger says."""
        if (held, concurrency) != (self.held, self.concurrency):
            self.held, self.concurrency = held, concurrency
            self._changed.notify()

    async def changed(self) -> None:
        """Return when there are new commands."""
        await self._changed.next()

    async def until(self, *, held: bool) -> None:
        """Return once the run is held, or no longer held."""
        while self.held is not held:
            await self._changed.next()


class ConcurrencyShare:
    """Divides the concurrency of an endpoint among those of its members that are being asked."""

    def __init__(self) -> None:
        self._members = list[object]()
        self._changed = Change()

    @contextmanager
    def held(self, member: object) -> Iterator[None]:
        """Count this member while the block lasts."""
        self._members.append(member)
        self._changed.notify()
        try:
            yield
        finally:
            self._members.remove(member)
            self._changed.notify()

    def of(self, member: object, whole: int) -> int:
        """Return this member's part of `whole` requests in flight; at least one."""
        count = len(self._members)
        return max(1, whole // count + (self._members.index(member) < whole % count))

    async def changed(self) -> None:
        """Return when a member has joined or left."""
        await self._changed.next()
