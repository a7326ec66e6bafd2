"""fan_out: take -> attempt -> settle, many at once, at one endpoint.

A request holds its place in flight until its answer is committed, so that after `kill -9` no more than
`concurrency` requests are asked twice, and those that the breaker holds back.
"""

from __future__ import annotations

import logging
import random
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.answer import Answer, Note, tokens_of
from orchestrator.domain.attempt import Completed, Discarded, Outcome, RetryLater
from orchestrator.domain.engine_metrics import engine_sample
from orchestrator.domain.errors import (
    EndpointLost,
    EndpointRefused,
    FailureKind,
    NoRoom,
    OrchestratorError,
    RequestFailed,
    described,
)
from orchestrator.domain.events import (
    AttemptFailed,
    BatchSizeChanged,
    LimitChanged,
    WaitBegan,
    WaitEnded,
)
from orchestrator.domain.failpoints import reached
from orchestrator.domain.limiter import Limiter
from orchestrator.domain.pace import Pace
from orchestrator.domain.verdict import ALONE, asked_in_parts, judge, tries
from orchestrator.domain.waiting import WORTH_SAYING, Waiting, pays_to_pause
from orchestrator.engine.breaker import Breaker, BreakerTripped
from orchestrator.engine.machine import Machine
from orchestrator.engine.outage import KNOWN, Outage
from orchestrator.engine.parse import parsed, stored
from orchestrator.engine.run_controls import ConcurrencyShare
from orchestrator.engine.tasks import task_group
from orchestrator.engine.throttle import Throttle
from orchestrator.engine.work_queue import Demand
from orchestrator.store.items import Settlement

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from anyio.abc import TaskGroup

    from orchestrator.domain.item import Item
    from orchestrator.domain.sizing import Sizer
    from orchestrator.engine.in_flight import InFlight, SentRequest
    from orchestrator.engine.progress import Presence
    from orchestrator.engine.run_controls import RunControls
    from orchestrator.engine.stop import Stop
    from orchestrator.engine.work_queue import WorkQueue
    from orchestrator.ports import DataPlane

CANARY = 4  # requests in flight until the first success: a wrong wire or a wrong `parse` is to cost seconds
METRICS = 2.0  # seconds between two looks at the server's own numbers
LARGE = 100_000  # bytes of a request that may be beyond some limit
_SPOILS = frozenset({FailureKind.UNAVAILABLE, FailureKind.TIMEOUT, FailureKind.CONNECTION, FailureKind.CRASHED})
_logger = logging.getLogger(__name__)
_TOO_LARGE = 2  # batches that failed as a whole and went well in halves: their size was to blame


@dataclass(frozen=True, slots=True)
class Effort:
    """How one endpoint is to be used. `weight`: of it, how many times the requests that others get at once.

    `leave_below`: once fewer items are left, they are somebody else's. `blames_large`: a loss may be blamed on large
    items, for proxies answer 503 to a body beyond the server's limit. `pace`: of the whole run, whoever is asked.
    `cold_start`: seconds that waking the endpoint has taken. `machine`: what ours has room for. `outage`: what is known
    of whether the endpoint is down.
    """

    presence: Presence
    controls: RunControls
    stop: Stop  # of this endpoint
    limiter: Limiter | None = None  # where the policy's concurrency is "auto"
    sizer: Sizer | None = None  # where the policy's batch size is
    weight: float = 1.0
    leave_below: int = 0
    blames_large: bool = False
    pace: Pace = field(default_factory=Pace)
    cold_start: float = 0.0
    machine: Machine = field(default_factory=Machine)
    outage: Outage = field(default_factory=Outage)
    share: ConcurrencyShare = field(default_factory=ConcurrencyShare)  # one for all members of an endpoint


class _PutOff(Exception):
    """A further request for what is in flight may not be made now."""


async def fan_out(queue: WorkQueue, model: DataPlane, effort: Effort, in_flight: InFlight) -> Waiting | None:
    """Ask this endpoint until the work queue has nothing for it. Safe to call again after any failure.

    Gives what is waited for where that takes longer than the endpoint should be kept awake.

    Raises `EndpointLost` when the endpoint is gone; the items that a crash may be blamed on are then suspects, which
    are asked alone, before all others.
    """
    return await _FanOut(queue, model, effort, in_flight).run()


class _FanOut:
    def __init__(self, queue: WorkQueue, model: DataPlane, effort: Effort, in_flight: InFlight) -> None:
        self._queue = queue
        self._policy = queue.work.policy
        self._model = model
        self._effort = effort
        self._limiter = effort.limiter
        self._sizer = effort.sizer if model.max_in_flight is None else None  # a worker of ours cuts its batches itself
        self._in_flight = in_flight
        self._refused = False  # whether the limiter is there because fewer are taken than the policy wants
        self._limit = 0  # the last one that the workers were told
        self._max_in_flight = 0  # requests that may be in flight
        self._workers = 0
        self._finished = False
        self._workers_group: TaskGroup
        self._requests = 0  # in flight or being committed
        self._proven = False  # whether an item has gone all the way
        self._breaker = Breaker(self._policy)
        self._throttle = Throttle(effort.pace, effort.presence.name, queue.work.events)
        self._outage = effort.outage
        self._emit = queue.work.events.emit
        self._waiting: Waiting | None = None  # what the endpoint is not kept awake for
        self._waits_for: Waiting | None = None  # what it is kept awake for, and listeners were told
        self._limits = model.limits  # of one request; the server may say that it takes fewer
        if self._sizer is not None:
            self._sizer.cap(model.limits.items)
        self._too_large = 0
        self._too_large_at = 0.0
        self._suspect: SentRequest | None = None  # one that has to fly alone
        self._refused_at_first: set[bytes] = set()  # requests, before any was answered
        self._mistakes: set[str] = set()  # kinds of exceptions that nobody expected, and that were logged

    async def run(self) -> Waiting | None:
        await self._effort.machine.look()
        await self._recall_an_answer()
        if self._outage.lasts:
            await self._outage.probe(self._probe)
        try:
            with self._effort.share.held(self):
                await self._work()
        except BreakerTripped:
            self._queue.requeue([one.item for one in self._breaker.release()])
            raise
        else:
            return self._waiting
        finally:
            self._wait_for(None)
            self._queue.set_demand(self, None)
            for sent in self._in_flight.of(self._effort.presence):
                self._in_flight.finish(sent)
                if not self._in_flight.has_rival(sent):
                    self._queue.requeue(sent.items)
            await self._settle(self._breaker.release())

    async def _work(self) -> None:
        async with task_group() as helpers:
            helpers.start_soon(self._heed, self._effort.controls.changed)
            helpers.start_soon(self._heed, self._effort.share.changed)
            helpers.start_soon(self._watch_server)
            async with task_group() as workers:
                self._workers_group = workers
                self._resize()
            helpers.cancel_scope.cancel()

    async def _recall_an_answer(self) -> None:
        """What an earlier process was answered proves as well whether the endpoint is down."""
        work, outage = self._queue.work, self._outage
        if outage.known is None and work.progress.settled:
            outage.recall(await work.store.items.answered(work.run_id, KNOWN))

    # -- how much -----------------------------------------------------------------------------------------------------

    def _wanted(self) -> int:
        """How many requests are to be in flight."""
        given = self._effort.controls.concurrency or self._policy.concurrency
        if given != "auto":
            wanted = max(1, round(given * self._effort.weight))
            if self._model.max_in_flight is None:  # a worker of ours says itself how many it has a use for
                wanted = self._effort.share.of(self, wanted)
            if self._refused and self._limiter is not None:
                wanted = min(wanted, self._limiter.limit)
        else:
            wanted = CANARY if self._sizing or self._limiter is None else self._limiter.limit
        return self._effort.machine.allows(min(wanted, self._model.max_in_flight or wanted), self._effort.presence)

    @property
    def _limited_by(self) -> str:
        """What sets how many requests are to be in flight, for a person."""
        if self._effort.controls.concurrency:
            return "tune"
        if self._sizing:
            return "batch size is being found"
        return "policy" if self._limiter is None else "refusals" if self._refused else "limiter"

    @property
    def _sizing(self) -> bool:
        """Whether the best batch size is not known yet."""
        return self._sizer is not None and not self._sizer.settled

    def _resize(self, most: int | None = None) -> None:
        """Fit the batches to what is known by now: that the server takes no more than so many, or what pays."""
        size = self._model.limits.items if most is None else min(self._limits.items, most)
        if self._sizer is not None:
            if most is not None:
                self._sizer.cap(most)
            size = self._sizer.size
        if size != self._limits.items:
            why = "what pays" if most is None else "the server takes no more"
            self._emit(BatchSizeChanged(self._effort.presence.name, self._limits.items, size, why))
        self._limits = replace(self._model.limits, items=size)
        self._start_workers()

    def _start_workers(self) -> None:
        """See to it that there are as many workers as there may be requests; those beyond that wait."""
        before, self._max_in_flight = self._max_in_flight, self._wanted()
        if self._max_in_flight != before:
            self._emit(LimitChanged(self._effort.presence.name, before, self._max_in_flight, self._limited_by))
        self._queue.set_demand(self, Demand(self._max_in_flight, self._limits.items))
        while self._workers < self._max_in_flight and not self._finished:
            self._workers += 1
            self._workers_group.start_soon(self._serve)
        self._queue.notify()

    # -- workers ------------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        while (sent := await self._next()) is not None:
            if self._policy.hedge:
                with anyio.CancelScope() as sent.scope:
                    await self._send(sent)
            else:
                await self._send(sent)
            if self._suspect is sent:
                self._suspect = None
                self._queue.notify()
            elif self._queue.has_suspects:
                self._queue.notify()
        self._finished = True
        self._queue.notify()  # those that waited for a place

    async def _next(self) -> SentRequest | None:
        """The next request, once there is a place and something to ask; None where there will be nothing more."""
        while not (self._effort.stop.requested or self._finished):
            now, soon = time.monotonic(), None
            if self._requests < self._places:
                if self._breaker.holds and self._queue.cleared and not self._requests:
                    await self._settle(self._breaker.release())  # nothing more can tell whose fault it is
                    continue
                if self._is_done():
                    return None
                if (wait := self._throttle.until[0] - now) > 0:
                    soon = wait
                else:
                    sent, soon = self._next_request()
                    if sent is not None:
                        self._throttle.begin()
                        self._wait_for(None)
                        return sent
                if self._gives_up(now):
                    return None
            with self._effort.stop.while_running(), anyio.move_on_after(soon):
                await self._queue.changed()
        return None

    @property
    def _places(self) -> int:
        """Requests that may be in flight by now."""
        if self._throttle.cooldown.probing:
            return 1
        return self._max_in_flight if self._proven else min(CANARY, self._max_in_flight)

    def _gives_up(self, now: float) -> bool:
        """Whether what is waited for takes so long that the endpoint should sleep meanwhile; listeners hear what."""
        until, why = self._idle_until(now)
        if until - now < WORTH_SAYING:
            return False
        waiting = Waiting(self._queue.left, time.time() + until - now, why)
        self._wait_for(waiting)
        if pays_to_pause(until - now, self._effort.cold_start):
            self._waiting = waiting
            return True
        return False

    def _wait_for(self, waiting: Waiting | None) -> None:
        """Tell listeners what this endpoint waits for, where that is news."""
        before, self._waits_for = self._waits_for, waiting
        if waiting is None:
            if before is not None:
                self._emit(WaitEnded(self._effort.presence.name))
        elif before is None or waiting.differs(before):
            until = datetime.fromtimestamp(waiting.until, UTC)
            self._emit(WaitBegan(waiting.items, until, waiting.why, self._effort.presence.name))

    def _idle_until(self, now: float) -> tuple[float, str]:
        """When something can be asked here again, where nothing is, and why not before."""
        if self._requests:
            return now, ""
        return max(self._queue.ready_at(now), self._throttle.until)

    def _next_request(self) -> tuple[SentRequest | None, float | None]:
        """A request, if there is one to be made; else the seconds until there may be, where that is known."""
        queue, in_flight, me = self._queue, self._in_flight, self._effort.presence
        if self._suspect is not None:
            return None, None
        if queue.has_suspects:
            if not in_flight.of(me):
                self._suspect = in_flight.send([queue.take_suspect()], me)
            return self._suspect, None
        if batch := queue.take(self._limits, sample=self._sizing):
            return in_flight.send(batch, me), None
        if not (self._policy.hedge and queue.cleared) or (found := in_flight.straggler()) is None:
            return None, None
        straggler, at = found
        left = at - time.monotonic()
        return (None, left) if left > 0 else (in_flight.send(straggler.items, me, rival=straggler), None)

    def _is_done(self) -> bool:
        """Whether nothing is left for this endpoint: nothing at all, or others have it in their hands."""
        queue = self._queue
        if self._effort.leave_below and queue.left < self._effort.leave_below:
            return True
        if queue.finished:
            return True
        others = queue.cleared and not self._requests and self._in_flight.others(self._effort.presence)
        return others and not self._policy.hedge

    async def _send(self, sent: SentRequest) -> None:
        """A place in flight for one request, until its outcome is on disk; the limiter learns how it went."""
        begun, limiter, settlements = time.monotonic(), self._limiter, list[Settlement]()
        self._requests += 1
        if limiter is not None:
            limiter.begin(begun)
        try:
            await self._answer(sent, settlements)
        finally:
            self._requests -= 1
            if limiter is not None:
                self._teach(limiter, begun, settlements)
            elif any(_is_refused(one) for one in settlements) and self._throttle.cooldown.often:
                self._refused, self._limiter = True, Limiter(CANARY, most=max(CANARY, self._max_in_flight))
            self._follow_limiter()

    async def _answer(self, sent: SentRequest, settlements: list[Settlement]) -> None:
        """Ask, and settle what comes of it, which is added to `settlements`."""
        batch, in_flight, queue = sent.items, self._in_flight, self._queue
        cleared = {item.key for item in batch} & queue.suspects if len(batch) == 1 else set[int]()
        try:
            settlements += await self._attempt(batch, sent)
        except EndpointLost as loss:
            flying = [item for other in in_flight.of(self._effort.presence) for item in other.items]
            queue.suspects |= {item.key for item in flying if self._may_blame(item, loss)}
            if loss.fails_all:
                queue.suspects |= self._outage.blames([item.key for item in flying])
            raise
        except NoRoom as lack:
            if in_flight.finish(sent) and not in_flight.has_rival(sent):
                queue.requeue(batch)
            await self._effort.machine.ran_out(lack, self._requests - 1, self._effort.stop)
            self._start_workers()
            return
        if not in_flight.finish(sent):
            return
        if sent.rival is not None:
            if in_flight.has_rival(sent) and not all(isinstance(one.outcome, Completed) for one in settlements):
                return  # the other one may do better
            in_flight.cancel_rival(sent)
        queue.suspects -= cleared
        await self._settle(self._breaker.judged(settlements))
        if not self._proven and any(isinstance(one.outcome, Completed) for one in settlements):
            self._proven = True
            queue.notify()

    async def _settle(self, settlements: list[Settlement]) -> None:
        if settlements:
            await self._queue.settle(settlements, self._note)

    def _note(self, settled: list[Settlement]) -> None:
        for one in settled:
            outcome = one.outcome
            if not isinstance(outcome, RetryLater):
                self._effort.presence.settled += 1
            if not isinstance(outcome, Completed):
                self._emit(_failed(self._effort.presence.name, one.item, outcome))

    async def _attempt(self, batch: list[Item], sent: SentRequest | None = None) -> list[Settlement]:
        """Ask once; a batch that is refused as a whole is halved until the items to blame stand alone.

        `flight`: where these are all of it.
        """
        if sent is None and not await self._throttle.begin_another(self._effort.stop):
            raise _PutOff
        started = time.monotonic()
        answers: Sequence[object]
        try:
            answers = await self._ask(batch)
        except RequestFailed as failure:
            if sent is not None and len(batch) > 1 and failure.kind is FailureKind.GARBLED:
                with suppress(_PutOff, NoRoom):
                    return await self._attempt(batch)  # it mostly passes; if not, halves
            elif len(batch) > 1 and asked_in_parts(failure.kind, self._try_of(batch, sent, failure), self._policy):
                return await self._in_parts(batch, failure, started)
            answers = [failure] * len(batch)
        except EndpointLost as loss:
            alone = len(batch) == 1 and self._in_flight.of(self._effort.presence) == [sent]
            if not (alone and self._may_blame(batch[0], loss)):
                raise
            crash = RequestFailed(FailureKind.CRASHED, f"the endpoint died of this item: {loss}")
            settlements = [Settlement(batch[0], self._judge(batch[0], crash, 0.5), time.monotonic() - started)]
            if sent is not None and self._in_flight.finish(sent):
                await self._settle(self._breaker.judged(settlements))
            raise
        else:
            if len(batch) == self._limits.items:
                self._too_large = 0
        seconds, jitter = time.monotonic() - started, random.random()  # noqa: S311 - what failed together comes back together
        return [
            Settlement(item, self._outcome(item, answer, jitter), seconds)
            for item, answer in zip(batch, answers, strict=True)
        ]

    def _try_of(self, batch: list[Item], sent: SentRequest | None, failure: RequestFailed) -> int:
        """Which try of an item this was, at the most; for a part of a batch it is at least the second."""
        return max(tries(failure.kind, item.failures) for item in batch) + (sent is None)

    async def _in_parts(self, batch: list[Item], failure: RequestFailed, started: float) -> list[Settlement]:
        """Ask the parts of a batch that was refused. Where nothing is wrong with them, its size was."""
        size = min(failure.most or len(batch), (len(batch) + 1) // 2)
        if failure.most is not None:
            self._resize(failure.most)
        parts = [batch[start : start + size] for start in range(0, len(batch), size)]
        settlements = list[Settlement]()
        for number, part in enumerate(parts):
            try:
                settlements += await self._attempt(part)
            except (_PutOff, NoRoom):
                self._put_off([item for later in parts[number:] for item in later], failure)
                return settlements
        # what failed together with one that was counted is the same trouble, which may have passed by itself
        blamed = failure.most is None and failure.kind is not FailureKind.GARBLED and started > self._too_large_at
        if blamed and all(isinstance(one.outcome, Completed) for one in settlements):
            self._too_large += 1
            self._too_large_at = time.monotonic()
            if self._too_large == _TOO_LARGE:
                self._too_large = 0
                self._resize(size)
        return settlements

    def _put_off(self, items: Sequence[Item], failure: RequestFailed) -> None:
        """These were part of what was refused, and have not been asked themselves: alone, the next time."""
        for item in items:
            item.failures.append(failure.kind)
        self._queue.requeue(items)

    async def _ask(self, batch: list[Item]) -> Sequence[object]:
        """Ask once; a refusal for overload makes everybody wait."""
        generation, sizer = self._throttle.cooldown.generation, self._sizer
        self._queue.work.progress.asked += 1
        begun, work = time.monotonic(), 0
        if sizer is not None:
            sizer.begin()
        try:
            reached("before send")
            requests = [item.request for item in batch]
            if self._model.max_in_flight is None:
                answers = await self._outage.ask(requests, self._answers, self._probe)
            else:  # a worker of ours, which is seen to die
                answers = await self._answers(requests)
            reached("after send")
            if sizer is not None:
                work = sum(len(item.request) for item in batch)
        except RequestFailed as failure:
            self._queue.work.progress.asked -= not failure.sent
            if failure.kind is FailureKind.RATE_LIMITED:
                self._throttle.refused(batch, generation, failure.retry_after, self._requests)
            raise
        finally:
            if sizer is not None:
                sizer.end(len(batch), work, time.monotonic() - begun)
                if self._limits.items != sizer.size or self._max_in_flight != self._wanted():
                    self._resize()
        if self._effort.machine.sufficed():
            self._start_workers()
        if self._throttle.succeeded(begun, generation, self._model.quiet_until):
            self._queue.notify()
        return answers

    async def _again(self) -> bool:
        """Whether a data plane may make one more request for what it was asked, which is counted then."""
        if not await self._throttle.begin_another(self._effort.stop):
            return False
        self._queue.work.progress.asked += 1
        return True

    async def _probe(self, requests: Sequence[bytes]) -> Sequence[object]:
        """One more request, which is no item's."""
        if not await self._again():
            raise EndpointLost("it may not be asked just now whether it is down")
        begun, generation = time.monotonic(), self._throttle.cooldown.generation
        answers = await self._answers(requests)
        self._throttle.succeeded(begun, generation, self._model.quiet_until)
        return answers

    async def _answers(self, requests: Sequence[bytes]) -> Sequence[object]:
        """One for each request. What nobody foresaw is these items' failure, and logged: no answer is to end a run."""
        try:
            answers = await self._model.ask(requests, self._again)
        except EndpointRefused as refusal:
            if not (self._proven or self._outage.worked) and self._refuses_all(requests):
                raise
            # URL, token and model have proved right: it is these items. If it is everybody, the breaker finds out
            raise RequestFailed(FailureKind.DUBIOUS, str(refusal)) from refusal
        except (RequestFailed, EndpointLost, NoRoom, OrchestratorError):
            raise
        except Exception as mistake:
            kind = type(mistake).__name__
            if kind not in self._mistakes:
                self._mistakes.add(kind)
                _logger.exception("an answer could not be read; its items fail")
            why = f"the answer could not be read: {described(mistake)}"
            raise RequestFailed(FailureKind.BAD_ANSWER, why) from mistake
        if len(answers) != len(requests):
            raise RequestFailed(FailureKind.BAD_ANSWER, f"asked {len(requests)} inputs, got {len(answers)} answers")
        return answers

    def _refuses_all(self, requests: Sequence[bytes]) -> bool:
        """Whether so much is refused, or one thing again, with nothing answered, that it is no single item's fault."""
        refused, request = self._refused_at_first, b"\n".join(requests)
        again = request in refused
        refused.add(request)
        return again or len(refused) >= min(CANARY, self._queue.left - self._breaker.holds)

    def _teach(self, limiter: Limiter, begun: float, settlements: list[Settlement]) -> None:
        """Let the limiter know how a request went. Work is counted in bytes: batches come sorted by length."""
        now = time.monotonic()
        failures = [one.outcome.failure for one in settlements if not isinstance(one.outcome, Completed)]
        refusals = [failure for failure in failures if failure.kind is FailureKind.RATE_LIMITED]
        if refusals and self._throttle.cooldown.often:
            wait = max(failure.retry_after or 0.0 for failure in refusals)
            limiter.reject(now, begun, wait, self._throttle.crowd)
        elif refusals or not settlements or any(failure.kind in _SPOILS for failure in failures):
            limiter.fail(now, begun)
        else:
            limiter.end(now, begun, sum(len(one.item.request) for one in settlements))

    def _follow_limiter(self) -> None:
        if self._limiter is not None and self._limiter.limit != self._limit:
            self._limit = self._limiter.limit
            self._start_workers()

    def _may_blame(self, item: Item, loss: EndpointLost) -> bool:
        if loss.fails_all and item.key in self._queue.suspects:
            return True
        return loss.blames_items or (self._effort.blames_large and len(item.request) >= LARGE)

    def _outcome(self, item: Item, answer: object, jitter: float) -> Outcome:
        if isinstance(answer, RequestFailed):
            return self._judge(item, answer, jitter)
        tokens_in = tokens_out = None
        notes: frozenset[str] = frozenset()
        if isinstance(answer, Answer):
            tokens_in, tokens_out, notes = tokens_of(answer.tokens_in), tokens_of(answer.tokens_out), answer.notes
            self._throttle.spent((tokens_in or 0) + (tokens_out or 0))
            answer = answer.value
        if isinstance(answer, str) and not answer.strip():
            notes |= {Note.EMPTY}
        parse = self._queue.work.parse
        try:
            said = stored(answer)
        except RequestFailed as failure:
            return self._judge(item, failure, jitter)
        if parse is None:
            return Completed(said, None, tokens_in, tokens_out, notes)
        try:
            return Completed(parsed(parse, answer), said, tokens_in, tokens_out, notes)
        except RequestFailed as refusal:
            verdict = self._judge(item, refusal, jitter)
            return Discarded(verdict.failure, said, notes) if isinstance(verdict, Discarded) else verdict

    def _judge(self, item: Item, failure: RequestFailed, jitter: float) -> RetryLater | Discarded:
        self._throttle.spent(failure.tokens)
        refused = failure.kind is FailureKind.RATE_LIMITED
        attempt, alone = tries(failure.kind, item.failures), self._throttle.alone(item) if refused else 0
        verdict = judge(failure, attempt=attempt, policy=self._policy, jitter=jitter, alone=alone)
        if refused and isinstance(verdict, RetryLater):
            if alone == ALONE - 1:  # it may have had the bad luck of coming last to a full server each time
                self._queue.suspects.add(item.key)
            if len(self._queue.work.progress.servers) > 1:  # this endpoint is left alone; others may take the item
                return RetryLater(self._policy.backoff.delay(attempt, jitter), failure)
            return RetryLater(self._throttle.put_off(verdict.delay), failure)
        return verdict

    # -- what others want ---------------------------------------------------------------------------------------------

    async def _heed(self, changed: Callable[[], Awaitable[None]]) -> None:
        while True:
            await changed()
            self._start_workers()

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


def _failed(endpoint: str, item: Item, outcome: RetryLater | Discarded) -> AttemptFailed:
    failure, again = outcome.failure, isinstance(outcome, RetryLater)
    attempt = item.attempt - again  # the number of the coming one, where there is one
    retry_in = outcome.delay if isinstance(outcome, RetryLater) else None
    return AttemptFailed(endpoint, item.key, item.id, attempt, failure.kind, failure.status, failure.message, retry_in)


def _is_refused(settlement: Settlement) -> bool:
    outcome = settlement.outcome
    return not isinstance(outcome, Completed) and outcome.failure.kind is FailureKind.RATE_LIMITED
