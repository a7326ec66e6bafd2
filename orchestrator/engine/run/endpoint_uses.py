"""Endpoint uses: how a run uses its endpoints. Each is woken, asked, paused, rests while others work, or is dropped."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from orchestrator.domain.errors import (
    Fenced,
    OrchestratorError,
    PauseUnconfirmed,
    RunFailed,
    RunStopped,
    Snoozed,
)
from orchestrator.domain.events import EndpointDropped, SessionBegan, SessionEnded, WaitBegan
from orchestrator.domain.lifetime import lifetime
from orchestrator.domain.moment import deadline_at
from orchestrator.domain.pace import Pace
from orchestrator.domain.waiting import Rest, Waiting
from orchestrator.engine.asking.breaker import BreakerTripped
from orchestrator.engine.asking.effort import Effort, Leave
from orchestrator.engine.awake.awake import Awake, awake
from orchestrator.engine.awake.linger import is_wanted, linger
from orchestrator.engine.awake.tenant import Tenant
from orchestrator.engine.run.members import ask_members
from orchestrator.engine.run.session import FRUITLESS_LOSSES, SessionCost
from orchestrator.engine.run.tuning import run_tuned_session
from orchestrator.engine.run.unsendable import discard_unsendable
from orchestrator.engine.tasks import task_group
from orchestrator.ports import AnsweredOtherwise, PricedByUse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from anyio.abc import TaskGroup

    from orchestrator.domain.run import Run
    from orchestrator.engine.asking.in_flight import InFlight
    from orchestrator.engine.asking.run_controls import RunControls
    from orchestrator.engine.asking.work_queue import WorkQueue
    from orchestrator.engine.awake.budget_monitor import BudgetMonitor
    from orchestrator.engine.awake.guarding import Guard
    from orchestrator.engine.events import Events
    from orchestrator.engine.progress import Presence
    from orchestrator.engine.rollouts.ask_queue import AskQueue
    from orchestrator.engine.run.run_window import RunWindow
    from orchestrator.job import Job, Weighted
    from orchestrator.ports import Endpoint
    from orchestrator.store import Store


@dataclass(eq=False)
class EndpointUses:
    """The use of all endpoints of one run in this process. `finish` ends and delivers the run.

    `out`: endpoints that the run no longer uses, and why. `resting`: those that are not asked for a while. `leave`: how
    many of the last items are left to the fallback. `session_costs`: of endpoints that bill.
    """

    job: Job
    run: Run
    process_id: int
    store: Store
    events: Events
    guard: Guard
    controls: RunControls
    budget_monitor: BudgetMonitor
    run_window: RunWindow
    finish: Callable[[], Awaitable[None]]
    out: dict[str, OrchestratorError] = field(default_factory=dict)
    resting: dict[str, Rest] = field(default_factory=dict)
    session_costs: dict[str, SessionCost] = field(default_factory=dict)
    leave: Leave = field(init=False)
    pace: Pace = field(init=False)

    def __post_init__(self) -> None:
        policy = self.job.policy
        self.leave = Leave(policy.fallback_below)
        self.pace = Pace(policy.requests_per_minute, policy.tokens_per_minute)

    @property
    def fallback(self) -> Endpoint | None:
        """The job's fallback, unless it was dropped."""
        fallback = self.job.fallback
        return None if fallback is None or fallback.name in self.out else fallback

    def rest_of(self, route: Sequence[Weighted], now: float) -> Rest | None:
        """Return the rest that ends first of equivalent endpoints that all rest; None if one of them does not."""
        rests = [self.resting.get(one.endpoint.name) for one in route]
        resting = [rest for rest in rests if rest is not None and rest.until > now]
        return min(resting, key=lambda rest: rest.until, default=None) if len(resting) == len(rests) else None

    async def use_route(self, queue: AskQueue) -> None:
        """Use the endpoints of a route whenever an ask waits for them; without them, the whole run ends."""
        while await queue.wanted():
            settled, out = queue.settled, len(self.out)
            usable = self.usable(queue.route.endpoints)
            await self.use_all(usable, queue, queue.in_flight)
            queue.leave()
            if not self.usable(queue.route.endpoints):
                queue.work.stop.drain(queue.work.policy.grace)
            elif queue.settled == settled and len(self.out) == out:
                break
        queue.end()

    def usable(self, endpoints: Sequence[Weighted]) -> list[Weighted]:
        """Return those of the endpoints that were not dropped."""
        return [one for one in endpoints if one.endpoint.name not in self.out]

    async def use_all(self, wanted: Sequence[Weighted], queue: WorkQueue, in_flight: InFlight) -> None:
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
        while name not in self.out:
            if (rest := self.resting.get(name)) is not None and not await self._rested(name, rest, queue, in_flight):
                return
            await self._use(weighted, queue, in_flight)
            if self.resting.get(name) in {None, rest}:
                return

    async def _rested(self, name: str, rest: Rest, queue: WorkQueue, in_flight: InFlight) -> bool:
        """Return when it is time to wake the endpoint again; False if no other works any more, or nothing is left."""
        self.events.emit(WaitBegan.of(rest.waiting, name))
        await anyio.lowlevel.checkpoint()  # let other endpoints begin
        stop, present = queue.work.stop, self.events.progress.present
        while (left := rest.until - time.monotonic()) > 0:
            if stop.requested or queue.finished or not (present or len(in_flight.whole)):
                return False
            with stop.while_running(), anyio.move_on_after(left):
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
        self.out[endpoint.name] = failure
        self.events.emit(EndpointDropped(endpoint.name, str(failure)))

    async def _use_awake(
        self, weighted: Weighted, queue: WorkQueue, in_flight: InFlight, delivering: TaskGroup
    ) -> None:
        """Wake, ask and pause; if the endpoint is kept awake for a next run, deliver meanwhile."""
        store, endpoint = self.store, await self._as_answered(weighted.endpoint)
        guard, name = self.guard, self.job.name
        tenant = Tenant(
            store, self.process_id, self.events, guard, self.run.id, name, self.budget_monitor, self._lifetime
        )
        opened: Awake | None = None
        self.events.emit(SessionBegan(endpoint.name))
        presence = self.events.progress.presence_of(endpoint.name)
        try:
            async with awake(endpoint, tenant) as opened:
                self._rest_until(await self._ask(opened, weighted, presence, queue, in_flight), presence)
                coming = partial(store.queue.coming, endpoint.name, self.run.id)
                if queue.finished and not queue.work.stop.requested and await is_wanted(opened, coming):
                    delivered = anyio.Event()
                    delivering.start_soon(self._finish_meanwhile, delivered)
                    await linger(opened, queue.work.stop, coming, delivered)
        finally:
            self.events.emit(
                SessionEnded(endpoint.name, None if opened is None or opened.terms is None else opened.proof)
            )
            queue.notify()  # for endpoints that rest as long as others work
            if opened is not None and opened.terms is not None:
                before = self.session_costs.get(endpoint.name)
                now = SessionCost(endpoint.name, opened.spent, opened.price_per_hour, opened.proof, opened.billed)
                self.session_costs[endpoint.name] = now if before is None else before.then(now)

    async def _lifetime(self) -> float:
        """Return the most seconds for which a server that is started now can be needed."""
        deadline, declared = self.run.deadline, self.job.policy.deadline
        if deadline is None and declared is not None:
            deadline = deadline_at(declared, self.run.created_at)
        return lifetime(
            budget_left=await self.budget_monitor.left(),
            closes_in=self.run_window.closes_in(),
            deadline_in=inf if deadline is None else deadline - time.time(),
        )

    async def _as_answered(self, endpoint: Endpoint) -> Endpoint:
        """Return the endpoint, answering in the shape of this job's earlier answers: one job has one shape."""
        if not isinstance(endpoint, AnsweredOtherwise) or (beginning := endpoint.earlier_beginning) is None:
            return endpoint
        earlier = await self.store.answers.any_begins(self.run.job_id, beginning)
        return endpoint.as_earlier() if earlier else endpoint

    def _rest_until(self, waiting: Waiting | None, presence: Presence) -> None:
        """Let the endpoint rest until then. Raises `Snoozed` if it was woken too often with nothing done."""
        before = self.resting.pop(presence.name, None)
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
        self.resting[presence.name] = Rest(time.monotonic() + waiting.until - time.time(), waiting, fruitless)

    async def _ask(
        self, opened: Awake, weighted: Weighted, presence: Presence, queue: WorkQueue, in_flight: InFlight
    ) -> Waiting | None:
        """Ask all members of one endpoint."""
        stop = queue.work.stop.child()
        effort = Effort(
            presence,
            self.controls,
            stop,
            weight=weighted.weight,
            leave=self.leave if self.fallback not in (None, weighted.endpoint) else Leave(),
            pace=self.pace,
            use_price=weighted.endpoint.use_price if isinstance(weighted.endpoint, PricedByUse) else None,
        )
        ask = partial(run_tuned_session, self.run, opened, queue, in_flight, effort)
        return await ask_members(opened, queue, in_flight, effort, ask, self.out)

    async def _finish_meanwhile(self, delivered: anyio.Event) -> None:
        await self.finish()
        delivered.set()
