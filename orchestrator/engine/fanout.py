"""fan_out: lease -> attempt -> settle, many at once.

A request holds its place in flight until its answer is committed, so that after `kill -9` no more than
`concurrency` requests are asked twice.
"""

from __future__ import annotations

import heapq
import random
import time
from collections import deque
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.attempt import Completed, Discarded, Outcome, RetryLater
from orchestrator.domain.batching import batches
from orchestrator.domain.errors import EndpointLost, FailureKind, RequestFailed, RunFailed
from orchestrator.domain.verdict import judge
from orchestrator.engine.parse import parsed
from orchestrator.engine.tasks import task_group
from orchestrator.store.items import Leased, Settlement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.domain.item import Item, Lease
    from orchestrator.domain.policy import Policy
    from orchestrator.engine.parse import Parse
    from orchestrator.engine.progress import Progress
    from orchestrator.ports import DataPlane
    from orchestrator.store import Store

LEASE_CHUNKS = 2  # chunks claimed at a time: the window within which batches are sorted by length
CANARY = 4  # requests in flight until the first success: a wrong wire or a wrong `parse` is to cost seconds
_BLAMES_CONTENT = frozenset({FailureKind.REJECTED, FailureKind.BAD_ANSWER})
_BATCHED_TRIES = 1  # later attempts of an item are made alone, so that it cannot spoil its neighbours' again


@dataclass(frozen=True, slots=True)
class Work:
    """What one fan-out is about."""

    store: Store
    run_id: int
    process_id: int
    parse: Parse
    policy: Policy
    progress: Progress
    stop: anyio.Event  # once set, nothing new is asked


@dataclass(slots=True)
class _Group:
    """Settlements, request by request, that will be committed together."""

    requests: list[list[Settlement]] = field(default_factory=list)
    committed: anyio.Event = field(default_factory=anyio.Event)


async def fan_out(work: Work, model: DataPlane, suspects: set[int]) -> None:
    """Settle every item of the run that is to be had. Safe to call again after any failure.

    Raises `EndpointLost` when the endpoint is gone; the items that a crash may be blamed on are then in `suspects`,
    and are asked alone, before all others, by the next call.
    """
    await _FanOut(work, model, suspects).run()


class _FanOut:
    def __init__(self, work: Work, model: DataPlane, suspects: set[int]) -> None:
        self._work = work
        self._model = model
        self._suspects = suspects
        self._lanes = min(work.policy.concurrency, model.lanes or work.policy.concurrency)
        self._ready: deque[list[Item]] = deque()
        self._ready_items = 0
        self._alone: deque[Item] = deque()
        self._later: list[tuple[float, int, Item]] = []
        self._open: dict[Lease, int] = {}  # unsettled items of the leases that we hold
        self._in_flight: set[int] = set()
        self._requests = 0  # in flight
        self._proven = False  # whether an item has gone all the way
        self._exhausted = False
        self._news = anyio.Event()
        self._hungry = anyio.Event()
        self._group = _Group()
        self._something_to_settle = anyio.Event()
        self._streak = _Streak(work.policy.breaker)

    async def run(self) -> None:
        async with task_group() as helpers:
            helpers.start_soon(self._feed)
            helpers.start_soon(self._settle)
            helpers.start_soon(self._heed_stop)
            async with task_group() as workers:
                for _ in range(self._lanes):
                    workers.start_soon(self._serve)
            helpers.cancel_scope.cancel()

    # -- workers ------------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        while (batch := await self._next()) is not None:
            keys = {item.key for item in batch}
            self._in_flight |= keys
            self._requests += 1
            alone = len(self._in_flight) == 1
            try:
                settlements = await self._attempt(batch, alone=alone)
            except EndpointLost as loss:
                if loss.blames_items:
                    self._suspects |= self._in_flight
                raise
            if len(batch) == 1:
                self._suspects -= keys
            await self._commit(settlements)
            self._in_flight -= keys
            self._requests -= 1
            if self._alone or not self._proven:
                self._tell()

    async def _next(self) -> list[Item] | None:
        while not self._work.stop.is_set():
            if not self._proven and self._requests >= CANARY:
                pass
            elif self._alone:
                if not self._in_flight:
                    return [self._alone.popleft()]
            elif self._ready:
                batch = self._ready.popleft()
                self._ready_items -= len(batch)
                if self._ready_items <= self._low_water:
                    self._hungry.set()
                return batch
            elif self._exhausted and not self._open:
                return None
            await self._news.wait()
        return None

    async def _attempt(self, batch: list[Item], *, alone: bool) -> list[Settlement]:
        """Ask once; a batch that is refused as a whole is halved until the items to blame stand alone."""
        started = time.monotonic()
        self._work.progress.asked += 1
        answers: Sequence[object]
        try:
            answers = await self._model.ask([item.request for item in batch])
        except RequestFailed as failure:
            if len(batch) > 1 and failure.kind in _BLAMES_CONTENT:
                middle = len(batch) // 2
                first = await self._attempt(batch[:middle], alone=False)
                return first + await self._attempt(batch[middle:], alone=False)
            answers = [failure] * len(batch)
        except EndpointLost as loss:
            if not (alone and loss.blames_items):
                raise
            crash = RequestFailed(FailureKind.CRASHED, f"the endpoint died of this item: {loss}")
            settlements = [Settlement(batch[0], self._judge(batch[0], crash), time.monotonic() - started)]
            await self._commit(settlements)
            raise
        seconds = time.monotonic() - started
        return [
            Settlement(item, self._outcome(item, answer), seconds) for item, answer in zip(batch, answers, strict=True)
        ]

    def _outcome(self, item: Item, answer: object) -> Outcome:
        if isinstance(answer, RequestFailed):
            return self._judge(item, answer)
        said = parsed(None, answer)
        if self._work.parse is None:
            return Completed(said)
        try:
            return Completed(parsed(self._work.parse, answer), said)
        except RequestFailed as refusal:
            verdict = self._judge(item, refusal)
            return Discarded(verdict.failure, said) if isinstance(verdict, Discarded) else verdict

    def _judge(self, item: Item, failure: RequestFailed) -> RetryLater | Discarded:
        attempt = item.attempt - item.forgiven
        return judge(failure, attempt=attempt, policy=self._work.policy, jitter=random.random())  # noqa: S311 - jitter

    # -- settling -----------------------------------------------------------------------------------------------------

    async def _commit(self, settlements: list[Settlement]) -> None:
        """Return when these are on disk. Whatever queued while the last group was being committed goes together."""
        group = self._group
        group.requests.append(settlements)
        self._something_to_settle.set()
        await group.committed.wait()

    async def _settle(self) -> None:
        while True:
            if not self._group.requests:  # else at once: even a wait that is over lets the whole loop go first
                await self._something_to_settle.wait()
            self._something_to_settle = anyio.Event()
            group, self._group = self._group, _Group()
            settlements = list(chain.from_iterable(group.requests))
            close = self._count_down(settlements)
            await self._work.store.items.settle(settlements, close)
            for request in group.requests:
                self._after(request)
            self._streak.trip()
            group.committed.set()

    def _count_down(self, settlements: list[Settlement]) -> list[tuple[Lease, int]]:
        """Take what is settled off our leases; those with nothing left are closed in the same transaction."""
        close = []
        for settlement in settlements:
            if isinstance(settlement.outcome, RetryLater):
                continue
            lease = settlement.item.lease
            self._open[lease] -= 1
            if not self._open[lease]:
                del self._open[lease]
                close.append((lease, self._work.run_id))
        return close

    def _after(self, settlements: list[Settlement]) -> None:
        """What follows from the committed settlements of one request: numbers, later attempts, the breaker."""
        progress = self._work.progress
        for settlement in settlements:
            item, outcome = settlement.item, settlement.outcome
            if isinstance(outcome, Completed):
                progress.completed += 1
                if not self._proven:
                    self._proven = True
                    self._tell()
            elif isinstance(outcome, Discarded):
                progress.discarded += 1
            else:
                progress.retried += 1
                item.attempt += 1
                item.available_at = time.time() + outcome.delay
                heapq.heappush(self._later, (item.available_at, item.key, item))
                self._hungry.set()
        self._streak.note(settlements)
        if not self._open:
            self._tell()

    # -- feeding ------------------------------------------------------------------------------------------------------

    @property
    def _low_water(self) -> int:
        return self._lanes * self._model.batch_size

    async def _feed(self) -> None:
        """Keep something ready for the workers: items whose time has come, and newly leased ones."""
        while not self._work.stop.is_set():
            self._hungry = anyio.Event()
            now = time.time()
            due = []
            while self._later and self._later[0][0] <= now:
                due.append(heapq.heappop(self._later)[2])
            self._offer(due)
            if not self._exhausted and self._ready_items <= self._low_water:
                leased = await self._work.store.items.lease(self._work.run_id, self._work.process_id, LEASE_CHUNKS)
                self._exhausted = not leased
                self._take(leased)
                continue
            wait = self._later[0][0] - now if self._later else None
            with anyio.move_on_after(wait):
                await self._hungry.wait()

    def _take(self, leased: list[Leased]) -> None:
        now = time.time()
        fresh = []
        for part in leased:
            self._open[part.lease] = len(part.items)
            for item in part.items:
                if item.available_at > now:
                    heapq.heappush(self._later, (item.available_at, item.key, item))
                else:
                    fresh.append(item)
        self._offer(fresh)

    def _offer(self, items: list[Item]) -> None:
        """Make batches of items and tell the workers."""
        together = []
        for item in items:
            if item.key in self._suspects:
                self._alone.append(item)
            elif item.attempt - item.forgiven > _BATCHED_TRIES:
                self._ready.append([item])
                self._ready_items += 1
            else:
                together.append(item)
        for batch in batches(together, self._model.batch_size):
            self._ready.append(batch)
            self._ready_items += len(batch)
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    async def _heed_stop(self) -> None:
        await self._work.stop.wait()
        self._hungry.set()
        self._tell()


class _Streak:
    """The breaker: so many requests in a row that failed for one cause, with no success between."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._cause: tuple[FailureKind, int | None] | None = None
        self._requests = 0
        self._failure: RequestFailed | None = None
        self.keys: list[int] = []

    def note(self, settlements: list[Settlement]) -> None:
        """Count the settlements of one request."""
        failures = [s.outcome.failure for s in settlements if isinstance(s.outcome, Discarded)]
        if len(failures) < len(settlements):
            if any(isinstance(settlement.outcome, Completed) for settlement in settlements):
                self._cause, self._requests, self.keys = None, 0, []
            return
        causes = {(failure.kind, failure.status) for failure in failures}
        if len(causes) > 1:
            self._cause, self._requests, self.keys = None, 0, []
            return
        cause = causes.pop()
        if cause != self._cause:
            self._cause, self._requests, self.keys = cause, 0, []
        self._requests += 1
        self._failure = failures[0]
        self.keys += [settlement.item.key for settlement in settlements]

    def trip(self) -> None:
        """Raise `BreakerTripped` once the limit is reached."""
        if self._requests >= self._limit and self._failure is not None:
            raise BreakerTripped(self._failure, self.keys, self._requests)


class BreakerTripped(RunFailed):
    """Everything fails alike. `keys` are the items that were discarded for it and deserve to be given back."""

    def __init__(self, failure: RequestFailed, keys: list[int], requests: int) -> None:
        status = f" {failure.status}" if failure.status else ""
        super().__init__(
            f"{requests} requests in a row failed for the same cause ({failure.kind}{status}: {failure.message}); "
            "nothing of it was discarded: put it right and run again, or raise policy.breaker"
        )
        self.keys = keys
