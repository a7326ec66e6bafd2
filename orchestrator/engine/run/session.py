"""Session: one endpoint in a run is woken, asked until the work queue has nothing for it, and woken again if lost."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.budget import to_finish
from orchestrator.domain.errors import BudgetSpent, EndpointLost, NotAwake
from orchestrator.domain.events import BudgetReached, SessionLost
from orchestrator.domain.terms import cost_of
from orchestrator.engine.asking.fanout import fan_out
from orchestrator.engine.run.readings import note
from orchestrator.engine.tasks import task_group
from orchestrator.ports import KnowsItsMachine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.domain.budget import BudgetStanding
    from orchestrator.domain.terms import Billed, Spent
    from orchestrator.domain.waiting import Waiting
    from orchestrator.engine.asking.effort import Effort
    from orchestrator.engine.asking.in_flight import InFlight
    from orchestrator.engine.asking.work_queue import WorkQueue
    from orchestrator.engine.awake.awake import Awake
    from orchestrator.engine.awake.budget_monitor import BudgetMonitor
    from orchestrator.engine.progress import Presence
    from orchestrator.ports import DataPlane, EventListener

FRUITLESS_LOSSES = 3  # times the endpoint may be lost in a row with nothing settled between
_LONGEST_BREATH = 60.0  # at most this many seconds of a wait that the endpoint asks for
RESTARTS = 2  # restarts in a row of our own server if it fails every request
_LOOK, _LONGEST_LOOK = 0.25, 5.0  # seconds until an endpoint that fails every request is probed; doubled each time
_BREATH = 1.0  # seconds before an endpoint that was lost with nothing done is tried again, one more each time


@dataclass(frozen=True, slots=True)
class SessionCost:
    """The cost of one run's use of an endpoint that bills. `proof`: how it was left, and when that was seen.

    `billed`: what the provider bills for the time until this run paused it, whoever else used it.
    """

    endpoint: str
    spent: Spent
    price_per_hour: float | None
    proof: str | None
    billed: Billed | None = None

    @property
    def cost(self) -> float | None:
        """Dollars, if the price is known. If several runs use the endpoint, they share the seconds."""
        return self.spent.cost(self.price_per_hour)

    def then(self, later: SessionCost) -> SessionCost:
        """Return both uses of the endpoint as one."""
        both = self.billed + later.billed if self.billed and later.billed else self.billed or later.billed
        return replace(later, spent=self.spent + later.spent, billed=both)


@asynccontextmanager
async def within_budget(endpoint: Awake, queue: WorkQueue, effort: Effort) -> AsyncIterator[None]:
    """Drain `effort.stop` once the budget is spent. Raises `BudgetSpent` at the end if that left items.

    Raises `BudgetSpent` at once if it is spent already: a stop before the first wake would hide the reason.
    """
    budget_monitor = endpoint.budget_monitor
    if budget_monitor is not None:
        await budget_monitor.check()
    async with task_group() as watchers:
        if budget_monitor is not None:
            spent = partial(_budget_reached, endpoint.name, budget_monitor, queue.work.events)
            watchers.start_soon(effort.stop.drain_after, spent, queue.work.policy.grace)
        yield
        watchers.cancel_scope.cancel()
    if budget_monitor is not None and budget_monitor.standing is not None and not queue.finished:
        raise _over_budget(endpoint, budget_monitor.standing, queue, effort.presence)


async def _budget_reached(name: str, budget_monitor: BudgetMonitor, events: EventListener) -> None:
    await budget_monitor.spent()
    events.emit(BudgetReached(name, str(budget_monitor.standing)))


async def run_session(endpoint: Awake, queue: WorkQueue, in_flight: InFlight, effort: Effort) -> Waiting | None:
    """Ask one server until the work queue has nothing for it. If it is lost, it is checked and woken again.

    Return what is waited for if it should sleep until then. Raises `NotAwake` if it is lost again and again.
    """
    stop, presence = effort.stop, effort.presence
    losses = _Losses(endpoint.startup_timeout, restarts=endpoint.restarts)
    while not stop.requested:
        settled = presence.settled
        try:
            async with AsyncExitStack() as stack:
                model = await connected(endpoint, stack, queue, in_flight, effort)
                if model is None:
                    return None
                losses.connected(waited=endpoint.waited)
                if isinstance(model, KnowsItsMachine) and model.computed_with:
                    how = {"endpoint": endpoint.name, **model.computed_with}
                    await queue.work.store.runs.computed_with(queue.work.run_id, how)
                stack.enter_context(stop.until_deadline())
                # it was lost with nothing done and is back at once, so the requests may be why
                blames_large = losses.tried and not endpoint.waited
                effort = replace(effort, blames_large=blames_large, cold_start=endpoint.cold_start)
                await note(queue.work, in_flight.whole)  # so that waking does not count as asking
                waiting = await fan_out(queue, model, effort, in_flight)
                await note(queue.work, in_flight.whole)  # nor does pausing
                return waiting
        except EndpointLost as loss:
            # if it fails every request, it had answered an earlier one again before it was lost over this item
            charged = loss.fails_all and loss.charged
            breath = losses.lost(loss, progressed=charged or presence.settled > settled)
            lost = SessionLost(endpoint.name, str(loss), losses.in_a_row, breath, loss.requests)
            queue.work.events.emit(lost)
            if breath is None:
                raise NotAwake(
                    f"endpoint {endpoint.name} was lost {losses.in_a_row} times in a row with nothing done "
                    f"between: {loss}; run the same command again to continue"
                ) from loss
            await note(queue.work, in_flight.whole)  # nor does this wait
            with endpoint.counted("idle"):
                if loss.fails_all:
                    await endpoint.restart(unless_well=not losses.tried)
                await stop.sleep(breath)
    return None


def is_unneeded(queue: WorkQueue, in_flight: InFlight, effort: Effort) -> bool:
    """Whether there is no reason to wake the endpoint: nothing is left that it would get, or a stop is requested."""
    return (
        queue.finished
        or queue.left < effort.leave.below
        or (queue.cleared and in_flight.others(effort.presence))
        or effort.stop.requested
    )


async def connected(
    endpoint: Awake, stack: AsyncExitStack, queue: WorkQueue, in_flight: InFlight, effort: Effort
) -> DataPlane | None:
    """Return the data plane of the endpoint once it is awake.

    Return None if it is no longer needed: others have left nothing for it, or a stop is requested. Raises `BudgetSpent`
    if the budget is spent before it is woken.
    """
    model: DataPlane | None = None

    async def give_up() -> None:
        while not is_unneeded(queue, in_flight, effort):
            with effort.stop.while_running():
                await queue.changed()
        waking.cancel_scope.cancel()

    if endpoint.budget_monitor is not None:
        await endpoint.budget_monitor.check()
    async with task_group() as waking:
        waking.start_soon(give_up)
        model = await stack.enter_async_context(endpoint.connect(queue.work.policy))
        waking.cancel_scope.cancel()
    return model


def _over_budget(endpoint: Awake, standing: BudgetStanding, queue: WorkQueue, presence: Presence) -> BudgetSpent:
    seconds, price = to_finish(queue.left, presence.settled, endpoint.spent), endpoint.price_per_hour
    text = f"{standing} with {queue.what_is_left}"
    if seconds is not None:
        text += f", which would take about {seconds:.0f} s more"
        text += f" and cost about ${cost:.2f}" if (cost := cost_of(seconds, price)) is not None else ""
    return BudgetSpent(f"{text}; {standing.remedy}", standing.until)


class _Losses:
    """How often an endpoint may be lost with nothing done between.

    `restarts`: it is our own server, which can be restarted if it fails every request; others are waited for.
    """

    def __init__(self, startup_timeout: float, *, restarts: bool = False) -> None:
        self._startup_timeout = startup_timeout
        self._restarts = restarts
        self._progressed_at = anyio.current_time()
        self._starting = False
        self._fruitless = 0
        self.in_a_row = 0  # losses in a row with nothing done between

    @property
    def tried(self) -> bool:
        """Whether the endpoint was lost with nothing done since."""
        return self._fruitless > 0

    def connected(self, *, waited: bool) -> None:
        """Record that the endpoint answers again. If it said that it was starting, earlier losses do not count."""
        if self._starting and waited and self._may_take_longer:
            self._fruitless = 0

    def lost(self, loss: EndpointLost, *, progressed: bool) -> float | None:
        """Return the seconds to wait before the endpoint is tried again; None if it has been tried enough."""
        self._starting = loss.starting
        if progressed:
            self._fruitless, self.in_a_row, self._progressed_at = 0, 0, anyio.current_time()
        self.in_a_row += 1
        if loss.retry_after is not None and self._may_take_longer:
            return min(loss.retry_after, _LONGEST_BREATH)  # the endpoint has said when it is back
        if loss.fails_all:
            return self._while_it_fails()
        if progressed:
            return 0.0
        self._fruitless += 1
        return None if self._fruitless >= FRUITLESS_LOSSES else _BREATH * (self._fruitless - 1)

    def _while_it_fails(self) -> float | None:
        """Wait for a second check before our own server is restarted; another endpoint gets its time to come back."""
        self._fruitless = self.in_a_row - 1
        enough = self._fruitless > RESTARTS if self._restarts else not self._may_take_longer
        if enough:
            return None
        return min(_LOOK * 2.0**self._fruitless, _LONGEST_LOOK)

    @property
    def _may_take_longer(self) -> bool:
        return anyio.current_time() < self._progressed_at + self._startup_timeout
