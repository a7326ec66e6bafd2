"""Commits: whatever arrives while one group of outcomes is committed is committed together, as the next group."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.group_commit import COMMIT_WAIT, is_worth_a_commit

if TYPE_CHECKING:
    from orchestrator.engine.progress import Progress
    from orchestrator.store.items import Settlement

OnSettled = Callable[[list["Settlement"]], None]
Write = Callable[[list["Settlement"]], Awaitable[None]]


def nothing(_: list[Settlement]) -> None:
    """Ignore the settlements."""


@dataclass(slots=True)
class _Group:
    """Settlements that are committed together, by request, each with the callback to run after the commit.

    `unawaited`: those that nobody waits for.
    """

    requests: list[tuple[list[Settlement], OnSettled]] = field(default_factory=list)
    unawaited: list[Settlement] = field(default_factory=list)
    committed: anyio.Event = field(default_factory=anyio.Event)
    enough: anyio.Event | None = None  # set once the group is worth a commit; None if nobody waits for that


class Commits:
    """The single writer of a run's outcomes in this process.

    `write` writes them in one transaction and updates what depends on them. `judge` raises if the run must stop. A
    group waits for more as long as fewer than `most`, the requests that may be in flight, are in it.
    """

    def __init__(self, write: Write, judge: Callable[[], None], progress: Progress) -> None:
        self.most = 0
        self._write = write
        self._judge = judge
        self._progress = progress
        self._group = _Group()
        self._something_to_settle = anyio.Event()
        self.closed = anyio.Event()  # set when nobody hands in anything more

    async def add(self, settlements: list[Settlement], on_settled: OnSettled = nothing) -> None:
        """Return when these settlements are on disk. `on_settled` is called with them."""
        group = self._group
        group.requests.append((settlements, on_settled))
        self._something_to_settle.set()
        if group.enough is not None and self._enough:
            group.enough.set()
        await group.committed.wait()

    def hand_in(self, settlement: Settlement) -> None:
        """Have a settlement committed soon, which nobody waits for. No commit is made earlier because of it."""
        self._group.unawaited.append(settlement)
        self._something_to_settle.set()

    async def keep_committing(self) -> None:
        """Commit settlements, group by group."""
        while True:
            if not self._has_something:  # otherwise at once: even a finished wait lets the whole loop run first
                await self._something_to_settle.wait()
            await self._gather()
            committed = await self._commit()
            self._judge()
            committed.set()

    async def commit_the_rest(self) -> None:
        """Commit what was handed in when a run is cut short, since it is paid for.

        Consumers hand in what they hold back when they end, so this waits until all of them have ended.
        """
        with anyio.CancelScope(shield=True):
            await self.closed.wait()
            if self._has_something:
                await self._commit()

    async def _commit(self) -> anyio.Event:
        """Commit the current group; return the event that lets its workers continue once it is set."""
        self._something_to_settle = anyio.Event()
        group, self._group = self._group, _Group()
        begun = time.monotonic()
        answered = [settlement for request, _ in group.requests for settlement in request]
        await self._write(answered + group.unawaited)
        self._progress.commits += 1
        self._progress.commit_seconds += time.monotonic() - begun
        for request, on_settled in group.requests:
            on_settled(request)
        return group.committed

    async def _gather(self) -> None:
        """Let a group grow while answers arrive quickly: a commit costs nearly the same for one as for fifty."""
        if not self._enough:
            self._group.enough = anyio.Event()
            with anyio.move_on_after(COMMIT_WAIT):
                await self._group.enough.wait()

    @property
    def _has_something(self) -> bool:
        return bool(self._group.requests or self._group.unawaited)

    @property
    def _enough(self) -> bool:
        return is_worth_a_commit(len(self._group.requests), self.most)
