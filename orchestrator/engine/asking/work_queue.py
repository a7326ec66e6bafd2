"""Work queue: the items that this process holds, from the lease to the settlement; consumers take batches from it."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from orchestrator.domain.attempt import Completed, Discarded, RetryLater
from orchestrator.domain.batching import Limits, ReadyItems
from orchestrator.domain.errors import RunStopped
from orchestrator.domain.events import ItemsSettled
from orchestrator.domain.group_commit import COMMIT_WAIT, is_worth_a_commit
from orchestrator.domain.running_totals import Total
from orchestrator.domain.verdict import asked_alone
from orchestrator.domain.waiting import after_failure
from orchestrator.engine.change import Change
from orchestrator.engine.events import UNHEARD
from orchestrator.engine.tasks import task_group
from orchestrator.store.items import Leased, Settlement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from orchestrator.domain.item import Item, Lease
    from orchestrator.domain.policy import Policy
    from orchestrator.engine.asking.parse import Parse
    from orchestrator.engine.progress import Progress
    from orchestrator.engine.stop import Stop
    from orchestrator.ports import EventListener
    from orchestrator.store import Store

LEASE_CHUNKS = 2  # chunks whose items are claimed at a time; of chunks with few items left, more
WIDE = 8  # chunks if neighbours share requests: more items make better batches (padding is a ninth rather than a third)
ENOUGH_TO_JUDGE = 100  # settled items from which the error rate is meaningful


@dataclass(frozen=True, slots=True)
class RunContext:
    """What one run asks, and how."""

    store: Store
    run_id: int
    process_id: int
    parse: Parse
    policy: Policy
    progress: Progress
    stop: Stop
    events: EventListener = UNHEARD


OnSettled = Callable[[list[Settlement]], None]


def _nothing(_: list[Settlement]) -> None:
    """Ignore the settlements."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a consumer wants to find ready: a number of requests, each of a number of items."""

    requests: int
    items: int


@dataclass(slots=True)
class _Group:
    """Settlements that are committed together, by request, each with the callback to run after the commit."""

    requests: list[tuple[list[Settlement], OnSettled]] = field(default_factory=list)
    committed: anyio.Event = field(default_factory=anyio.Event)
    enough: anyio.Event | None = None  # set once the group is worth a commit; None if nobody waits for that


@asynccontextmanager
async def open_work_queue(work: RunContext) -> AsyncIterator[WorkQueue]:
    """Keep a work queue full and commit its outcomes while the block lasts; then release the leases."""
    queue = WorkQueue(work)
    async with task_group() as helpers:
        helpers.start_soon(queue.keep_full)
        helpers.start_soon(queue.keep_settling)
        helpers.start_soon(queue.settle_the_rest)
        try:
            yield queue
        finally:
            queue.closed.set()
        helpers.cancel_scope.cancel()
    await work.store.items.release(work.process_id)


class WorkQueue:
    """Leases chunks, hands out batches, and settles what comes back. Knows no endpoint."""

    def __init__(self, work: RunContext) -> None:
        self.work = work
        self.suspects: set[int] = set()  # items that may have caused a crash: asked alone, before all others
        self._demands: dict[object, Demand] = {}  # of each consumer
        self._low_water = 0  # items: if no more than this many are ready, more are leased
        self._most = 0  # requests that may be in flight
        self._ready = ReadyItems(work.policy.order)
        self._single: deque[Item] = deque()
        self._alone: deque[Item] = deque()
        self._later: list[tuple[float, int, Item]] = []
        self._open: dict[Lease, int] = {}  # unsettled items of the leases that we hold
        self._held: set[int] = set()  # their keys
        # Items waiting for the answer to each request we hold; then that request's outcome, for as long as a lease may
        # not have seen it in the ledger.
        self._twins: dict[int, tuple[Item, ...] | Completed | Discarded] = {}
        self._in_the_ledger: list[int] = []  # requests whose outcome later leases see in the ledger
        self._exhausted = False
        self._changed = Change()
        self._refill = anyio.Event()
        self._group = _Group()
        self._something_to_settle = anyio.Event()
        self.closed = anyio.Event()  # set when no consumer is left

    # -- what is left -------------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether nothing is left that this process could do."""
        return self._exhausted and not self._open

    @property
    def cleared(self) -> bool:
        """Whether all items that are left are in flight."""
        return self._exhausted and not (self._ready or self._single or self._alone or self._later)

    @property
    def left(self) -> int:
        """Items of the run that are not settled."""
        return self.work.progress.total - self.work.progress.settled

    @property
    def has_suspects(self) -> bool:
        """Whether an item waits to be asked alone."""
        return bool(self._alone)

    def ready_at(self, now: float) -> tuple[float, str]:
        """Return when an item can be asked, on the monotonic clock, and the reason if that is later than now."""
        if self._ready or self._single or self._alone or not self._exhausted or not self._later:
            return now, ""
        at, _, item = self._later[0]
        return at, after_failure(item.failures[-1], None) if item.failures else ""

    async def changed(self) -> None:
        """Return when something may have changed for consumers."""
        await self._changed.next()

    def notify(self) -> None:
        """Wake all consumers, because something has changed for them."""
        self._changed.notify()

    def set_demand(self, consumer: object, demand: Demand | None) -> None:
        """Keep this demand ready for a consumer from now on; None removes the consumer."""
        if demand is None:
            self._demands.pop(consumer, None)
        else:
            self._demands[consumer] = demand
        self._low_water = sum(one.requests * one.items for one in self._demands.values())
        self._most = sum(one.requests for one in self._demands.values())
        self._refill.set()

    # -- handing out --------------------------------------------------------------------------------------------------

    def take(self, limits: Limits, *, sample: bool = False) -> list[Item]:
        """Return the next batch; empty if nothing is ready."""
        batch = [self._single.popleft()] if self._single else self._ready.take(limits, sample=sample)
        if batch and len(self._ready) <= self._low_water:
            self._refill.set()
            if self.cleared:
                self.notify()
        return batch

    def take_suspect(self) -> Item:
        """Return the next item that must be asked alone."""
        return self._alone.popleft()

    def requeue(self, items: Iterable[Item]) -> None:
        """Put back items that were taken and not answered; no attempt is counted."""
        self._offer([item for item in items if item.key in self._held])

    # -- settling -----------------------------------------------------------------------------------------------------

    async def settle(self, settlements: list[Settlement], on_settled: OnSettled = _nothing) -> None:
        """Return when these settlements and those of items with the same requests are on disk.

        `on_settled` is called with all of them.

        Everything that arrived while the previous group was being committed is committed together.
        """
        group = self._group
        group.requests.append((self._with_twins(settlements), on_settled))
        self._something_to_settle.set()
        if group.enough is not None and self._enough:
            group.enough.set()
        await group.committed.wait()

    def _with_twins(self, settlements: list[Settlement]) -> list[Settlement]:
        """Return the settlements without items that are already settled (asked twice), plus those of waiting twins."""
        settled = []
        for settlement in settlements:
            item, outcome = settlement.item, settlement.outcome
            if item.key not in self._held:
                continue
            settled.append(settlement)
            if isinstance(outcome, RetryLater):
                continue
            self._held.discard(item.key)
            waiting = self._twins.get(item.same)
            self._twins[item.same] = outcome
            if waiting and isinstance(waiting, tuple):
                settled += [Settlement(twin, _shared(outcome), 0.0) for twin in waiting]
                self._held.difference_update(twin.key for twin in waiting)
                self.work.progress.shared += len(waiting)
        return settled

    async def keep_settling(self) -> None:
        """Commit settlements, group by group."""
        while True:
            if not self._group.requests:  # otherwise at once: even a finished wait lets the whole loop run first
                await self._something_to_settle.wait()
            await self._gather()
            committed = await self._commit()
            self._judge()
            committed.set()

    async def settle_the_rest(self) -> None:
        """Commit what was handed in when a run is cut short, since it is paid for.

        Consumers hand in what they hold back when they end, so this waits until all of them have ended.
        """
        with anyio.CancelScope(shield=True):
            await self.closed.wait()
            if self._group.requests:
                await self._commit()

    async def _commit(self) -> anyio.Event:
        """Commit the current group; return the event that lets its workers continue once it is set."""
        self._something_to_settle = anyio.Event()
        group, self._group = self._group, _Group()
        settlements = [settlement for request, _ in group.requests for settlement in request]
        close = self._count_down(settlements)
        begun, progress = time.monotonic(), self.work.progress
        await self.work.store.items.settle(settlements, close)
        progress.commits += 1
        progress.commit_seconds += time.monotonic() - begun
        self._after(settlements)
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
    def _enough(self) -> bool:
        return is_worth_a_commit(len(self._group.requests), self._most)

    def _count_down(self, settlements: list[Settlement]) -> list[Lease]:
        """Count settled items off our leases; return the leases with none left, which the same transaction closes."""
        close = []
        for settlement in settlements:
            if isinstance(settlement.outcome, RetryLater):
                continue
            lease = settlement.item.lease
            left = self._open[lease] - 1
            if left:
                self._open[lease] = left
            else:
                del self._open[lease]
                close.append(lease)
        return close

    def _after(self, settlements: list[Settlement]) -> None:
        """Update counts, schedule later attempts and wake consumers after a commit."""
        progress, now = self.work.progress, time.monotonic()  # one moment: items of a batch are asked again together
        completed, discarded, retried = progress.completed, progress.discarded, progress.retried
        for settlement in settlements:
            item, outcome = settlement.item, settlement.outcome
            if isinstance(outcome, RetryLater):
                progress.retried += 1
                progress.failures[Total.RETRIED, outcome.failure.kind] += 1
                item.attempt += 1
                item.failures.append(outcome.failure.kind)
                item.ready_at = now + outcome.delay
                heapq.heappush(self._later, (item.ready_at, item.key, item))
                self._refill.set()
                continue
            self._in_the_ledger.append(item.same)
            if isinstance(outcome, Completed):
                progress.completed += 1
                if outcome.tokens_in is not None or outcome.tokens_out is not None:
                    progress.count_tokens(outcome)
            else:
                progress.discarded += 1
                progress.failures[Total.DISCARDED, outcome.failure.kind] += 1
        if settlements:
            counts = progress.completed - completed, progress.discarded - discarded, progress.retried - retried
            keys = tuple(one.item.key for one in settlements if isinstance(one.outcome, Completed))
            self.work.events.emit(ItemsSettled(*counts, left=self.left, keys=keys))
        if not self._open:
            self._refill.set()
            self.notify()
        elif self.left < self.work.policy.fallback_below:
            self.notify()

    def _judge(self) -> None:
        """Raise `RunStopped` if more items are discarded than the policy allows."""
        progress = self.work.progress
        settled = progress.completed + progress.discarded
        if settled >= ENOUGH_TO_JUDGE and progress.discarded > self.work.policy.max_error_rate * settled:
            raise RunStopped(
                f"{progress.discarded:,} of {settled:,} items were discarded, more than "
                f"policy.max_error_rate={self.work.policy.max_error_rate:g} allows: see `orchestrator status`; "
                "to continue, raise it and run again"
            )

    # -- feeding ------------------------------------------------------------------------------------------------------

    @property
    def _chunks(self) -> int:
        together = self.work.policy.order == "prefix" or any(one.items > 1 for one in self._demands.values())
        return WIDE if together else LEASE_CHUNKS

    async def keep_full(self) -> None:
        """Keep enough items ready for consumers: those whose retry time has come, and newly leased ones."""
        work = self.work
        while not work.stop.requested:
            self._refill = anyio.Event()
            now = time.monotonic()
            due = []
            while self._later and self._later[0][0] <= now:
                due.append(heapq.heappop(self._later)[2])
            self.requeue(due)
            if self._demands and not self._exhausted and len(self._ready) <= self._low_water:
                for same in self._in_the_ledger:
                    self._twins.pop(same, None)
                self._in_the_ledger.clear()
                leased = await work.store.items.lease(work.run_id, work.process_id, self._chunks)
                self._exhausted = not leased
                if not leased:
                    self.notify()
                await self._take_in(leased)
                continue
            wait = self._later[0][0] - now if self._later else None
            with work.stop.while_running(), anyio.move_on_after(wait):
                await self._refill.wait()

    async def _take_in(self, leased: list[Leased]) -> None:
        fresh, answered = [], []
        for part in leased:
            self._open[part.lease] = len(part.items)
            for item in part.items:
                self._held.add(item.key)
                earlier = item.given or self._twins.get(item.same)
                if earlier is None:
                    self._twins[item.same] = ()
                    fresh.append(item)
                elif isinstance(earlier, tuple):
                    self._twins[item.same] = (*earlier, item)
                else:
                    answered.append(Settlement(item, _shared(earlier), 0.0))
        self._offer(fresh)
        if answered:
            self.work.progress.shared += len(answered)
            await self.settle(answered)

    def _offer(self, items: list[Item]) -> None:
        now, together = time.monotonic(), []
        for item in items:
            if item.ready_at > now:
                heapq.heappush(self._later, (item.ready_at, item.key, item))
            elif item.key in self.suspects:
                self._alone.append(item)
            elif asked_alone(item.failures):
                self._single.append(item)
            else:
                together.append(item)
        self._ready.add(together)
        self.notify()


def _shared(outcome: Completed | Discarded) -> Completed | Discarded:
    """Return the outcome for an item with the same request, which cost no tokens."""
    return replace(outcome, tokens_in=None, tokens_out=None) if isinstance(outcome, Completed) else outcome
