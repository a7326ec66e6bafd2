"""Deadlines of asks and of rollouts. Time in which what they wait for is being woken does not count."""

from __future__ import annotations

import heapq
import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from orchestrator.domain.asks import OpenAsk
    from orchestrator.engine.rollouts.open_rollout import OpenRollout

_SPARE = 1000  # deadlines that no longer matter and are still kept


class RunningTime:
    """A clock that can be stopped."""

    def __init__(self) -> None:
        self._before = 0.0
        self._since: float | None = None

    @property
    def runs(self) -> bool:
        """Whether it runs now."""
        return self._since is not None

    @property
    def seconds(self) -> float:
        """For how many seconds it has run."""
        return self._before + (0.0 if self._since is None else time.monotonic() - self._since)

    def run(self, *, runs: bool) -> None:
        """Let it run, or stop it."""
        if runs is not self.runs:
            self._before, self._since = self.seconds, time.monotonic() if runs else None


@dataclass(slots=True, eq=False)
class Deadline:
    """`until`: the seconds that the clock then shows. `ask`: None if it is that of the whole rollout."""

    until: float
    clock: RunningTime
    rollout: OpenRollout
    ask: OpenAsk | None


class Deadlines:
    """Calls `is_over` with each deadline whose time has come, if it `matters` then."""

    def __init__(self, matters: Callable[[Deadline], bool], is_over: Callable[[Deadline], Awaitable[None]]) -> None:
        self._matters = matters
        self._is_over = is_over
        self._running: list[tuple[float, int, Deadline]] = []
        self._standing: list[Deadline] = []  # their clocks stand still
        self._numbers = itertools.count()
        self._sooner = anyio.Event()

    def __len__(self) -> int:
        return len(self._running) + len(self._standing)

    def add(self, seconds: float, clock: RunningTime, rollout: OpenRollout, ask: OpenAsk | None, most: int) -> None:
        """Add a deadline in so many seconds of a clock. `most`: how many can matter at once."""
        if len(self) > _SPARE + 2 * most:
            self._running = [one for one in self._running if self._matters(one[2])]
            heapq.heapify(self._running)
            self._standing = [one for one in self._standing if self._matters(one)]
        self._begin(Deadline(clock.seconds + seconds, clock, rollout, ask))

    def clocks_changed(self) -> None:
        """Go on with the deadlines whose clocks run again."""
        standing, self._standing = self._standing, []
        for one in standing:
            self._begin(one)

    def _begin(self, deadline: Deadline) -> None:
        if not deadline.clock.runs:
            self._standing.append(deadline)
            return
        left = deadline.until - deadline.clock.seconds
        heapq.heappush(self._running, (time.monotonic() + left, next(self._numbers), deadline))
        self._sooner.set()

    async def keep(self) -> None:
        """See to it that what is late ends."""
        while True:
            self._sooner = anyio.Event()
            now = time.monotonic()
            while self._running and self._running[0][0] <= now:
                deadline = heapq.heappop(self._running)[2]
                if not self._matters(deadline):
                    continue
                if deadline.clock.runs and deadline.clock.seconds >= deadline.until:
                    await self._is_over(deadline)
                else:  # the clock stood still meanwhile
                    self._begin(deadline)
            with anyio.move_on_after(self._running[0][0] - now if self._running else None):
                await self._sooner.wait()
