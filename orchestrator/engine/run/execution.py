"""Execution: one run in one process, which asks in shifts of endpoints and then delivers."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
from anyio import to_thread

from orchestrator.domain.budget import NO_LIMIT, Budget, budgets_of
from orchestrator.domain.errors import (
    AskedToStop,
    CanaryEnded,
    Fenced,
    Held,
    OrchestratorError,
    PauseUnconfirmed,
    RunFailed,
    RunStopped,
    Snoozed,
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
from orchestrator.domain.lifetime import lifetime
from orchestrator.domain.moment import deadline_at
from orchestrator.domain.pace import Pace
from orchestrator.domain.run import Counts, RunState
from orchestrator.domain.waiting import WORTH_SAYING, Rest, Waiting
from orchestrator.engine.asking.breaker import BreakerTripped
from orchestrator.engine.asking.effort import Effort, Leave
from orchestrator.engine.asking.in_flight import InFlight
from orchestrator.engine.asking.leased_items import open_work_queue
from orchestrator.engine.asking.work_queue import RunContext, WorkQueue
from orchestrator.engine.awake.awake import Awake, awake
from orchestrator.engine.awake.budget_monitor import BudgetMonitor
from orchestrator.engine.awake.linger import is_wanted, linger
from orchestrator.engine.awake.sweep import Revive, Swept, sweep
from orchestrator.engine.awake.tenant import Tenant
from orchestrator.engine.rollouts.rollouts import open_rollouts
from orchestrator.engine.run.after_canary import AfterCanary
from orchestrator.engine.run.deliver import deliver_once, manifest_of
from orchestrator.engine.run.members import ask_members
from orchestrator.engine.run.readings import read_along
from orchestrator.engine.run.run_window import RunWindow
from orchestrator.engine.run.session import FRUITLESS_LOSSES, SessionCost
from orchestrator.engine.run.tail import leave_all, watch_tail
from orchestrator.engine.run.tuning import run_tuned_session
from orchestrator.engine.run.unsendable import discard_unsendable
from orchestrator.engine.tasks import task_group
from orchestrator.job import Weighted
from orchestrator.ports import AnsweredOtherwise, PricedByUse

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from anyio.abc import TaskGroup

    from orchestrator.domain.charges import UsePrice
    from orchestrator.domain.run import Run
    from orchestrator.engine.asking.canary import Canary
    from orchestrator.engine.asking.run_controls import RunControls
    from orchestrator.engine.awake.guarding import Guard
    from orchestrator.engine.events import Events
    from orchestrator.engine.progress import Presence
    from orchestrator.engine.rollouts.ask_queue import AskQueue
    from orchestrator.engine.run.run_request import RunRequest
    from orchestrator.engine.stop import Stop
    from orchestrator.ports import Endpoint
    from orchestrator.store import Store


_EARLY = 0.05  # seconds added to a wait, since timers may end slightly early


@dataclass(frozen=True, slots=True)
class Safety:
    """How endpoints are paused if this process or another one could not, and what they may cost.

    `guard` opens the guard process; `revive` makes an endpoint from what the ledger stores of it. `budget`: the daily
    limit for all endpoints of the ledger together.
    """

    guard: Guard
    revive: Revive
    budget: Budget = NO_LIMIT


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
        self._first = request.canary  # so many items are asked before all others
        self._only_canary = request.only_canary
        self._canary: Canary | None = None
        self._run = run
        self._process_id = process_id
        self._store = store
        self._events = events
        self._progress = events.progress
        self._stop = stop
        self._safety = safety
        self._controls = controls
        self._budget_monitor = BudgetMonitor(store, run, budgets_of(self._job.policy, safety.budget))
        self._after_canary = AfterCanary(
            run, self._job.policy, store, self._budget_monitor, events, ask=not request.only_canary
        )
        self._run_window = RunWindow(self._job.policy)
        self._out: dict[str, OrchestratorError] = {}  # endpoints that this run no longer uses, and why
        self._leave = Leave(self._job.policy.fallback_below)
        self._resting: dict[str, Rest] = {}  # endpoints that are not asked for a while
        self._pace = Pace(self._job.policy.requests_per_minute, self._job.policy.tokens_per_minute)
        self._session_costs: dict[str, SessionCost] = {}
        self._asks = 0  # of rollouts that were settled in the last shift
        self._finishing = anyio.Lock()
        self.manifest: Mapping[str, object] | None = None
        self.swept: list[Swept] = []

    @property
    def session_costs(self) -> list[SessionCost]:
        """The cost of each endpoint that bills."""
        return list(self._session_costs.values())

    @property
    def out(self) -> dict[str, str]:
        """Endpoints that were dropped before the run's end, and why."""
        return {name: str(failure) for name, failure in self._out.items()}

    async def sweep(self, spare: Collection[str] = ()) -> None:
        """Pay the debts of dead processes."""
        for swept in await sweep(self._store, self._safety.revive, self._process_id, spare=spare):
            self.swept.append(swept)
            self._events.emit(DebtSwept(swept.endpoint, swept.proof, swept.failure))

    async def work_off(self) -> None:
        """Settle all items; if there is nothing to do, no endpoint is woken."""
        await self._settle_items()
        if self._only_canary:
            raise CanaryEnded(f"only the canary was to be asked{self._progress.done}")
        await self.sweep()  # endpoints that were spared and not used

    async def _settle_items(self) -> None:
        counts = await self._counts()
        if counts.unfinished:
            await self._store.runs.reopen(self._run.id)
            self._events.emit(WorkBegan(counts))
            if self._first is None and (price := self._fallback_price(self._job.endpoints)) is not None:
                await leave_all(self._run, self._job, self._store, price, self._leave, self._events)
            await self._until_open()
        while counts.unfinished:
            await self._until_ready(counts)
            self._run_window.check()
            before, out, below = counts, len(self._out), self._leave.below
            counts = await self._shift(self._wanted(counts))
            if not counts.unfinished:
                break
            if self._stop.requested:
                raise self._stopped()
            self._run_window.check()
            if self._after_canary.too_expensive is not None:
                raise self._after_canary.too_expensive
            if self._canary is not None and self._canary.stopped:
                return
            if self._controls.held:
                await self._rest()
            elif not (
                self._asks
                or self._leave.below > below
                or len(self._out) > out
                or counts.settled > before.settled
                or await self._goes_on(counts)
            ):
                raise RunStopped(
                    f"{counts.unfinished:,} items are left that no endpoint asks; run the same command again"
                )

    def _wanted(self, counts: Counts) -> list[Weighted]:
        """Return the endpoints to ask now: all usable ones, or only the fallback if few items or no others are left.

        If none is left, or none of a route, raises the error for which the last one was dropped.
        """
        routes = [self._usable(route.endpoints) for route in self._job.routes]
        fallback = self._fallback
        if fallback is not None and (not routes[0] or counts.unfinished < self._leave.below):
            return [Weighted(fallback)]
        if not all(routes):
            *others, last = self._out.items()
            for name, failure in others:
                last[1].add_note(f"before it, {name}: {failure}")
            raise last[1]
        return [one for route in routes for one in route]

    @property
    def _fallback(self) -> Endpoint | None:
        """The job's fallback, unless it was dropped."""
        fallback = self._job.fallback
        return None if fallback is None or fallback.name in self._out else fallback

    async def _rest(self) -> None:
        """Wait until the run is released, or a stop is requested. A queued run waits in the queue."""
        if self._queued:
            raise Held(f"held; `orchestrator go {self._run.id}` lets it go on")
        self._events.emit(RunHeld(self._run.id))
        with self._stop.while_running():
            await self._controls.until(held=False)
        self._events.emit(RunReleased(self._run.id))

    async def _until_open(self) -> None:
        """Wait until the run's window opens, or a stop is requested. A queued run waits in the queue."""
        if self._queued:
            self._run_window.check()
        with self._stop.while_running():
            await self._run_window.opened(self._events)
        if self._stop.requested:
            raise self._stopped()

    async def _waiting(self, counts: Counts) -> Waiting | None:
        """Return what everything left waits for: all items, or all endpoints; None if something can be asked now.

        Rollouts wait if all endpoints of one route rest.
        """
        wanted, now = self._wanted(counts), time.monotonic()
        routes = [wanted] if self._job.rollout is None else [self._usable(one.endpoints) for one in self._job.routes]
        items = await self._store.views.waiting(self._run.id, time.time())
        rests = [rest for route in routes if (rest := self._rest_of(route, now)) is not None]
        first = min(rests, key=lambda rest: rest.until, default=None)
        if first is not None and (items is None or items.until < first.waiting.until):
            return replace(first.waiting, items=counts.unfinished, until=time.time() + first.until - now)
        return items

    def _rest_of(self, route: Sequence[Weighted], now: float) -> Rest | None:
        """Return the rest that ends first of equivalent endpoints that all rest; None if one of them does not."""
        rests = [self._resting.get(one.endpoint.name) for one in route]
        resting = [rest for rest in rests if rest is not None and rest.until > now]
        return min(resting, key=lambda rest: rest.until, default=None) if len(resting) == len(rests) else None

    async def _goes_on(self, counts: Counts) -> bool:
        """Whether the run waits for something after which more can be done, or did until just now."""
        now, rests = time.monotonic(), [self._resting.get(one.endpoint.name) for one in self._wanted(counts)]
        if any(rest is not None and rest.until <= now for rest in rests):
            return True
        return await self._waiting(counts) is not None

    async def _until_ready(self, counts: Counts) -> None:
        """Wait, with no endpoint awake, until something can be asked. A queued run waits in the queue."""
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
        """Ask these endpoints until all items are settled, all endpoints are dropped, or a stop is requested.

        Stops as well when the run is held, and at the end of the run's window, with the policy's grace.
        """
        stop, in_flight, job = self._stop.child(), InFlight(), self._job
        if self._first is not None and self._canary is None:
            self._canary = await self._after_canary.canary(self._first)
        work = RunContext(
            self._store,
            self._run.id,
            self._process_id,
            job.parse,
            job.policy,
            self._progress,
            stop,
            self._events,
            self._canary,
        )
        async with task_group() as watchers:
            watchers.start_soon(stop.drain_after, partial(self._controls.until, held=True))
            watchers.start_soon(stop.drain_after, self._run_window.closed, job.policy.grace)
            watchers.start_soon(self._budget_monitor.watch)
            async with read_along(work, in_flight):
                if job.rollout is None:
                    async with open_work_queue(work) as queue:
                        with stop.until_deadline():
                            if (price := self._fallback_price(wanted)) is not None:
                                watchers.start_soon(watch_tail, queue, price, self._leave)
                            await self._use_all(wanted, queue, in_flight)
                else:
                    await self._run_rollouts(work, in_flight)
            watchers.cancel_scope.cancel()
        return await self._counts()

    def _fallback_price(self, wanted: Sequence[Weighted]) -> UsePrice | None:
        """Return what the fallback charges for answers, if the rest may be left to it for its price."""
        fallback = self._fallback
        if fallback is None or not isinstance(fallback, PricedByUse) or any(fallback is one.endpoint for one in wanted):
            return None
        return fallback.use_price

    async def _run_rollouts(self, work: RunContext, in_flight: InFlight) -> None:
        """Run the job's rollouts, and use the endpoints of each route while something waits for them."""
        identity = await to_thread.run_sync(self._job.identity)
        async with open_rollouts(work, self._job, self._run.job_id, identity, in_flight) as rollouts:
            with work.stop.until_deadline():
                async with task_group() as uses:
                    for queue in rollouts.queues:
                        uses.start_soon(self._use_route, queue)
            self._asks = sum(queue.settled for queue in rollouts.queues)

    async def _use_route(self, queue: AskQueue) -> None:
        """Use the endpoints of a route whenever an ask waits for them; without them, the whole run ends."""
        while await queue.wanted():
            settled, out = queue.settled, len(self._out)
            usable = self._usable(queue.route.endpoints)
            await self._use_all(usable, queue, queue.in_flight)
            queue.leave()
            if not self._usable(queue.route.endpoints):
                queue.work.stop.drain(queue.work.policy.grace)
            elif queue.settled == settled and len(self._out) == out:
                break
        queue.end()

    def _usable(self, endpoints: Sequence[Weighted]) -> list[Weighted]:
        return [one for one in endpoints if one.endpoint.name not in self._out]

    async def _use_all(self, wanted: Sequence[Weighted], queue: WorkQueue, in_flight: InFlight) -> None:
        """Use these endpoints until the queue has nothing for them."""
        if await self._is_anything_sendable(wanted, queue, in_flight):
            async with task_group() as uses:
                for one in wanted:
                    uses.start_soon(self._use_with_rests, one, queue, in_flight)

    async def _is_anything_sendable(self, wanted: Sequence[Weighted], queue: WorkQueue, in_flight: InFlight) -> bool:
        """Whether there is something to wake these endpoints for. Discards what none of them can be sent."""
        try:
            await discard_unsendable(queue, [one.endpoint for one in wanted], in_flight)
        except BreakerTripped as tripped:
            for one in wanted:
                self._drop(one.endpoint, tripped)
            return False
        return not queue.finished

    async def _use_with_rests(self, weighted: Weighted, queue: WorkQueue, in_flight: InFlight) -> None:
        """Use one endpoint, with rests between, as long as other endpoints work."""
        name = weighted.endpoint.name
        while name not in self._out:
            if (rest := self._resting.get(name)) is not None and not await self._rested(name, rest, queue, in_flight):
                return
            await self._use(weighted, queue, in_flight)
            if self._resting.get(name) in {None, rest}:
                return

    async def _rested(self, name: str, rest: Rest, queue: WorkQueue, in_flight: InFlight) -> bool:
        """Return when it is time to wake the endpoint again; False if no other works any more, or nothing is left."""
        self._events.emit(WaitBegan.of(rest.waiting, name))
        await anyio.lowlevel.checkpoint()  # let other endpoints begin
        while (left := rest.until - time.monotonic()) > 0:
            if queue.work.stop.requested or queue.finished or not (self._progress.present or len(in_flight.whole)):
                return False
            with queue.work.stop.while_running(), anyio.move_on_after(left):
                await queue.changed()
        return True

    async def _use(self, weighted: Weighted, queue: WorkQueue, in_flight: InFlight) -> None:
        """Wake, ask and pause one endpoint. Its failure does not affect the others."""
        endpoint = weighted.endpoint
        try:
            async with task_group() as delivering:
                await self._use_awake(weighted, queue, in_flight, delivering)
        except (Fenced, PauseUnconfirmed):
            raise  # not about one endpoint, and more serious than any other failure
        except (RunFailed, RunStopped) as failure:
            self._drop(endpoint, failure)

    def _drop(self, endpoint: Endpoint, failure: OrchestratorError) -> None:
        """Stop using this endpoint in this run."""
        self._out[endpoint.name] = failure
        self._events.emit(EndpointDropped(endpoint.name, str(failure)))

    async def _use_awake(
        self, weighted: Weighted, queue: WorkQueue, in_flight: InFlight, delivering: TaskGroup
    ) -> None:
        """Wake, ask and pause; if the endpoint is kept awake for a next run, deliver meanwhile."""
        store, endpoint = self._store, await self._as_answered(weighted.endpoint)
        guard, name = self._safety.guard, self._job.name
        tenant = Tenant(
            store, self._process_id, self._events, guard, self._run.id, name, self._budget_monitor, self._lifetime
        )
        opened: Awake | None = None
        self._events.emit(SessionBegan(endpoint.name))
        presence = self._progress.presence_of(endpoint.name)
        try:
            async with awake(endpoint, tenant) as opened:
                self._rest_until(await self._ask(opened, weighted, presence, queue, in_flight), presence)
                coming = partial(store.queue.coming, endpoint.name, self._run.id)
                if queue.finished and not queue.work.stop.requested and await is_wanted(opened, coming):
                    delivered = anyio.Event()
                    delivering.start_soon(self._finish_meanwhile, delivered)
                    await linger(opened, queue.work.stop, coming, delivered)
        finally:
            self._events.emit(
                SessionEnded(endpoint.name, None if opened is None or opened.terms is None else opened.proof)
            )
            queue.notify()  # for endpoints that rest as long as others work
            if opened is not None and opened.terms is not None:
                before = self._session_costs.get(endpoint.name)
                now = SessionCost(endpoint.name, opened.spent, opened.price_per_hour, opened.proof, opened.billed)
                self._session_costs[endpoint.name] = now if before is None else before.then(now)

    async def _lifetime(self) -> float:
        """Return the most seconds for which a server that is started now can be needed."""
        deadline, declared = self._run.deadline, self._job.policy.deadline
        if deadline is None and declared is not None:
            deadline = deadline_at(declared, self._run.created_at)
        return lifetime(
            budget_left=await self._budget_monitor.left(),
            closes_in=self._run_window.closes_in(),
            deadline_in=inf if deadline is None else deadline - time.time(),
        )

    async def _as_answered(self, endpoint: Endpoint) -> Endpoint:
        """Return the endpoint, answering in the shape of this job's earlier answers: one job has one shape."""
        if not isinstance(endpoint, AnsweredOtherwise) or (beginning := endpoint.earlier_beginning) is None:
            return endpoint
        earlier = await self._store.answers.any_begins(self._run.job_id, beginning)
        return endpoint.as_earlier() if earlier else endpoint

    def _rest_until(self, waiting: Waiting | None, presence: Presence) -> None:
        """Let the endpoint rest until then. Raises `Snoozed` if it was woken too often with nothing done."""
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
        self, opened: Awake, weighted: Weighted, presence: Presence, queue: WorkQueue, in_flight: InFlight
    ) -> Waiting | None:
        """Ask all members of one endpoint."""
        stop = queue.work.stop.child()
        effort = Effort(
            presence,
            self._controls,
            stop,
            weight=weighted.weight,
            leave=self._leave if self._fallback not in (None, weighted.endpoint) else Leave(),
            pace=self._pace,
            use_price=weighted.endpoint.use_price if isinstance(weighted.endpoint, PricedByUse) else None,
        )
        ask = partial(run_tuned_session, self._run, opened, queue, in_flight, effort)
        return await ask_members(opened, queue, in_flight, effort, ask, self._out)

    async def _finish_meanwhile(self, delivered: anyio.Event) -> None:
        await self.finish()
        delivered.set()

    async def finish(self) -> None:
        """Mark the run as finished and deliver it, once."""
        async with self._finishing:
            if self.manifest is not None:
                return
            await self._store.runs.end(self._run.id, self._process_id, RunState.FINISHED)
            run = await self._store.runs.find(str(self._run.id))
            self._events.emit(DeliveryBegan(run.output))
            sink, stamp = self._job.sink, None
            if sink is None:
                self.manifest = await manifest_of(run, self._store)
            elif run.output is None:
                self.manifest = {}
            else:
                self.manifest, stamp = await deliver_once(run, self._store, sink)
            if self._job.incremental:
                await self._store.delivered_items.add(run)
            await self._store.runs.delivered(self._run.id, self._process_id, stamp)
            self._events.emit(Delivered(run.output))

    async def _counts(self) -> Counts:
        total = (await self._store.runs.find(str(self._run.id))).total
        return await self._store.views.counts(self._run.id, total)
