"""run_load_test: wake an endpoint, offer it a load for a while, measure, and pause it, all as in a run."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from orchestrator import descriptors
from orchestrator.domain.budget import NO_LIMIT, Budget, Budgets
from orchestrator.domain.charges import Charge
from orchestrator.domain.engine_metrics import engine_sample
from orchestrator.domain.errors import AskedToStop, BudgetSpent, EndpointFailed
from orchestrator.domain.events import DebtSwept, SessionBegan, SessionEnded
from orchestrator.domain.lifetime import lifetime
from orchestrator.domain.load import SETTLING, ClosedLoop, OpenLoop, Sweep, knee, next_concurrency
from orchestrator.domain.load_figures import LoadFigures, LoadTest, LoopTime, ServerSide, figures_of
from orchestrator.domain.load_tally import LoadCourse, LoadTally
from orchestrator.domain.percentiles import PercentileHistogram
from orchestrator.domain.urls import shown as shown_identity
from orchestrator.engine.awake.awake import awake
from orchestrator.engine.awake.budget_monitor import LOOK, BudgetMonitor, Payer
from orchestrator.engine.awake.reaper import kept_alive, registered
from orchestrator.engine.awake.sweep import sweep
from orchestrator.engine.awake.tenant import Tenant
from orchestrator.engine.bench.loops import ClosedLoops, open_loop, step_seconds, until_given_up
from orchestrator.engine.bench.sender import Sender
from orchestrator.engine.run.tuning import shape_of
from orchestrator.engine.tasks import task_group
from orchestrator.ports import PricedByUse
from orchestrator.store.runs import Tuned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orchestrator.domain.charges import UsePrice
    from orchestrator.domain.engine_metrics import EngineSample
    from orchestrator.domain.load import Load, Objective
    from orchestrator.domain.policy import Policy
    from orchestrator.engine.awake.awake import Awake
    from orchestrator.engine.progress import Progress
    from orchestrator.engine.run.execution import Safety
    from orchestrator.engine.stop import Stop
    from orchestrator.ports import DataPlane, Endpoint
    from orchestrator.store import Store

    Models = list[DataPlane]

JOB = "(bench)"  # the name under which the costs of load tests are listed among the jobs
_TICK = 0.02  # seconds between two looks at how late the event loop is
_METRICS = 1.0  # seconds between two readings of the server's metrics


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What a load test offers an endpoint, for how many seconds, and what it may cost.

    `requests`: what is sent, again and again. `policy`: timeouts, size of requests, grace. `client`: the HTTP client,
    in words. `remember`: let later runs begin with the concurrency that a sweep finds. `stream`: ask for answers in
    parts.
    """

    load: Load
    seconds: float
    requests: Sequence[bytes]
    policy: Policy
    client: str
    objectives: Sequence[Objective] = ()
    budget: Budget = NO_LIMIT
    remember: bool = False
    stream: bool = False


@dataclass(slots=True)
class LoadProgress:
    """A load test as it goes on, for whoever shows it. `figures`: returns those of now; None until it sends.

    `began`: when it began to send, on the monotonic clock.
    """

    figures: Callable[[], LoadFigures] | None = None
    began: float = 0.0
    steps: list[LoadFigures] = field(default_factory=list)  # those of a sweep that are over


async def run_load_test(
    asked: LoadRequest,
    endpoint: Endpoint,
    store: Store,
    progress: Progress,
    stop: Stop,
    safety: Safety,
    shown: LoadProgress,
) -> LoadTest:
    """Wake the endpoint, load it, and leave it as after a run. Raises what a run raises if it does not come up.

    Once `stop` is requested or a budget is spent, nothing more is sent, and what was measured is returned.
    """
    budgets = Budgets(run=asked.budget, ledger=safety.budget, settings=("--max-cost", "--for"))
    monitor, own = BudgetMonitor(store, Payer(None, JOB, time.time()), budgets), stop.child()
    longest = endpoint.startup_timeout + asked.seconds + asked.policy.grace

    async def needed() -> float:
        return lifetime(budget_left=await monitor.left(), closes_in=longest)

    async with registered(store) as process_id, kept_alive(store, process_id), task_group() as debts:
        debts.start_soon(_sweep, store, safety, process_id, endpoint.name, progress)
        await monitor.check()
        tenant = Tenant(store, process_id, progress, safety.guard, None, JOB, monitor, needed)
        async with task_group() as watchers:
            watchers.start_soon(monitor.watch)
            watchers.start_soon(own.drain_after, monitor.spent, asked.policy.grace)
            found, opened = await _in_session(asked, endpoint, tenant, progress, own, shown)
            watchers.cancel_scope.cancel()
    found = replace(
        found,
        interrupted=stop.requested,
        ended=found.ended or (str(monitor.standing) if monitor.standing else None),
        cold_start=opened.cold_start,
        spent=opened.spent if opened.terms is not None else None,
        price_per_hour=opened.price_per_hour,
        billed=opened.billed,
        proof=opened.proof,
    )
    if asked.remember and found.knee is not None:
        identity = await to_thread.run_sync(endpoint.identity, asked.policy)
        await store.runs.remember(
            shape_of(endpoint.name, shown_identity(identity), asked.policy), Tuned(found.knee.concurrency)
        )
        found = replace(found, remembered=found.knee.concurrency)
    return found


async def _sweep(store: Store, safety: Safety, process_id: int, spare: str, progress: Progress) -> None:
    """Pay the debts of dead processes, as every run does."""
    for swept in await sweep(store, safety.revive, process_id, spare=[spare]):
        progress.emit(DebtSwept(swept.endpoint, swept.proof, swept.failure))


async def _in_session(
    asked: LoadRequest, endpoint: Endpoint, tenant: Tenant, progress: Progress, stop: Stop, shown: LoadProgress
) -> tuple[LoadTest, Awake]:
    """Use the endpoint, as one session of a run does."""
    progress.emit(SessionBegan(endpoint.name))
    opened: Awake | None = None
    try:
        async with awake(endpoint, tenant) as opened, AsyncExitStack() as stack:
            models = await _connected(opened, stack, asked, tenant, stop)
            price = endpoint.use_price if isinstance(endpoint, PricedByUse) else None
            measurement = _Measurement(asked, endpoint.name, models, stop, shown, price)
            async with task_group() as watchers:
                watchers.start_soon(_record_charges, measurement, endpoint.name, tenant.store)
                found = await measurement.run()
                watchers.cancel_scope.cancel()
        return found, opened
    finally:
        progress.emit(SessionEnded(endpoint.name, None if opened is None else opened.proof))


async def _record_charges(measurement: _Measurement, name: str, store: Store) -> None:
    """Add what answers cost to the ledger: every few seconds, so that little is lost with the process, and at the end.

    The budgets are checked by what the ledger has.
    """
    recorded = Charge()

    async def record() -> None:
        nonlocal recorded
        charged = measurement.charged
        with anyio.CancelScope(shield=True):
            await store.charges.add_to_command(JOB, name, charged - recorded)
            recorded = charged

    try:
        while True:
            await anyio.sleep(LOOK)
            await record()
    finally:
        await record()


def _not_begun(monitor: BudgetMonitor | None) -> AskedToStop | BudgetSpent:
    if monitor is not None and monitor.standing is not None:
        return BudgetSpent(f"{monitor.standing} before the endpoint was awake", monitor.standing.until)
    return AskedToStop("stopped as asked before the endpoint was awake")


async def _connected(opened: Awake, stack: AsyncExitStack, asked: LoadRequest, tenant: Tenant, stop: Stop) -> Models:
    """Wake the endpoint; return the data planes of all its members. Raises why it ended early if it did."""
    models: Models | None = None
    with stop.while_running():
        models = await _all_connected(opened, stack, asked.policy)
    if models is None:
        raise _not_begun(tenant.budget_monitor)
    return models


async def _all_connected(opened: Awake, stack: AsyncExitStack, policy: Policy) -> Models:
    changes = opened.members()
    if changes is None:
        return [await stack.enter_async_context(opened.connect(policy))]
    await stack.enter_async_context(aclosing(changes))
    if opened.terms is not None:  # the debt is the endpoint's, and recorded before any member is started
        await stack.enter_async_context(opened.connect(policy))
    models: Models = []
    async for present in changes:
        for member in present:
            server = await stack.enter_async_context(opened.member(member))
            models.append(await stack.enter_async_context(server.connect(policy)))
        if models:
            break
    if not models:
        raise EndpointFailed(f"endpoint {opened.name} has no members")
    return models


class _Measurement:
    """A load test of an endpoint that is awake."""

    def __init__(
        self,
        asked: LoadRequest,
        name: str,
        models: Models,
        stop: Stop,
        shown: LoadProgress,
        price: UsePrice | None,
    ) -> None:
        self._asked = asked
        self._name = name
        self._model = models[0]
        self._stop = stop
        self._shown = shown
        policy = asked.policy
        size = 1 if policy.batch_size == "auto" else self._model.limits.items
        most, stream = asked.budget.max_cost, asked.stream
        self._sender = Sender(models, asked.requests, size, policy.breaker, price, most, stream=stream)
        self._price = price
        self._samples: list[EngineSample] = []
        self._room: int | None = None
        self._concurrency: int | None = None
        self._late = PercentileHistogram()
        self._used = (0.0, 0.0, 0.0)  # the clock, and what the process and this thread had computed, at its beginning

    @property
    def charged(self) -> Charge:
        """What its answers have cost."""
        return self._sender.charged

    async def run(self) -> LoadTest:
        """Offer the load until its time is over, or a stop is requested."""
        asked, sender = self._asked, self._sender
        self._room = await to_thread.run_sync(descriptors.for_connections)
        first = await sender.prove()
        began_at, now = time.time(), time.monotonic()
        sender.course = course = LoadCourse(now, asked.seconds)
        self._begin(now)
        self._shown.figures, self._shown.began = self.figures, now
        async with task_group() as watchers:
            watchers.start_soon(self._watch_loop)
            watchers.start_soon(self._watch_server)
            watchers.start_soon(until_given_up, sender, self._stop)
            with self._stop.until_deadline():
                await self._offer()
            watchers.cancel_scope.cancel()
        steps = self._shown.steps if isinstance(asked.load, Sweep) and self._shown.steps else [self.figures()]
        return LoadTest(
            self._name,
            asked.load,
            asked.seconds,
            sender.size,
            began_at,
            first,
            steps,
            course.slices,
            ServerSide.of(self._samples),
            asked.client,
            knee=knee([step.stair for step in steps]) if isinstance(asked.load, Sweep) else None,
            ended=sender.given_up,
            charged=None if self._price is None else self.charged,
        )

    def figures(self) -> LoadFigures:
        """Return the figures of the present load."""
        now, (clock, cpu, thread) = time.monotonic(), self._used
        time_ = LoopTime(
            self._late,
            max(now - clock, 1e-9),
            time.process_time() - cpu,
            time.thread_time() - thread,
            self._sender.no_room,
        )
        load = self._asked.load
        return figures_of(
            self._sender.tally,
            now,
            load=str(load if self._concurrency is None else ClosedLoop(self._concurrency)),
            open_=isinstance(load, OpenLoop),
            concurrency=self._concurrency,
            objectives=self._asked.objectives,
            loop=time_,
        )

    def _begin(self, now: float) -> None:
        """Count anew from here."""
        self._sender.count_in(LoadTally(now))
        self._late = PercentileHistogram()
        self._used = (now, time.process_time(), time.thread_time())

    async def _offer(self) -> None:
        asked, grace = self._asked, self._asked.policy.grace
        match asked.load:
            case OpenLoop() as loop:
                await open_loop(self._sender, loop, asked.seconds, self._room, grace, self._stop)
            case ClosedLoop(wanted):
                self._concurrency = concurrency = min(wanted, self._room or wanted)
                await ClosedLoops(self._sender, self._stop).run(grace, partial(self._steady, concurrency))
            case Sweep():
                await ClosedLoops(self._sender, self._stop).run(grace, self._climb)

    async def _steady(self, concurrency: int, loops: ClosedLoops) -> None:
        loops.have(concurrency)
        await anyio.sleep(self._asked.seconds)

    async def _climb(self, loops: ClosedLoops) -> None:
        """Have as many clients as the steps so far suggest, until there is nothing to find out or time is over."""
        step, until = step_seconds(self._asked.seconds), time.monotonic() + self._asked.seconds
        steps = self._shown.steps
        while time.monotonic() + step <= until + 0.01 * step:
            concurrency = next_concurrency([one.stair for one in steps], self._room)
            if concurrency is None:
                return
            self._concurrency = concurrency
            loops.have(concurrency)
            await anyio.sleep(SETTLING * step)
            self._begin(time.monotonic())
            await anyio.sleep((1 - SETTLING) * step)
            self._sender.tally.close(time.monotonic(), self._sender.in_flight)
            steps.append(self.figures())

    async def _watch_loop(self) -> None:
        """See how late the event loop is: as late as it is for this, it is for requests and answers."""
        while True:
            begun = time.monotonic()
            await anyio.sleep(_TICK)
            self._late.add(max(0.0, time.monotonic() - begun - _TICK))

    async def _watch_server(self) -> None:
        while (text := await self._model.metrics()) is not None:
            if (sample := engine_sample(text)) is not None:
                self._samples.append(sample)
            await anyio.sleep(_METRICS)
