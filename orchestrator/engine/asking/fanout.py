"""fan_out: take -> attempt -> settle, many at once, at one endpoint.

A request holds its place in flight until its answer is committed. So after `kill -9` at most `concurrency` requests
are asked twice, plus failed ones that the breaker or the outage holds back. `domain/doubt.py` says when an
answered request is asked again, to see whether an endpoint is down.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.attempt import Completed, Discarded, RetryLater
from orchestrator.domain.engine_metrics import engine_sample
from orchestrator.domain.errors import EndpointLost, FailureKind, LossCause, NoRoom, RequestFailed
from orchestrator.domain.events import AttemptFailed, LimitChanged, WaitBegan, WaitEnded
from orchestrator.domain.waiting import WORTH_SAYING, Waiting, longest_idle, pays_to_pause
from orchestrator.engine.asking.attempts import Asker
from orchestrator.engine.asking.breaker import Breaker
from orchestrator.engine.asking.concurrency import Concurrency
from orchestrator.engine.asking.outage import KNOWN
from orchestrator.engine.asking.throttle import Throttle
from orchestrator.engine.asking.work_queue import Demand
from orchestrator.engine.tasks import task_group
from orchestrator.store.items import Settlement

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import TaskGroup

    from orchestrator.domain.item import Item
    from orchestrator.engine.asking.effort import Effort
    from orchestrator.engine.asking.in_flight import InFlight, SentRequest
    from orchestrator.engine.asking.work_queue import WorkQueue
    from orchestrator.ports import DataPlane

METRICS = 2.0  # seconds between two readings of the server's metrics
HELD = 5.0  # seconds for which failures are held back while nothing else can be asked
LARGE = 100_000  # bytes of a request that may exceed some limit


async def fan_out(queue: WorkQueue, model: DataPlane, effort: Effort, in_flight: InFlight) -> Waiting | None:
    """Ask this endpoint until the work queue has nothing for it. Safe to call again after any failure.

    Return what is waited for if that takes longer than the endpoint should be kept awake.

    Raises `EndpointLost` if the endpoint is gone. The items that may have crashed it are then suspects, which are asked
    alone and before all others.
    """
    return await _FanOut(queue, model, effort, in_flight).run()


class _FanOut:
    def __init__(self, queue: WorkQueue, model: DataPlane, effort: Effort, in_flight: InFlight) -> None:
        self._queue = queue
        self._policy = queue.work.policy
        self._model = model
        self._effort = effort
        self._in_flight = in_flight
        self._breaker = Breaker(self._policy)
        self._events = queue.work.events
        self._throttle = Throttle(effort.pace, effort.presence.name, self._events)
        self._concurrency = Concurrency(self._policy, model, effort, self._throttle, self._events)
        self._attempts = Asker(queue, model, effort, self._throttle, self._concurrency, self._breaker, self._send_next)
        self._demand = Demand(0, 0)  # the last one set in the work queue
        self._workers = 0
        self._workers_group: TaskGroup
        self._finished = False
        self._waiting: Waiting | None = None  # a wait too long to keep the endpoint awake
        self._waits_for: Waiting | None = None  # a wait during which it stays awake, as reported to listeners
        self._suspect: SentRequest | None = None  # a request that must be alone in flight

    async def run(self) -> Waiting | None:
        cause = LossCause.CUT_SHORT
        await self._effort.machine.look()
        await self._recall_an_answer()
        await self._attempts.probe_if_down()
        try:
            with self._effort.share.held(self._effort.presence):
                await self._have_workers()
        except EndpointLost as loss:
            loss.requests, cause = len(self._in_flight.of(self._effort.presence)), loss.cause
            raise
        else:
            return self._waiting
        finally:
            self._wait_for(None)
            self._queue.set_demand(self, None)
            for sent in self._in_flight.of(self._effort.presence):
                self._in_flight.finish(sent)
                self._queue.work.progress.lost[cause] += 1
                if not self._in_flight.has_rival(sent):
                    self._queue.requeue(sent.items)
            tripped, held = self._breaker.tripped, self._breaker.release()
            if tripped:  # even if something else failed at the same moment
                self._queue.requeue([one.item for one in held])
            else:
                await self._settle(held)

    async def _have_workers(self) -> None:
        async with task_group() as helpers:
            helpers.start_soon(self._follow, self._effort.controls.changed)
            helpers.start_soon(self._follow, self._effort.share.changed)
            helpers.start_soon(self._watch_server)
            async with task_group() as workers:
                self._workers_group = workers
                self._fit()
            helpers.cancel_scope.cancel()

    async def _recall_an_answer(self) -> None:
        """Load requests that an earlier process got answered: they also show whether the endpoint is down."""
        work, outage = self._queue.work, self._effort.outage
        if outage.known is None and work.progress.settled:
            outage.recall(await self._queue.answered(KNOWN))

    # -- workers ------------------------------------------------------------------------------------------------------

    def _fit(self) -> None:
        """Start workers until there are as many as requests allowed; surplus workers wait."""
        requests, items, before = self._concurrency.wanted, self._concurrency.limits.items, self._demand.requests
        if requests == before and items == self._demand.items:
            return
        self._demand = demand = Demand(requests, items)
        if demand.requests != before:
            name, why = self._effort.presence.name, self._concurrency.limited_by
            self._events.emit(LimitChanged(name, before, demand.requests, why))
        self._queue.set_demand(self, demand)
        while self._workers < demand.requests and not self._finished:
            self._workers += 1
            self._workers_group.start_soon(self._work)
        self._queue.notify()

    async def _work(self) -> None:
        while (sent := await self._next()) is not None:
            await self._serve(sent)
        self._finished = True
        self._queue.notify()  # for workers that wait for a place
        if not self._in_flight.of(self._effort.presence):
            self._workers_group.cancel_scope.cancel()  # what is still sent was given up

    async def _serve(self, sent: SentRequest) -> None:
        """Send one request, which may be cut short: by a rival, or because nobody wants its answer any more."""
        if self._queue.gives_up(sent.items):
            with anyio.CancelScope() as sent.scope:
                await self._send(sent)
        else:
            await self._send(sent)
        if self._suspect is sent:
            self._suspect = None
            self._queue.notify()
        elif self._queue.has_suspects:
            self._queue.notify()

    def _send_next(self) -> bool:
        """Send the next request in the place of one that is held back. Return whether there is one, and a place."""
        blocked = self._effort.stop.requested or self._throttle.cooldown.probing or self._suspect is not None
        asked = len(self._in_flight.of(self._effort.presence)) - self._effort.outage.held
        if blocked or self._queue.has_suspects or self._throttle.ready_at > time.monotonic():
            return False
        if asked >= self._demand.requests:
            return False
        if not (batch := self._queue.take(self._concurrency.limits)):
            return False
        self._throttle.begin()
        self._workers_group.start_soon(self._serve_beside, self._in_flight.send(batch, self._effort.presence))
        return True

    async def _serve_beside(self, sent: SentRequest) -> None:
        """Send one request beside those of the workers, one of which may then wait for its place."""
        await self._serve(sent)
        self._queue.notify()

    async def _next(self) -> SentRequest | None:
        """Return the next request once there is a place and something to ask; None if there will be nothing more."""
        while not (self._effort.stop.requested or self._finished):
            now, soon = time.monotonic(), None
            if self._concurrency.has_place(self._demand.requests):
                if (held := self._held_left(now)) is not None and held <= 0:
                    await self._settle(self._breaker.release())
                    continue
                if self._is_done():
                    return None
                if (wait := self._throttle.ready_at - now) > 0:
                    soon = wait
                else:
                    sent, soon = self._next_request()
                    if sent is not None:
                        self._throttle.begin()
                        self._wait_for(None)
                        return sent
                idle = self._idle_left(now)
                if self._gives_up(now, idle):
                    return None
                if idle is not None and idle <= 0:
                    if not self._queue.waits:
                        return None
                    idle = None  # what waits is due sooner than it would be worth to pause for
                soon = min((left for left in (soon, idle, held) if left is not None), default=None)
            with self._effort.stop.while_running(), anyio.move_on_after(soon):
                await self._queue.changed()
        return None

    def _gives_up(self, now: float, idle: float | None) -> bool:
        """Whether the wait is so long that the endpoint should sleep meanwhile. Reports long waits to listeners.

        `idle`: for how many seconds it stays awake because something else may be asked at any time, unless the endpoint
        itself has us wait.
        """
        until, why = self._idle_until(now)
        if until - now < WORTH_SAYING:
            return False
        waiting = Waiting(self._queue.left, time.time() + until - now, why)
        self._wait_for(waiting)
        certain = until if idle is None or idle <= 0 else self._throttle.until[0]
        if pays_to_pause(certain - now, self._effort.cold_start):
            self._waiting = waiting
            return True
        return False

    def _held_left(self, now: float) -> float | None:
        """Return for how many seconds failures are held back; none if no further answer can show whose fault they are.

        None if nothing is held, or something is to be asked first.
        """
        if not self._breaker.holds or self._concurrency.in_flight or self._queue.waits:
            return None
        return 0.0 if self._queue.cleared else self._breaker.held_at + HELD - now

    def _idle_left(self, now: float) -> float | None:
        """Return for how many seconds the endpoint stays awake if nobody asks it; None if somebody does."""
        since = self._queue.idle_since
        return None if since is None else since + longest_idle(self._effort.cold_start) - now

    def _wait_for(self, waiting: Waiting | None) -> None:
        """Tell listeners what this endpoint waits for, if that has changed."""
        before, self._waits_for = self._waits_for, waiting
        if waiting is None:
            if before is not None:
                self._events.emit(WaitEnded(self._effort.presence.name))
        elif before is None or waiting.differs(before):
            self._events.emit(WaitBegan.of(waiting, self._effort.presence.name))

    def _idle_until(self, now: float) -> tuple[float, str]:
        """Return when something can be asked here again, if nothing is in flight, and the reason for the wait."""
        if self._concurrency.in_flight:
            return now, ""
        return max(self._queue.ready_at(now), self._throttle.until)

    def _next_request(self) -> tuple[SentRequest | None, float | None]:
        """Return a request if one can be made; otherwise the seconds until one may be, if known."""
        queue, in_flight, me = self._queue, self._in_flight, self._effort.presence
        if self._suspect is not None:
            return None, None
        if queue.has_suspects:
            if not in_flight.of(me):
                self._suspect = in_flight.send([queue.take_suspect()], me)
            return self._suspect, None
        if batch := queue.take(self._concurrency.limits, sample=self._concurrency.sizing):
            return in_flight.send(batch, me), None
        if not (self._policy.hedge and queue.cleared) or (oldest := in_flight.straggler()) is None:
            return None, None
        straggler, at = oldest
        left = at - time.monotonic()
        return (None, left) if left > 0 else (in_flight.send(straggler.items, me, rival=straggler), None)

    def _is_done(self) -> bool:
        """Whether nothing is left for this endpoint: no items at all, or only items in flight elsewhere."""
        queue = self._queue
        if self._effort.leave.below and queue.left < self._effort.leave.below:
            return True
        if queue.finished or queue.stuck:
            return True
        idle = queue.cleared and not self._concurrency.in_flight
        return idle and self._in_flight.others(self._effort.presence) and not self._policy.hedge

    async def _send(self, sent: SentRequest) -> None:
        """Hold a place in flight for one request until its outcome is on disk."""
        begun, settlements = self._concurrency.begin(), list[Settlement]()
        try:
            await self._answer(sent, settlements)
        finally:
            self._concurrency.end(begun, settlements)
            self._fit()

    async def _answer(self, sent: SentRequest, settlements: list[Settlement]) -> None:
        """Ask, and settle the outcomes, which are added to `settlements`."""
        batch, in_flight, queue = sent.items, self._in_flight, self._queue
        cleared = queue.suspects & {batch[0].key} if len(batch) == 1 else set[int]()
        try:
            settlements += await self._attempts.attempt(batch)
            if self._concurrency.limits.items != self._demand.items:
                self._fit()  # before these are committed: larger batches need more items ready
        except EndpointLost as loss:
            await self._blame(sent, loss)
            raise
        except NoRoom as lack:
            if in_flight.finish(sent) and not in_flight.has_rival(sent):
                queue.requeue(batch)
            await self._effort.machine.ran_out(lack, self._concurrency.in_flight - 1, self._effort.stop)
            return
        if not in_flight.finish(sent):
            return
        if sent.rival is not None:
            if in_flight.has_rival(sent) and not all(isinstance(one.outcome, Completed) for one in settlements):
                return  # the other one may do better
            in_flight.cancel_rival(sent)
        queue.suspects -= cleared
        await self._settle(self._breaker.judged(settlements))
        if not self._concurrency.proven and any(isinstance(one.outcome, Completed) for one in settlements):
            self._concurrency.proven = True
            queue.notify()

    async def _blame(self, sent: SentRequest, loss: EndpointLost) -> None:
        """Mark the items that may have crashed the endpoint. An item that was alone in flight is charged at once."""
        queue, mine = self._queue, self._in_flight.of(self._effort.presence)
        if mine == [sent] and len(sent.items) == 1 and self._may_blame(item := sent.items[0], loss):
            crash = RequestFailed(FailureKind.CRASHED, f"this item crashed the endpoint: {loss}")
            outcome, seconds = self._attempts.judge(item, crash, 0.5), time.monotonic() - sent.since
            if self._in_flight.finish(sent):
                loss.charged = self._effort.outage.known is not None
                await self._settle(self._breaker.judged([Settlement(item, outcome, seconds)]))
            return
        items = [item for other in mine for item in other.items]
        queue.suspects |= {item.key for item in items if self._may_blame(item, loss)}
        if loss.fails_all:
            queue.suspects |= self._effort.outage.blames([item.key for item in items])

    def _may_blame(self, item: Item, loss: EndpointLost) -> bool:
        if loss.fails_all and item.key in self._queue.suspects:
            return True
        return loss.blames_items or (self._effort.blames_large and len(item.request) >= LARGE)

    async def _settle(self, settlements: list[Settlement]) -> None:
        if settlements:
            await self._queue.settle(settlements, self._note)

    def _note(self, settled: list[Settlement]) -> None:
        for one in settled:
            outcome = one.outcome
            if not isinstance(outcome, RetryLater):
                self._effort.presence.settled += 1
            if not isinstance(outcome, Completed):
                self._events.emit(_failed(self._effort.presence.name, one.item, outcome))

    # -- tuning and metrics -------------------------------------------------------------------------------------------

    async def _follow(self, changed: Callable[[], Awaitable[None]]) -> None:
        while True:
            await changed()
            self._fit()

    async def _watch_server(self) -> None:
        """Learn from the server's metrics, if it has any."""
        while self._concurrency.learns:
            text = await self._model.metrics()
            sample = None if text is None else engine_sample(text)
            if sample is None:
                return
            self._concurrency.observe(sample)
            self._fit()
            await anyio.sleep(METRICS)


def _failed(endpoint: str, item: Item, outcome: RetryLater | Discarded) -> AttemptFailed:
    failure, again = outcome.failure, isinstance(outcome, RetryLater)
    attempt = item.attempt - again  # the number of the next attempt, if there is one
    retry_in = outcome.delay if isinstance(outcome, RetryLater) else None
    return AttemptFailed(endpoint, item.key, item.id, attempt, failure.kind, failure.status, failure.message, retry_in)
