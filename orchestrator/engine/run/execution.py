"""Execution: one run in one process, which asks in shifts of endpoints and then delivers."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
from anyio import to_thread

from orchestrator.domain.budget import NO_LIMIT, Budget, budgets_of
from orchestrator.domain.errors import (
    AskedToStop,
    CanaryEnded,
    Held,
    RunStopped,
    Snoozed,
)
from orchestrator.domain.events import (
    DebtSwept,
    Delivered,
    DeliveryBegan,
    RunHeld,
    RunReleased,
    WaitBegan,
    WaitEnded,
    WorkBegan,
)
from orchestrator.domain.run import Counts, RunState
from orchestrator.domain.waiting import WORTH_SAYING, Waiting
from orchestrator.engine.asking.in_flight import InFlight
from orchestrator.engine.asking.leased_items import open_work_queue
from orchestrator.engine.asking.work_queue import RunContext
from orchestrator.engine.awake.budget_monitor import BudgetMonitor
from orchestrator.engine.awake.sweep import Revive, Swept, sweep
from orchestrator.engine.rollouts.rollouts import open_rollouts
from orchestrator.engine.run.after_canary import AfterCanary
from orchestrator.engine.run.deliver import deliver_once, manifest_of
from orchestrator.engine.run.endpoint_uses import EndpointUses
from orchestrator.engine.run.readings import read_along
from orchestrator.engine.run.run_window import RunWindow
from orchestrator.engine.run.tail import leave_all, watch_tail
from orchestrator.engine.tasks import task_group
from orchestrator.job import Weighted
from orchestrator.ports import PricedByUse

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from orchestrator.domain.charges import UsePrice
    from orchestrator.domain.run import Run
    from orchestrator.engine.asking.canary import Canary
    from orchestrator.engine.asking.run_controls import RunControls
    from orchestrator.engine.awake.guarding import Guard
    from orchestrator.engine.events import Events
    from orchestrator.engine.run.run_request import RunRequest
    from orchestrator.engine.run.session import SessionCost
    from orchestrator.engine.stop import Stop
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
            run, self._job, store, self._budget_monitor, events, ask=not request.only_canary
        )
        self._run_window = RunWindow(self._job.policy)
        self._uses = EndpointUses(
            job=self._job,
            run=run,
            process_id=process_id,
            store=store,
            events=events,
            guard=safety.guard,
            controls=controls,
            budget_monitor=self._budget_monitor,
            run_window=self._run_window,
            finish=self.finish,
        )
        self._asks = 0  # of rollouts that were settled in the last shift
        self._finishing = anyio.Lock()
        self.manifest: Mapping[str, object] | None = None
        self.swept: list[Swept] = []

    @property
    def session_costs(self) -> list[SessionCost]:
        """The cost of each endpoint that bills."""
        return list(self._uses.session_costs.values())

    @property
    def out(self) -> dict[str, str]:
        """Endpoints that were dropped before the run's end, and why."""
        return {name: str(failure) for name, failure in self._uses.out.items()}

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
                await leave_all(self._run, self._job, self._store, price, self._uses.leave, self._events)
            await self._until_open()
        while counts.unfinished:
            await self._until_ready(counts)
            self._run_window.check()
            before, out, below = counts, len(self._uses.out), self._uses.leave.below
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
                or self._uses.leave.below > below
                or len(self._uses.out) > out
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
        routes = [self._uses.usable(route.endpoints) for route in self._job.routes]
        fallback = self._uses.fallback
        if fallback is not None and (not routes[0] or counts.unfinished < self._uses.leave.below):
            return [Weighted(fallback)]
        if not all(routes):
            *others, last = self._uses.out.items()
            for name, failure in others:
                last[1].add_note(f"before it, {name}: {failure}")
            raise last[1]
        return [one for route in routes for one in route]

    async def _rest(self) -> None:
        """Wait until the run is released, or a stop is requested. A queued run waits in the queue."""
        if self._queued:
            raise Held("it was held")
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
        wanted, now, uses = self._wanted(counts), time.monotonic(), self._uses
        routes = [wanted] if self._job.rollout is None else [uses.usable(one.endpoints) for one in self._job.routes]
        items = await self._store.views.waiting(self._run.id, time.time())
        rests = [rest for route in routes if (rest := uses.rest_of(route, now)) is not None]
        first = min(rests, key=lambda rest: rest.until, default=None)
        if first is not None and (items is None or items.until < first.waiting.until):
            return replace(first.waiting, items=counts.unfinished, until=time.time() + first.until - now)
        return items

    async def _goes_on(self, counts: Counts) -> bool:
        """Whether the run waits for something after which more can be done, or did until just now."""
        now, rests = time.monotonic(), [self._uses.resting.get(one.endpoint.name) for one in self._wanted(counts)]
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
                                watchers.start_soon(watch_tail, queue, price, self._uses.leave)
                            await self._uses.use_all(wanted, queue, in_flight)
                else:
                    await self._run_rollouts(work, in_flight)
            watchers.cancel_scope.cancel()
        return await self._counts()

    def _fallback_price(self, wanted: Sequence[Weighted]) -> UsePrice | None:
        """Return what the fallback charges for answers, if the rest may be left to it for its price."""
        fallback = self._uses.fallback
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
                        uses.start_soon(self._uses.use_route, queue)
            self._asks = sum(queue.settled for queue in rollouts.queues)

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
