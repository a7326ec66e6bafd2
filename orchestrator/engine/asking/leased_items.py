"""Leased items: the work queue of a job whose items are requests. Leases chunks and settles what comes back."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.attempt import Completed, Discarded, RetryLater
from orchestrator.domain.errors import RunStopped
from orchestrator.domain.events import ItemsSettled
from orchestrator.domain.running_totals import Total
from orchestrator.engine.asking.commits import Commits, nothing
from orchestrator.engine.asking.work_queue import RunContext, WorkQueue
from orchestrator.engine.tasks import task_group
from orchestrator.store.items import Leased, Settlement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from orchestrator.domain.item import Item, Lease
    from orchestrator.domain.policy import Policy
    from orchestrator.engine.asking.commits import OnSettled
    from orchestrator.engine.asking.work_queue import Demand
    from orchestrator.engine.progress import Progress

LEASE_CHUNKS = 2  # chunks whose items are claimed at a time; of chunks with few items left, more
WIDE = 8  # chunks if neighbours share requests: more items make better batches (padding is a ninth rather than a third)
ENOUGH_TO_JUDGE = 100  # settled items from which the error rate is meaningful


@asynccontextmanager
async def open_work_queue(work: RunContext) -> AsyncIterator[LeasedItems]:
    """Keep a work queue full and commit its outcomes while the block lasts; then release the leases."""
    queue = LeasedItems(work)
    async with task_group() as helpers:
        helpers.start_soon(queue.keep_full)
        helpers.start_soon(queue.commits.keep_committing)
        helpers.start_soon(queue.commits.commit_the_rest)
        try:
            yield queue
        finally:
            queue.commits.closed.set()
        helpers.cancel_scope.cancel()
    await work.store.items.release(work.process_id)


class Leases:
    """The leases of this process, each with the number of its items that are not settled."""

    def __init__(self, work: RunContext) -> None:
        self._work = work
        self._open: dict[Lease, int] = {}
        self.exhausted = False  # whether nothing is left to lease

    def __bool__(self) -> bool:
        return bool(self._open)

    async def more(self, chunks: int) -> list[Leased]:
        """Claim more items; an empty list if none are left."""
        only, canary = None, self._work.canary
        if canary is not None and (only := await canary.next()) is not None:
            chunks = len(only)
        leased = await self._work.store.items.lease(self._work.run_id, self._work.process_id, chunks, only)
        self.exhausted = not leased
        for part in leased:
            self._open[part.lease] = len(part.items)
        return leased

    def count_down(self, settled: Iterable[Item]) -> list[Lease]:
        """Count settled items off; return the leases with none left, which the same transaction closes."""
        close = []
        for item in settled:
            left = self._open[item.lease] - 1
            if left:
                self._open[item.lease] = left
            else:
                del self._open[item.lease]
                close.append(item.lease)
        return close


class LeasedItems(WorkQueue):
    """Items that are leased from the ledger, and asked as they are."""

    def __init__(self, work: RunContext) -> None:
        super().__init__(work)
        self.commits = Commits(self._write, self._judge, work.progress)
        self._leases = Leases(work)
        self._held: set[int] = set()  # keys of unsettled items
        # Items waiting for the answer to each request we hold; then that request's outcome, for as long as a lease may
        # not have seen it in the ledger.
        self._twins: dict[int, tuple[Item, ...] | Completed | Discarded] = {}
        self._in_the_ledger: list[int] = []  # requests whose outcome later leases see in the ledger

    # -- what is left -------------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether nothing is left that this process could do."""
        return self._leases.exhausted and not self._leases

    @property
    def cleared(self) -> bool:
        """Whether all items that are left are in flight."""
        return self._leases.exhausted and not self.waits

    @property
    def left(self) -> int:
        """Items of the run that are not settled."""
        return self.work.progress.total - self.work.progress.settled

    @property
    def _expects_more(self) -> bool:
        return not self._leases.exhausted

    def set_demand(self, consumer: object, demand: Demand | None) -> None:
        """Keep this demand ready for a consumer from now on; None removes the consumer."""
        super().set_demand(consumer, demand)
        self.commits.most = self.most

    def _is_open(self, item: Item) -> bool:
        return item.key in self._held

    # -- settling -----------------------------------------------------------------------------------------------------

    async def settle(self, settlements: list[Settlement], on_settled: OnSettled = nothing) -> None:
        """Return when these settlements and those of items with the same requests are on disk.

        `on_settled` is called with all of them.
        """
        await self.commits.add(self._with_twins(settlements), on_settled)

    async def answered(self, most: int) -> list[bytes]:
        """Return up to `most` requests of the run that are answered."""
        return await self.work.store.items.answered(self.work.run_id, most)

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
                settled += [Settlement(twin, shared(outcome), 0.0) for twin in waiting]
                self._held.difference_update(twin.key for twin in waiting)
                self.work.progress.shared += len(waiting)
        return settled

    async def _write(self, settlements: list[Settlement]) -> None:
        """Commit outcomes, update counts, schedule later attempts and wake consumers."""
        ended = (one.item for one in settlements if not isinstance(one.outcome, RetryLater))
        await self.work.store.items.settle(settlements, self._leases.count_down(ended))
        now = time.monotonic()  # one moment: items of a batch are asked again together
        for settlement in settlements:
            if isinstance(settlement.outcome, RetryLater):
                failure = settlement.outcome.failure
                self._ask_later(settlement.item, failure, now + settlement.outcome.delay)
            else:
                self._in_the_ledger.append(settlement.item.same)
        emit_settled(self.work, settlements)
        if not self._leases:
            self._refill.set()
            self.notify()
        elif self.left < self.work.policy.fallback_below:
            self.notify()

    def _judge(self) -> None:
        judge_error_rate(self.work.progress, self.work.policy)

    # -- feeding ------------------------------------------------------------------------------------------------------

    @property
    def _chunks(self) -> int:
        together = self.work.policy.order == "prefix" or any(one.items > 1 for one in self._demands.values())
        return WIDE if together else LEASE_CHUNKS

    @property
    def _may_lease(self) -> bool:
        canary = self.work.canary
        waits = canary is not None and canary.asks and bool(self._leases)
        return not (self._leases.exhausted or waits)

    async def keep_full(self) -> None:
        """Keep enough items ready for consumers: those whose retry time has come, and newly leased ones."""
        while not self.work.stop.requested:
            self._refill = anyio.Event()
            wait = self._requeue_due()
            if self._demands and self._may_lease and len(self._ready) <= self._low_water:
                for same in self._in_the_ledger:
                    self._twins.pop(same, None)
                self._in_the_ledger.clear()
                leased = await self._leases.more(self._chunks)
                if not leased:
                    self.notify()
                await self._take_in(leased)
                continue
            with self.work.stop.while_running(), anyio.move_on_after(wait):
                await self._refill.wait()

    async def _take_in(self, leased: list[Leased]) -> None:
        fresh, answered = [], []
        for part in leased:
            for item in part.items:
                self._held.add(item.key)
                earlier = item.given or self._twins.get(item.same)
                if earlier is None:
                    self._twins[item.same] = ()
                    fresh.append(item)
                elif isinstance(earlier, tuple):
                    self._twins[item.same] = (*earlier, item)
                else:
                    answered.append(Settlement(item, shared(earlier), 0.0))
        self._offer(fresh)
        if answered:
            self.work.progress.shared += len(answered)
            await self.settle(answered)


def shared(outcome: Completed | Discarded) -> Completed | Discarded:
    """Return the outcome for an item with the same request, which cost no tokens."""
    return replace(outcome, tokens_in=None, tokens_out=None) if isinstance(outcome, Completed) else outcome


def emit_settled(work: RunContext, settlements: list[Settlement]) -> None:
    """Count committed outcomes in the progress, and tell listeners."""
    progress = work.progress
    completed, discarded, retried = progress.completed, progress.discarded, progress.retried
    for settlement in settlements:
        outcome = settlement.outcome
        if isinstance(outcome, RetryLater):
            progress.retried += 1
            progress.failures[Total.RETRIED, outcome.failure.kind] += 1
        elif isinstance(outcome, Completed):
            progress.completed += 1
            if outcome.tokens_in is not None or outcome.tokens_out is not None:
                progress.count_tokens(outcome)
        else:
            progress.discarded += 1
            progress.failures[Total.DISCARDED, outcome.failure.kind] += 1
    if settlements:
        counts = progress.completed - completed, progress.discarded - discarded, progress.retried - retried
        keys = tuple(one.item.key for one in settlements if isinstance(one.outcome, Completed))
        work.events.emit(ItemsSettled(*counts, left=progress.total - progress.settled, keys=keys))


def judge_error_rate(progress: Progress, policy: Policy) -> None:
    """Raise `RunStopped` if more items are discarded than the policy allows."""
    settled = progress.completed + progress.discarded
    if settled >= ENOUGH_TO_JUDGE and progress.discarded > policy.max_error_rate * settled:
        raise RunStopped(
            f"{progress.discarded:,} of {settled:,} items were discarded, more than "
            f"policy.max_error_rate={policy.max_error_rate:g} allows: see `orchestrator status`; "
            "to continue, raise it and run again"
        )
