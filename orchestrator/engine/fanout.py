"""fan_out: lease -> attempt -> settle, many at once.

A request holds its place in flight until its answer is committed, so that after `kill -9` no more than
`concurrency` requests are asked twice.
"""

from __future__ import annotations

import heapq
import random
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.answer import Answer
from orchestrator.domain.attempt import Completed, Discarded, Outcome, RetryLater
from orchestrator.domain.batching import batches
from orchestrator.domain.cooldown import Cooldown
from orchestrator.domain.engine_metrics import engine_sample
from orchestrator.domain.errors import EndpointLost, FailureKind, RequestFailed
from orchestrator.domain.pace import Pace
from orchestrator.domain.verdict import judge, tries
from orchestrator.engine.breaker import Breaker
from orchestrator.engine.parse import parsed
from orchestrator.engine.tasks import task_group
from orchestrator.store.items import Leased, Settlement

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anyio.abc import TaskGroup

    from orchestrator.domain.item import Item, Lease
    from orchestrator.domain.limiter import Limiter
    from orchestrator.domain.policy import Policy
    from orchestrator.engine.orders import Orders
    from orchestrator.engine.parse import Parse
    from orchestrator.engine.progress import Progress
    from orchestrator.ports import DataPlane
    from orchestrator.store import Store

LEASE_CHUNKS = 2  # chunks claimed at a time: the window within which batches are sorted by length
CANARY = 4  # requests in flight until the first success: a wrong wire or a wrong `parse` is to cost seconds
METRICS = 2.0  # seconds between two looks at the server's own numbers
LARGE = 100_000  # bytes of a request that may be beyond some limit
_BLAMES_CONTENT = frozenset({FailureKind.REJECTED, FailureKind.DUBIOUS, FailureKind.BAD_ANSWER})
_SPOILS = frozenset({FailureKind.UNAVAILABLE, FailureKind.TIMEOUT, FailureKind.CONNECTION, FailureKind.CRASHED})
_ALONE_AFTER = _BLAMES_CONTENT  # an item that may be to blame is asked alone, so that it cannot spoil its neighbours'


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
    orders: Orders
    limiter: Limiter | None = None  # where the policy's concurrency is "auto"


@dataclass(slots=True)
class _Group:
    """Settlements, request by request, that will be committed together."""

    requests: list[list[Settlement]] = field(default_factory=list)
    committed: anyio.Event = field(default_factory=anyio.Event)


async def fan_out(work: Work, model: DataPlane, suspects: set[int], *, blames_large: bool = False) -> None:
    """Settle every item of the run that is to be had. Safe to call again after any failure.

    Raises `EndpointLost` when the endpoint is gone; the items that a crash may be blamed on are then in `suspects`,
    and are asked alone, before all others, by the next call. With `blames_large`, any loss may be blamed
    on large ones: proxies answer 503 to a body beyond the server's limit.
    """
    await _FanOut(work, model, suspects, blames_large=blames_large).run()


class _FanOut:
    def __init__(self, work: Work, model: DataPlane, suspects: set[int], *, blames_large: bool) -> None:
        self._blames_large = blames_large
        self._work = work
        self._model = model
        self._suspects = suspects
        self._limiter = work.limiter
        self._limit = 0  # the last one that the workers were told
        self._workers = 0
        self._finished = False
        self._crew: TaskGroup
        self._ready: deque[list[Item]] = deque()
        self._ready_items = 0
        self._alone: deque[Item] = deque()
        self._later: list[tuple[float, int, Item]] = []
        self._open: dict[Lease, int] = {}  # unsettled items of the leases that we hold
        self._in_flight: dict[int, Item] = {}
        self._requests = 0  # in flight
        self._proven = False  # whether an item has gone all the way
        self._exhausted = False
        self._news = anyio.Event()
        self._hungry = anyio.Event()
        self._group = _Group()
        self._something_to_settle = anyio.Event()
        self._breaker = Breaker(work.policy)
        self._cooldown = Cooldown()
        self._pace = Pace(work.policy.requests_per_minute, work.policy.tokens_per_minute)
        self._most = model.batch_size  # items in one request, until the server says that it takes fewer

    async def run(self) -> None:
        async with task_group() as helpers:
            helpers.start_soon(self._feed)
            helpers.start_soon(self._settle)
            helpers.start_soon(self._heed_stop)
            helpers.start_soon(self._heed_orders)
            helpers.start_soon(self._watch_server)
            async with task_group() as workers:
                self._crew = workers
                self._hire()
            helpers.cancel_scope.cancel()

    @property
    def _lanes(self) -> int:
        """How many requests may be in flight."""
        wanted = self._work.orders.concurrency or self._work.policy.concurrency
        if wanted == "auto":
            wanted = self._limiter.limit if self._limiter is not None else CANARY
        return min(wanted, self._model.lanes or wanted)

    def _hire(self) -> None:
        """See to it that there are as many workers as there may be requests; those beyond that wait."""
        while self._workers < self._lanes and not self._finished:
            self._workers += 1
            self._crew.start_soon(self._serve)

    # -- workers ------------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        while (batch := await self._next()) is not None and await self._may_begin():
            with self._place(batch) as settlements:
                try:
                    settlements.extend(await self._attempt(batch, alone=len(self._in_flight) == 1))
                except EndpointLost as loss:
                    self._suspects |= {item.key for item in self._in_flight.values() if self._may_blame(item, loss)}
                    raise
                if len(batch) == 1:
                    self._suspects.discard(batch[0].key)
                await self._commit(settlements)
            if self._alone:
                self._tell()
        self._finished = True
        self._tell()  # those that waited for a place

    async def _may_begin(self) -> bool:
        """Keep to the pace that is allowed. False where the run is stopped meanwhile: the batch stays leased."""
        if (wait := self._pace.take(time.monotonic())) > 0:
            with anyio.move_on_after(wait):
                await self._work.stop.wait()
        return not self._work.stop.is_set()

    async def _next(self) -> list[Item] | None:
        while not self._work.stop.is_set():
            if (wait := self._cooldown.until - time.monotonic()) > 0:
                with anyio.move_on_after(wait):
                    await self._work.stop.wait()
                continue
            if self._requests >= (self._lanes if self._proven else min(CANARY, self._lanes)):
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
        answers: Sequence[object]
        try:
            answers = await self._ask(batch)
        except RequestFailed as failure:
            if failure.most is not None:
                self._most = min(self._most, failure.most)
            if len(batch) > 1 and failure.kind in _BLAMES_CONTENT:
                size = min(failure.most or len(batch), (len(batch) + 1) // 2)
                parts = [batch[start : start + size] for start in range(0, len(batch), size)]
                return [one for part in parts for one in await self._attempt(part, alone=False)]
            answers = [failure] * len(batch)
        except EndpointLost as loss:
            if not (alone and self._may_blame(batch[0], loss)):
                raise
            crash = RequestFailed(FailureKind.CRASHED, f"the endpoint died of this item: {loss}")
            settlements = [Settlement(batch[0], self._judge(batch[0], crash), time.monotonic() - started)]
            await self._commit(settlements)
            raise
        seconds = time.monotonic() - started
        return [
            Settlement(item, self._outcome(item, answer), seconds) for item, answer in zip(batch, answers, strict=True)
        ]

    async def _ask(self, batch: list[Item]) -> Sequence[object]:
        """Ask once; a refusal for overload makes everybody wait."""
        generation = self._cooldown.generation
        self._work.progress.asked += 1
        try:
            answers = await self._model.ask([item.request for item in batch])
        except RequestFailed as failure:
            if failure.kind is FailureKind.RATE_LIMITED:
                self._cooldown.refused(time.monotonic(), generation, failure.retry_after)
            raise
        self._cooldown.succeeded(generation)
        return answers

    @contextmanager
    def _place(self, batch: list[Item]) -> Iterator[list[Settlement]]:
        """A place in flight. The block adds the settlements, by which the limiter learns how it went."""
        self._in_flight.update((item.key, item) for item in batch)
        self._requests += 1
        begun, limiter, settlements = time.monotonic(), self._limiter, list[Settlement]()
        if limiter is not None:
            limiter.begin(begun)
        try:
            yield settlements
        finally:
            for item in batch:
                del self._in_flight[item.key]
            self._requests -= 1
            if limiter is not None:
                _note(limiter, begun, settlements)
                self._follow_limiter()

    def _follow_limiter(self) -> None:
        if self._limiter is not None and self._limiter.limit != self._limit:
            self._limit = self._limiter.limit
            self._hire()
            self._tell()

    def _may_blame(self, item: Item, loss: EndpointLost) -> bool:
        return loss.blames_items or (self._blames_large and len(item.request) >= LARGE)

    def _outcome(self, item: Item, answer: object) -> Outcome:
        if isinstance(answer, RequestFailed):
            return self._judge(item, answer)
        tokens_in = tokens_out = None
        if isinstance(answer, Answer):
            tokens_in, tokens_out = answer.tokens_in, answer.tokens_out
            self._pace.spent(time.monotonic(), (tokens_in or 0) + (tokens_out or 0))
            answer = answer.value
        said = parsed(None, answer)
        if self._work.parse is None:
            return Completed(said, None, tokens_in, tokens_out)
        try:
            return Completed(parsed(self._work.parse, answer), said, tokens_in, tokens_out)
        except RequestFailed as refusal:
            verdict = self._judge(item, refusal)
            return Discarded(verdict.failure, said) if isinstance(verdict, Discarded) else verdict

    def _judge(self, item: Item, failure: RequestFailed) -> RetryLater | Discarded:
        attempt = tries(failure.kind, item.failures)
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
            self._breaker.trip(self._work.progress)
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
                item.failures.append(outcome.failure.kind)
                item.available_at = time.time() + outcome.delay
                heapq.heappush(self._later, (item.available_at, item.key, item))
                self._hungry.set()
        self._breaker.note(settlements)
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
            elif not _ALONE_AFTER.isdisjoint(item.failures):
                self._ready.append([item])
                self._ready_items += 1
            else:
                together.append(item)
        for batch in batches(together, self._most):
            self._ready.append(batch)
            self._ready_items += len(batch)
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    async def _heed_orders(self) -> None:
        while True:
            await self._work.orders.changed()
            self._hire()
            self._hungry.set()
            self._tell()

    async def _watch_server(self) -> None:
        """Let the limiter know what the server says of itself, where it says anything."""
        while self._limiter is not None:
            text = await self._model.metrics()
            sample = None if text is None else engine_sample(text)
            if sample is None:
                return
            self._limiter.observe(time.monotonic(), sample)
            self._follow_limiter()
            await anyio.sleep(METRICS)

    async def _heed_stop(self) -> None:
        await self._work.stop.wait()
        self._hungry.set()
        self._tell()


def _note(limiter: Limiter, begun: float, settlements: list[Settlement]) -> None:
    """Let the limiter know how a request went. Work is counted in bytes: batches come sorted by length."""
    now = time.monotonic()
    failures = [one.outcome.failure for one in settlements if not isinstance(one.outcome, Completed)]
    refusals = [failure for failure in failures if failure.kind is FailureKind.RATE_LIMITED]
    if refusals:
        limiter.reject(now, begun, max(failure.retry_after or 0.0 for failure in refusals))
    elif not settlements or any(failure.kind in _SPOILS for failure in failures):
        limiter.fail(now, begun)
    else:
        limiter.end(now, begun, sum(len(one.item.request) for one in settlements))
