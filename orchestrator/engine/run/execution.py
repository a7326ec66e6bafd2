"""Execution: one run in one process: shifts of endpoints that are woken, asked and paused; then the delivery."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from orchestrator.domain.budget import NO_LIMIT, Budget, budgets_of
from orchestrator.domain.errors import (
    AskedToStop,
    Fenced,
    Held,
    OrchestratorError,
    PauseUnconfirmed,
    RunFailed,
    RunStopped,
    Snoozed,
    UsageError,
)
from orchestrator.domain.events import (
    DebtSwept,
    Delivered,
    DeliveryBegan,
    EndpointDropped,
    RunHeld,
    RunReleased,
    SessionBegan,
    SessionEnded,
    WaitBegan,
    WaitEnded,
    WorkBegan,
)
from orchestrator.domain.limiter import Limiter
from orchestrator.domain.pace import Pace
from orchestrator.domain.run import Counts, RunState
from orchestrator.domain.sizing import Sizer
from orchestrator.domain.waiting import WORTH_SAYING, Rest, Waiting
from orchestrator.engine.asking.breaker import BreakerTripped
from orchestrator.engine.asking.effort import Effort
from orchestrator.engine.asking.in_flight import InFlight
from orchestrator.engine.asking.machine import Machine
from orchestrator.engine.asking.outage import Outage
from orchestrator.engine.asking.work_queue import RunContext, WorkQueue, open_work_queue
from orchestrator.engine.awake.awake import Awake, Tenant, awake
from orchestrator.engine.awake.budget_monitor import BudgetMonitor
from orchestrator.engine.awake.sweep import Revive, Swept, sweep
from orchestrator.engine.run.deliver import deliver
from orchestrator.engine.run.members import ask_members
from orchestrator.engine.run.readings import read_along
from orchestrator.engine.run.run_window import RunWindow
from orchestrator.engine.run.session import FRUITLESS_LOSSES, SessionCost, run_session
from orchestrator.engine.run.unsendable import discard_unsendable
from orchestrator.engine.tasks import task_group
from orchestrator.job import Weighted
from orchestrator.ports import AnsweredOtherwise
from orchestrator.store.runs import Tuned

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from anyio.abc import TaskGroup

    from orchestrator.domain.run import Run
    from orchestrator.engine.asking.run_controls import RunControls
    from orchestrator.engine.awake.guarding import Guard
    from orchestrator.engine.events import Events
    from orchestrator.engine.progress import Presence
    from orchestrator.engine.run.run_request import RunRequest
    from orchestrator.engine.stop import Stop
    from orchestrator.job import Job
    from orchestrator.ports import Endpoint
    from orchestrator.store import Store


_EARLY = 0.05  # seconds: by less than that, timers are over too early


@dataclass(frozen=True, slots=True)
class Safety:
    """What pauses endpoints when this process cannot, or when another one could not; and what they may cost.

    `guard` opens the guard process; `revive` makes an endpoint of what the ledger keeps of it. `budget`: what all
    endpoints of the ledger may be awake in a day.
    """

    guard: Guard
    revive: Revive
    budget: Budget = NO_LIMIT


def _unknown(fields: Mapping[str, object]) -> Endpoint:
    raise RunStopped(f"this process does not know endpoints of kind {fields.get('kind')!r}")


UNGUARDED = Safety(nullcontext, _unknown)  # for tests: nothing pauses what this process leaves awake when it dies


class Execution:
    """One run in this process."""

    def __init__(
        self,
        request: RunRequest,
        run: Run,
        process_id: int,
        store: Store,
        events: Events,
        stop: Stop,
        safety: Safety,
        controls: RunControls,
    ) -> None:
        self._job = request.job
        self._queued = request.claim is not None
        self._run = run
        self._process_id = process_id
        self._store = store
        self._events = events
        self._progress = events.progress
        self._stop = stop
        self._safety = safety
        self._orders = controls
        self._allowance = BudgetMonitor(store, run, budgets_of(self._job.policy, safety.budget))
        self._opening = RunWindow(self._job.policy)
        self._out: dict[str, OrchestratorError] = {}  # endpoints that are of no more use to this run, and why
        self._resting: dict[str, Rest] = {}  # endpoints that are not to be asked for a while
        self._pace = Pace(self._job.policy.requests_per_minute, self._job.policy.tokens_per_minute)
        self._stays: dict[str, SessionCost] = {}
        self._finishing = anyio.Lock()
        self.manifest: Mapping[str, object] | None = None
        self.swept: list[Swept] = []

    @property
    def session_costs(self) -> list[SessionCost]:
        """What the use of each endpoint that bills came to."""
        return list(self._stays.values())

    @property
    def out(self) -> dict[str, str]:
        """Endpoints that were of no more use before the run's end, and why."""
        return {name: str(failure) for name, failure in self._out.items()}

    async def sweep(self, spare: Collection[str] = ()) -> None:
        """Pay the debts of dead processes."""
        for swept in await sweep(self._store, self._safety.revive, self._process_id, spare=spare):
            self.swept.append(swept)
            self._events.emit(DebtSwept(swept.endpoint, swept.proof, swept.failure))

    async def work_off(self) -> None:
        """Settle everything; with nothing to do, nobody is woken."""
        counts = await self._counts()
        if counts.unfinished:
            await self._store.runs.reopen(self._run.id)
            self._events.emit(WorkBegan(counts))
            await self._until_it_opens()
        while counts.unfinished:
            await self._until_ready(counts)
            self._opening.check()
            before, out = counts, len(self._out)
            counts = await self._shift(self._wanted(counts))
            if not counts.unfinished:
                break
            if self._stop.requested:
                raise self._stopped()
            self._opening.check()
            if self._orders.held:
                await self._rest()
            elif counts.settled == before.settled and len(self._out) == out and not await self._goes_on(counts):
                raise RunStopped(f"{counts.unfinished:,} items are left that nobody asks; run the same command again")
        await self.sweep()  # whoever was spared and not used

    def _wanted(self, counts: Counts) -> list[Weighted]:
        """Who is to be asked now: all that are of use; the fallback alone where little is left, or nobody else.

        Raises why the last one is of no more use, where none is left.
        """
        main = [one for one in self._job.endpoints if one.endpoint.name not in self._out]
        fallback = self._fallback
        if fallback is not None and (not main or counts.unfinished < self._job.policy.fallback_below):
            return [Weighted(fallback)]
        if not main:
            *others, last = self._out.items()
            for name, failure in others:
                last[1].add_note(f"before it, {name}: {failure}")
            raise last[1]
        return main

    @property
    def _fallback(self) -> Endpoint | None:
        """The job's fallback, as long as it is of use."""
        fallback = self._job.fallback
        return None if fallback is None or fallback.name in self._out else fallback

    async def _rest(self) -> None:
        """Wait until whoever holds the run lets it go on, or until it is stopped. A queued one waits in the queue."""
        if self._queued:
            raise Held(f"held; `orchestrator go {self._run.id}` lets it go on")
        self._events.emit(RunHeld(self._run.id))
        with self._stop.while_running():
            await self._orders.until(held=False)
        self._events.emit(RunReleased(self._run.id))

    async def _until_it_opens(self) -> None:
        """Wait for the run's window to open, or for being stopped. A queued run waits in the queue."""
        if self._queued:
            self._opening.check()
        with self._stop.while_running():
            await self._opening.opened(self._events)
        if self._stop.requested:
            raise self._stopped()

    async def _waiting(self, counts: Counts) -> Waiting | None:
        """What all that is left waits for: every item, or every endpoint that may be asked; None where one may now."""
        wanted = [one.endpoint.name for one in self._wanted(counts)]
        items = await self._store.views.waiting(self._run.id, time.time())
        now = time.monotonic()
        rests = [rest for name in wanted if (rest := self._resting.get(name)) is not None and rest.until > now]
        first = min(rests, key=lambda rest: rest.until) if len(rests) == len(wanted) else None
        if first is not None and (items is None or items.until < first.waiting.until):
            return replace(first.waiting, items=counts.unfinished, until=time.time() + first.until - now)
        return items

    async def _goes_on(self, counts: Counts) -> bool:
        """Whether something is waited for, after which more can be done; or was, until just now."""
        now, rests = time.monotonic(), [self._resting.get(one.endpoint.name) for one in self._wanted(counts)]
        if any(rest is not None and rest.until <= now for rest in rests):
            return True
        return await self._waiting(counts) is not None

    async def _until_ready(self, counts: Counts) -> None:
        """Wait, with nothing awake, until something can be asked. A queued run waits in the queue."""
        waiting = await self._waiting(counts)
        if waiting is None:
            return
        if self._queued and waiting.until - time.time() >= WORTH_SAYING:
            fruitless = not (self._progress.completed or self._progress.discarded)
            raise Snoozed(str(waiting), waiting.until, fruitless=fruitless)
        self._events.emit(WaitBegan.of(waiting))
        await self._stop.sleep(max(0.0, waiting.until - time.time() + _EARLY))
        self._events.emit(WaitEnded())
        if self._stop.requested:
            raise self._stopped(f", {waiting}")

    def _stopped(self, waiting: str = "") -> AskedToStop:
        done = self._progress.done
        return AskedToStop(f"stopped as asked{done}{waiting}; run the same command again to continue")

    async def _shift(self, wanted: Sequence[Weighted]) -> Counts:
        """Have these endpoints asked until everything is settled, or none is of use, or it is to stop.

        It also stops when somebody holds the run, and at the end of the run's window, with the policy's grace.
        """
        stop, in_flight, job = self._stop.child(), InFlight(), self._job
        work = RunContext(
            self._store, self._run.id, self._process_id, job.parse, job.policy, self._progress, stop, self._events
        )
        async with task_group() as watchers:
            watchers.start_soon(stop.drain_after, partial(self._orders.until, held=True))
            watchers.start_soon(stop.drain_after, self._opening.closed, job.policy.grace)
            watchers.start_soon(self._allowance.watch)
            async with read_along(work, in_flight), open_work_queue(work) as queue:
                with stop.until_deadline():
                    if await self._is_anything_sendable(wanted, queue):
                        async with task_group() as session_costs:
                            for one in wanted:
                                session_costs.start_soon(self._stay_at, one, queue, in_flight)
            watchers.cancel_scope.cancel()
        return await self._counts()

    async def _is_anything_sendable(self, wanted: Sequence[Weighted], queue: WorkQueue) -> bool:
        """Whether there is something to wake these endpoints for. What none of them can be sent is discarded."""
        try:
            await discard_unsendable(queue, [one.endpoint for one in wanted])
        except BreakerTripped as tripped:
            for one in wanted:
                self._drop(one.endpoint, tripped)
            return False
        return not queue.finished

    async def _stay_at(self, one: Weighted, queue: WorkQueue, in_flight: InFlight) -> None:
        """Use one endpoint, with rests, as long as others work meanwhile."""
        name = one.endpoint.name
        while name not in self._out:
            if (rest := self._resting.get(name)) is not None and not await self._rested(name, rest, queue, in_flight):
                return
            await self._use(one, queue, in_flight)
            if self._resting.get(name) in {None, rest}:
                return

    async def _rested(self, name: str, rest: Rest, queue: WorkQueue, in_flight: InFlight) -> bool:
        """Return when it is time to wake the endpoint again; False where nobody works any more, or nothing is left."""
        self._events.emit(WaitBegan.of(rest.waiting, name))
        await anyio.lowlevel.checkpoint()  # others begin, too
        while (left := rest.until - time.monotonic()) > 0:
            if queue.work.stop.requested or queue.finished or not (self._progress.present or len(in_flight)):
                return False
            with queue.work.stop.while_running(), anyio.move_on_after(left):
                await queue.changed()
        return True

    async def _use(self, one: Weighted, queue: WorkQueue, in_flight: InFlight) -> None:
        """Wake, ask, pause. What goes wrong with one endpoint is no reason to leave the others."""
        endpoint = one.endpoint
        try:
            async with task_group() as delivering:
                await self._lend(one, queue, in_flight, delivering)
        except (Fenced, PauseUnconfirmed):
            raise  # no endpoint's affair, and worse news than anything else
        except (RunFailed, RunStopped) as failure:
            self._drop(endpoint, failure)

    def _drop(self, endpoint: Endpoint, failure: OrchestratorError) -> None:
        """The endpoint is of no more use to this run."""
        self._out[endpoint.name] = failure
        self._events.emit(EndpointDropped(endpoint.name, str(failure)))

    async def _lend(self, one: Weighted, queue: WorkQueue, in_flight: InFlight, delivering: TaskGroup) -> None:
        """Wake, ask, pause; where the endpoint is kept awake for a next run, everything is delivered meanwhile."""
        store, endpoint = self._store, await self._as_answered(one.endpoint)
        guard, name = self._safety.guard, self._job.name
        tenant = Tenant(store, self._process_id, self._events, guard, self._run.id, name, self._allowance)
        lent: Awake | None = None
        self._events.emit(SessionBegan(endpoint.name))
        presence = self._progress.presence_of(endpoint.name)
        try:
            async with awake(endpoint, tenant) as lent:
                self._rest_until(await self._ask(lent, one, presence, queue, in_flight), presence)
                coming = partial(store.queue.coming, endpoint.name, self._run.id)
                if queue.finished and not queue.work.stop.requested and await lent.is_wanted(coming):
                    delivered = anyio.Event()
                    delivering.start_soon(self._finish_meanwhile, delivered)
                    await lent.linger(queue.work.stop, coming, delivered)
        finally:
            self._events.emit(SessionEnded(endpoint.name, None if lent is None or lent.terms is None else lent.proof))
            queue.notify()  # to those that rest as long as others work
            if lent is not None and lent.terms is not None:
                before = self._stays.get(endpoint.name)
                spent = lent.spent if before is None else lent.spent + before.spent
                self._stays[endpoint.name] = SessionCost(endpoint.name, spent, lent.price_per_hour, lent.proof)

    async def _as_answered(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint, with answers of the shape that this job's have: one job, one shape."""
        if not isinstance(endpoint, AnsweredOtherwise) or (beginning := endpoint.earlier_beginning) is None:
            return endpoint
        earlier = await self._store.answers.any_begins(self._run.job_id, beginning)
        return endpoint.as_earlier() if earlier else endpoint

    def _rest_until(self, waiting: Waiting | None, presence: Presence) -> None:
        """Leave the endpoint alone until then. `NotAwake` where it was woken too often without anything done."""
        before = self._resting.pop(presence.name, None)
        if waiting is None:
            return
        fruitless = 0 if presence.settled else 1 + (before.fruitless if before is not None else 0)
        if fruitless >= FRUITLESS_LOSSES:
            raise Snoozed(
                f"endpoint {presence.name} was woken {fruitless} times in a row with nothing done: {waiting}; "
                "run the same command again then",
                waiting.until,
                fruitless=True,
            )
        self._resting[presence.name] = Rest(time.monotonic() + waiting.until - time.time(), waiting, fruitless)

    async def _ask(
        self, lent: Awake, one: Weighted, presence: Presence, queue: WorkQueue, in_flight: InFlight
    ) -> Waiting | None:
        """Ask all members of one endpoint."""
        below = self._job.policy.fallback_below if self._fallback not in (None, one.endpoint) else 0
        stop = queue.work.stop.child()
        effort = Effort(presence, self._orders, stop, weight=one.weight, leave_below=below, pace=self._pace)
        ask = partial(self._session, lent, queue, in_flight, effort)
        return await ask_members(lent, queue, in_flight, effort, ask, self._out)

    async def _session(
        self, endpoint: Awake, queue: WorkQueue, in_flight: InFlight, effort: Effort, member: Awake
    ) -> Waiting | None:
        """Ask one member, as many requests and items at once as were best the last time, or as is found best now."""
        policy, shape = self._job.policy, _shape(self._job, self._run, endpoint, member)
        tuned = await self._store.runs.tuned(shape)
        limiter = sizer = None
        if policy.concurrency == "auto":
            known = tuned.concurrency
            limiter = Limiter() if known is None else Limiter(known, remembered=True)
        if policy.batch_size not in {None, 1}:
            given = None if policy.batch_size == "auto" else policy.batch_size
            sizer = Sizer(tuned.batch_size or given)
        presence, stop = self._progress.presence_of(member.name), effort.stop.child()
        effort = replace(effort, presence=presence, stop=stop, limiter=limiter, sizer=sizer)
        effort = replace(effort, machine=Machine(), outage=Outage())
        waiting = await run_session(member, queue, in_flight, effort)
        found = Tuned(
            None if limiter is None else limiter.best, sizer.size if sizer is not None and sizer.settled else None
        )
        await self._store.runs.remember(shape, found)
        return waiting

    async def _finish_meanwhile(self, delivered: anyio.Event) -> None:
        await self.finish()
        delivered.set()

    async def finish(self) -> None:
        """Everything is settled: say so and deliver, once."""
        async with self._finishing:
            if self.manifest is not None:
                return
            await self._store.runs.end(self._run.id, self._process_id, RunState.FINISHED)
            run = await self._store.runs.find(str(self._run.id))
            self._events.emit(DeliveryBegan(run.output))
            if run.output is None:
                self.manifest = {}
            else:
                try:
                    self.manifest = await deliver(run, self._store, self._job.sink)
                except UsageError as error:
                    elsewhere = (
                        f"all answers are kept, and `orchestrator export {run.id} -o FILE` writes them elsewhere"
                    )
                    raise UsageError(f"{error}; {elsewhere}") from error
            if self._job.incremental:
                await self._store.delivered_items.add(run)
            await self._store.runs.delivered(self._run.id, self._process_id)
            self._events.emit(Delivered(run.output))

    async def _counts(self) -> Counts:
        total = (await self._store.runs.find(str(self._run.id))).total
        return await self._store.views.counts(self._run.id, total)


def _shape(job: Job, run: Run, endpoint: Awake, member: Awake) -> str:
    """What the best numbers of requests and items at once depend on: the endpoint, and what shapes its answers.

    They are those of one member, whichever it is.
    """
    about = [endpoint.name, run.spec.about.get("identity"), job.policy.batch_size]
    about += [] if member is endpoint else ["member"]
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()
