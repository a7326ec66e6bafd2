"""The asks of rollouts that one route answers: the work queue of its endpoints."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

import anyio

from orchestrator.domain.asks import OpenAsk
from orchestrator.domain.attempt import Completed, Discarded, RetryLater
from orchestrator.domain.phrases import count
from orchestrator.domain.running_totals import Total
from orchestrator.engine.asking.commits import nothing
from orchestrator.engine.asking.leased_items import shared
from orchestrator.engine.asking.work_queue import WorkQueue
from orchestrator.engine.rollouts.deadlines import RunningTime
from orchestrator.store.items import Settlement

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from orchestrator.domain.attempt import Outcome
    from orchestrator.domain.batching import Limits
    from orchestrator.domain.item import Item
    from orchestrator.engine.asking.commits import Commits, OnSettled
    from orchestrator.engine.asking.in_flight import InFlight
    from orchestrator.engine.asking.work_queue import Demand, RunContext
    from orchestrator.job import Route

_RECENT = 16_000_000  # bytes of answers that are kept for equal asks of other rollouts
_EACH = 500  # bytes that an answer takes besides its text
Shared = tuple[bytes, int]  # what equal asks of several rollouts have in common


class OpenRollouts(Protocol):
    """The rollouts whose asks are in the queues."""

    @property
    def work(self) -> RunContext:
        """What the run asks, and how."""
        ...

    @property
    def job_id(self) -> int:
        """The job in the ledger."""
        ...

    @property
    def commits(self) -> Commits:
        """What commits outcomes, of all routes together."""
        ...

    @property
    def finished(self) -> bool:
        """Whether nothing is left that this process could do."""
        ...

    def is_stuck(self, but: AskQueue) -> bool:
        """Whether no rollout can ask anything more before an ask in this queue is answered."""
        ...

    def is_awaited(self, key: int) -> bool:
        """Whether a rollout still waits for this ask."""
        ...

    def left_for(self, queue: AskQueue) -> int:
        """About how many asks the unsettled items will make of a route."""
        ...

    def demand_changed(self) -> None:
        """Keep as many rollouts open as the endpoints that are awake need now."""
        ...

    def note_waking(self) -> None:
        """Let the time of rollouts stand still while asks of a route wait for an endpoint that is not awake."""
        ...

    def ask_for_more(self) -> None:
        """Open more rollouts soon, if there is room."""
        ...

    def note_sent(self, key: int) -> None:
        """Record that an ask is being sent."""
        ...

    def notify(self) -> None:
        """Wake the consumers of all routes."""
        ...


class AskQueue(WorkQueue):
    """Asks of open rollouts for one route. An ask leaves it once its outcome is on disk."""

    def __init__(self, rollouts: OpenRollouts, route: Route, in_flight: InFlight) -> None:
        super().__init__(rollouts.work)
        self.in_flight = in_flight
        self.route = route
        self.settled = 0  # asks that were answered or discarded
        self.ended = False  # whether the route's endpoints are not used any more
        self._rollouts = rollouts
        self._asks: dict[int, OpenAsk] = {}  # open ones, by key
        self._out: set[int] = set()  # keys of those that were taken and have not come back
        self._settling: set[int] = set()  # keys of those whose outcome is being committed
        self._failing: set[int] = set()  # keys of those whose failed attempt is being committed
        self._equal: dict[Shared, list[OpenAsk]] = {}  # the first one is asked, the others wait for its answer
        self._recent: OrderedDict[Shared, Completed] = OrderedDict()
        self._recent_size = 0
        self._given: list[Settlement] = []  # answers that are known already
        self._times_asks = False  # whether an ask has had a deadline of its own
        self._idle_since: float | None = time.monotonic()
        self.awake = RunningTime()  # runs while one of its endpoints is awake

    # -- what is left -------------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether no rollout can ask any more."""
        return self._rollouts.finished

    @property
    def waits(self) -> bool:
        """Whether an ask that somebody awaits waits to be sent, now or later. Abandoned ones may still lie in it."""
        return super().waits and len(self._asks) > len(self._out)

    @property
    def cleared(self) -> bool:
        """Whether nothing can be asked until one of this route's requests in flight is answered."""
        return not self.waits and self._rollouts.is_stuck(self)

    @property
    def stuck(self) -> bool:
        """Whether nothing more will be asked of this route, as far as this process can tell now."""
        return not self._asks and self._rollouts.is_stuck(self)

    @property
    def left(self) -> int:
        """About how many asks the unsettled items will still make of this route, judging by what settled ones made."""
        return self._rollouts.left_for(self)

    @property
    def what_is_left(self) -> str:
        """Return for example `12 asks of judge left`."""
        return f"{count(self.left, 'ask')} of {self.route.name} left"

    @property
    def idle_since(self) -> float | None:
        """Since when nothing was asked here that is not to be asked again later; None if no rollout could ask now."""
        return None if self._asks and self._rollouts.is_stuck(self) else self._idle_since

    @property
    def _expects_more(self) -> bool:
        return not self._asks or len(self._asks) > len(self._later) + len(self._out)

    @property
    def has_work(self) -> bool:
        """Whether rollouts may get an answer without asking anything more. They get none if all failures are held."""
        return not self.ended and bool(self.waits or self._given or self.in_flight or self._settling or self._failing)

    @property
    def shortage(self) -> int:
        """How many more asks its consumers want to find ready; 0 if there are none."""
        return self._low_water + 1 - len(self._ready) if self._demands else 0

    def gives_up(self, items: Iterable[Item]) -> bool:
        """Whether a request for these items may have to be cut short: at a deadline, or by a rival."""
        policy = self.work.policy
        if policy.hedge or policy.item_timeout is not None:
            return True
        return self._times_asks and any(isinstance(one, OpenAsk) and one.deadline is not None for one in items)

    def set_demand(self, consumer: object, demand: Demand | None) -> None:
        """Keep this demand ready for a consumer from now on; None removes the consumer."""
        super().set_demand(consumer, demand)
        self.awake.run(runs=bool(self._demands))
        self._rollouts.demand_changed()

    @property
    def is_being_woken(self) -> bool:
        """Whether asks wait for an endpoint that is not awake yet."""
        return bool(self._asks) and not self._demands

    def leave(self) -> None:
        """Let the endpoints of other routes, which may rest as long as any works, see that these are not used now."""
        self._rollouts.notify()

    def end(self) -> None:
        """Record that its endpoints are not used any more, so its asks are not answered in this shift."""
        self.ended = True
        self._rollouts.notify()

    async def wanted(self) -> bool:
        """Return whether the route's endpoints are needed, once that is known: something waits, or nothing will."""
        while not self.waits:
            if self.work.stop.requested or self.finished or self.stuck:
                return False
            with self.work.stop.while_running():
                await self.changed()
        return not self.work.stop.requested

    # -- asks come and go ---------------------------------------------------------------------------------------------

    def add(self, ask: OpenAsk) -> None:
        """Add an ask, which waits for the answer to an equal one if there is one."""
        self._asks[ask.key] = ask
        self._idle_since = None
        self._times_asks |= ask.deadline is not None
        if not self._demands:
            self._rollouts.note_waking()
        if self.ended:  # no rollout may be left that asks the other routes
            self._rollouts.notify()
        if ask.shares is not None:
            key = ask.shares, ask.nth
            if (known := self._recent.get(key)) is not None:
                self._given.append(Settlement(ask, shared(known), 0.0))
                self._refill.set()
                return
            equal = self._equal.setdefault(key, [])
            equal.append(ask)
            if len(equal) > 1:
                return
        self._offer([ask])

    def abandon(self, asks: Collection[OpenAsk]) -> None:
        """Forget asks of a rollout that waits for them no more, and give up the requests that have no others."""
        for ask in asks:
            if ask.key in self._settling:
                continue
            if self._asks.pop(ask.key, None) is not None and ask.shares is not None:
                self._leave_equal(ask, (ask.shares, ask.nth))
        self.in_flight.give_up({ask.key for ask in asks})
        self._out.difference_update(ask.key for ask in asks)
        self._rest_if_idle()

    def _leave_equal(self, ask: OpenAsk, key: Shared) -> None:
        """Take an ask from those that are equal; the next one is asked if this one was."""
        equal = self._equal.get(key, [])
        if ask not in equal:  # its answer is known, and about to be committed
            return
        was_asked = equal[0] is ask
        equal.remove(ask)
        if not equal:
            del self._equal[key]
        elif was_asked:
            self._offer([equal[0]])

    def take(self, limits: Limits, *, sample: bool = False) -> list[Item]:
        """Return the next batch of asks that somebody still waits for; empty if nothing is ready."""
        asks = self._asks
        while batch := super().take(limits, sample=sample):
            if wanted := [ask for ask in batch if ask.key in asks]:
                self._note_sent(wanted)
                return wanted
        return []

    @property
    def has_suspects(self) -> bool:
        """Whether an ask that somebody awaits waits to be asked alone."""
        while self._alone and not self._is_open(self._alone[0]):
            self._alone.popleft()
        return bool(self._alone)

    def _ask_for_more(self) -> None:
        self._rollouts.ask_for_more()

    def take_suspect(self) -> Item:
        """Return the next ask that must be asked alone."""
        ask = super().take_suspect()
        self._note_sent([ask])
        return ask

    def _note_sent(self, batch: list[Item]) -> None:
        times_items = self.work.policy.item_timeout is not None
        for ask in batch:
            self._out.add(ask.key)
            if times_items:
                self._rollouts.note_sent(ask.key)

    def requeue(self, items: Iterable[Item]) -> None:
        """Put back asks that were taken and not answered; no attempt is counted. Those that nobody awaits are gone."""
        back = []
        for ask in items:
            self._out.discard(ask.key)
            if self._rollouts.is_awaited(ask.key):
                back.append(ask)
            else:
                self._asks.pop(ask.key, None)
        super().requeue(back)
        self._rest_if_idle()

    def _is_open(self, item: Item) -> bool:
        return item.key in self._asks

    def _rest_if_idle(self) -> None:
        if len(self._asks) > len(self._later) or len(self._asks) > sum(self._is_open(one[2]) for one in self._later):
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = time.monotonic()
        if not self._asks:
            if not self._demands:
                self._rollouts.note_waking()
            self.notify()

    async def keep_ready(self) -> None:
        """Put back asks whose time has come, and settle those whose answers are known."""
        while not self.work.stop.requested:
            self._refill = anyio.Event()
            wait = self._requeue_due()
            if self._given:
                given, self._given = self._given, []
                self.work.progress.shared += len(given)
                await self.settle(given)
                continue
            with self.work.stop.while_running(), anyio.move_on_after(wait):
                await self._refill.wait()

    # -- settling -----------------------------------------------------------------------------------------------------

    async def settle(self, settlements: list[Settlement], on_settled: OnSettled = nothing) -> None:
        """Return when these settlements and those of equal asks are on disk.

        `on_settled` is called with all of them.
        """
        await self._rollouts.commits.add(self._with_twins(settlements), on_settled)

    async def answered(self, most: int) -> list[bytes]:
        """Return up to `most` requests that this route has answered."""
        return await self.work.store.asks.answered(self._rollouts.job_id, self.route.name, most)

    def _with_twins(self, settlements: list[Settlement]) -> list[Settlement]:
        settled = []
        for settlement in settlements:
            ask, outcome = settlement.item, settlement.outcome
            if ask.key not in self._asks or ask.key in self._settling:  # it was asked twice, or nobody wants it
                continue
            settled.append(settlement)
            if isinstance(outcome, RetryLater):
                self._failing.add(ask.key)
                continue
            self._settling.add(ask.key)
            if isinstance(ask, OpenAsk) and ask.shares is not None:
                key = ask.shares, ask.nth
                if isinstance(outcome, Completed):
                    self.remember(key, outcome)
                for twin in self._equal.pop(key) if ask in self._equal.get(key, ()) else ():
                    if twin is not ask:
                        self._settling.add(twin.key)
                        self.work.progress.shared += 1
                        settled.append(Settlement(twin, shared(outcome), 0.0))
        return settled

    def remember(self, key: Shared, outcome: Completed) -> None:
        """Keep an answer for equal asks to come, and forget the oldest ones beyond a limit."""
        if key not in self._recent:
            self._recent[key] = outcome
            self._recent_size += len(outcome.output) + _EACH
        while self._recent_size > _RECENT:
            self._recent_size -= len(self._recent.popitem(last=False)[1].output) + _EACH

    def after(self, ask: OpenAsk, outcome: Outcome, now: float) -> None:
        """Go on after an outcome was committed: schedule the next attempt, or count the ask."""
        progress = self.work.progress
        self._out.discard(ask.key)
        self._failing.discard(ask.key)
        match outcome:
            case RetryLater(delay, failure):
                progress.retried += 1
                progress.failures[Total.RETRIED, failure.kind] += 1
                if self._rollouts.is_awaited(ask.key):
                    self._ask_later(ask, failure, now + delay)
                else:
                    self._asks.pop(ask.key, None)
            case Completed() | Discarded():
                self._settling.discard(ask.key)
                self._asks.pop(ask.key, None)
                self.settled += 1
                if isinstance(outcome, Completed):
                    progress.count_tokens(outcome)
        self._rest_if_idle()
