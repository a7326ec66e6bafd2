"""awake: wake an endpoint, lend its data plane, and put it back to sleep however the block ends."""

from __future__ import annotations

import math
import time
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Protocol

import anyio

from orchestrator.domain.endpoint import EndpointState, lacks_capacity
from orchestrator.domain.errors import (
    EndpointFailed,
    EndpointSilent,
    Fenced,
    NoCapacity,
    NotAwake,
    OrchestratorError,
    PauseUnconfirmed,
    RunStopped,
)
from orchestrator.domain.events import (
    AwaitingPause,
    AwakeWindowEntered,
    EndpointAwake,
    LeaveBegan,
    LingerBegan,
    PriceSeen,
    RestartBegan,
    ResumeAsked,
    StateSeen,
    WakeBegan,
)
from orchestrator.domain.failpoints import reached
from orchestrator.domain.terms import Spent
from orchestrator.domain.waiting import pays_to_pause
from orchestrator.engine.awake.guarding import Guarding
from orchestrator.engine.awake.pausing import put_to_sleep
from orchestrator.engine.awake.reaper import kept_alive, reap
from orchestrator.ports import HasMembers, Restarts
from orchestrator.store.windows import Leaving

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence

    from orchestrator.domain.policy import Policy
    from orchestrator.domain.terms import Terms
    from orchestrator.engine.awake.budget_monitor import BudgetMonitor
    from orchestrator.engine.awake.guarding import Guard
    from orchestrator.engine.stop import Stop
    from orchestrator.ports import ControlPlane, DataPlane, Endpoint, EventListener, Member
    from orchestrator.store import Store

POLL = 0.25  # seconds between two tries of the data plane
_LAG = 2  # looks that may still show a resumed endpoint as paused

HAND_OVER = 5.0  # seconds in which a daemon takes a run that it may take

LAST_LOOK = 5.0  # seconds for the last look at an endpoint that is not paused, or did not come up in time


class Coming(Protocol):
    """Says whether a queued run is about to use the endpoint; with `free`, also one that a daemon may take now."""

    async def __call__(self, now: float, *, free: bool) -> bool:
        """At this time."""
        ...


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who uses the endpoint. While the context that `guard` gives is open, our death gets the endpoint paused."""

    store: Store
    process_id: int
    events: EventListener
    guard: Guard
    run_id: int | None
    job: str
    budget_monitor: BudgetMonitor | None = (
        None  # what the use of endpoints that bill may come to; None: whatever it takes
    )


class Awake:
    """An endpoint inside its `awake` block. `spent` and `proof` are complete when the block has ended."""

    def __init__(
        self, name: str, startup_timeout: float, control: ControlPlane, tenant: Tenant, stack: AsyncExitStack
    ) -> None:
        self.name = name
        self.spent = Spent()
        self.price_per_hour: float | None = None
        self.proof: str | None = None
        self.startup_timeout = startup_timeout
        self._control = control
        self._tenant = tenant
        self._stack = stack
        self._window: int | None = None
        self.guarding = Guarding(tenant.store.windows, name, tenant.events)
        self._entered = False
        self._saw: EndpointState | None = None  # when we looked ourselves
        self._fresh = False  # whether that was just now
        self._has_moved = False
        self._reported = ""  # what listeners were last told that it says of itself
        self._resumed = False
        self._answered = False
        self.cold_start = 0.0  # seconds that waking it took, the longest time
        self.waited = False  # whether it had to be waited for when it was last connected

    @property
    def terms(self) -> Terms | None:
        """The endpoint's terms, once it has been looked at."""
        return self._control.terms

    def members(self) -> AsyncGenerator[Sequence[Member]] | None:
        """Yield its members, as `HasMembers.members`; None if it is a single server."""
        return self._control.members() if isinstance(self._control, HasMembers) else None

    @asynccontextmanager
    async def member(self, member: Member) -> AsyncIterator[Awake]:
        """Lend one of its members: nothing starts until it is used, and it is paused when the block ends."""
        async with AsyncExitStack() as stack:
            lent = Awake(member.name, self.startup_timeout, member, self._tenant, stack)
            try:
                yield lent
            finally:
                with anyio.CancelScope(shield=True):
                    await lent.leave()

    @asynccontextmanager
    async def connect(self, policy: Policy) -> AsyncIterator[DataPlane]:
        """Wake the endpoint if it is not awake and open its data plane: again after it was lost, too."""
        self._tenant.events.emit(WakeBegan(self.name))
        begun = time.monotonic()
        with self.counted("cold_start"):
            await self._wake(policy)
        waking = time.monotonic() - begun
        self.cold_start = max(self.cold_start, waking)
        self._tenant.events.emit(EndpointAwake(self.name, waking))
        async with self._control.connect(policy) as model:
            with self.counted("work"):
                yield model

    @property
    def restarts(self) -> bool:
        """Whether it can be started anew where it fails whatever it is asked."""
        return isinstance(self._control, Restarts)

    async def restart(self, *, unless_well: bool) -> None:
        """End it, where it is ours to start anew when it is connected again; `unless_well`: unless it says it is."""
        if isinstance(self._control, Restarts) and not (unless_well and await self._control.answers()):
            self._tenant.events.emit(RestartBegan(self.name))
            await self._control.restart()

    @property
    def budget_monitor(self) -> BudgetMonitor | None:
        """What its use may still cost; None where it does not bill, or may cost whatever it takes."""
        return None if self.terms is None else self._tenant.budget_monitor

    @property
    def _may_cost_no_more(self) -> bool:
        return self.budget_monitor is not None and self.budget_monitor.standing is not None

    async def is_wanted(self, coming: Coming) -> bool:
        """Whether it is to be kept awake for a next run: its terms say so, or one in the queue is on its way."""
        if self._window is None or self.terms is None:
            return False
        return self.terms.linger > 0 or await coming(time.time(), free=True)

    async def linger(self, stop: Stop, coming: Coming, delivered: anyio.Event) -> None:
        """Keep the endpoint awake for a next run, as long as its terms say or one is on its way; cut short by `stop`.

        A run that waits in the queue is given some seconds to be taken by a daemon, if there is one, from when this
        one is `delivered`: it may be what the other waits for. A delivery by itself keeps no endpoint awake.
        """
        begun, delivered_at, terms = time.monotonic(), math.inf, self.terms
        self._tenant.events.emit(LingerBegan(self.name))
        with self.counted("idle"):
            while terms is not None and not (stop.requested or self._may_cost_no_more):
                now = time.monotonic()
                if delivered.is_set():
                    delivered_at = min(delivered_at, now)
                over = now - begun - terms.linger
                if pays_to_pause(over, self.cold_start):  # it may still be reading its source
                    return
                if over >= 0 and not await coming(time.time(), free=min(over, now - delivered_at) < HAND_OVER):
                    return
                await stop.sleep(POLL)

    async def leave(self) -> None:
        """Put the endpoint to sleep unless others use it or it is not ours. `PauseUnconfirmed` if that fails.

        `Fenced` where it is owed and this process has been taken for dead.
        """
        self._tenant.events.emit(LeaveBegan(self.name))
        if not self._entered:
            return
        if self._window is None:
            await put_to_sleep(self._control, self.name, self._tenant.events, to_zero=False)
            return
        leaving, to_zero = await self._what_is_owed(self._window)
        match leaving:
            case Leaving.STILL_HELD:
                self.proof = f"endpoint {self.name} is still used by another run, which will pause it"
            case Leaving.KEPT:
                asleep = await self._look_again()
                left = "is asleep, although " if asleep else "was left awake, as "
                self.proof = f"endpoint {self.name} {left}{await self._kept_by()}: {self._control.said}"
            case Leaving.NOT_OURS:
                if self._saw is not None:
                    self.proof = f"endpoint {self.name} was left as it was found: {self._control.said}"
            case Leaving.OWED:
                await self._pay(self._window, to_zero=to_zero)
            case Leaving.FENCED:  # our guard pays, as a process that is alive
                raise Fenced("this process was silent for too long and was taken for dead; its guard pauses for it")

    # -- waking -------------------------------------------------------------------------------------------------------

    async def _wake(self, policy: Policy) -> None:
        with anyio.move_on_after(self.startup_timeout) as deadline:
            await self._enter()
            await self._until_it_answers(policy, deadline)
            return
        await self._look_again()
        said = f": {self._control.said}" if self._control.said else ""
        kind = NoCapacity if lacks_capacity(self._control.said) else NotAwake
        raise kind(
            f"endpoint {self.name} was not awake within {self.startup_timeout:g} s{said}; "
            "run the same command again to continue, or raise its startup_timeout if that is too short"
        )

    async def _enter(self) -> None:
        """Hold the endpoint's window in the ledger. While somebody is pausing the endpoint, wait until that is done."""
        if self._entered:
            return
        tenant, terms = self._tenant, self._control.terms
        if terms is not None:
            self._window = await self._free_window(terms)
        self._entered = True  # the window may hold a dead process's debt: from here on it is ours
        tenant.events.emit(AwakeWindowEntered(self.name))
        if self._window is not None:
            await self.guarding.begin(self._window, tenant.guard, self._stack)

    async def _free_window(self, terms: Terms) -> int:
        tenant, windows = self._tenant, self._tenant.store.windows
        awaiting = False
        while (window := await windows.enter(terms, tenant.process_id, tenant.run_id, tenant.job)) is None:
            if not awaiting:
                tenant.events.emit(AwaitingPause(self.name))
            awaiting = True
            await anyio.sleep(POLL)
            await reap(tenant.store)
        return window

    async def _until_it_answers(self, policy: Policy, deadline: anyio.CancelScope) -> None:
        resumed, asleep = False, 0
        self.waited = False
        while True:
            state = await self._look()
            match state:
                case EndpointState.PAUSED | EndpointState.SCALED_TO_ZERO:
                    asleep += self._fresh
                    if not resumed or asleep > _LAG:
                        self._respect_foreign_pause(state, policy, again=resumed)
                        resumed, asleep = await self._resume(state) or resumed, 0
                case EndpointState.FAILED:
                    kind = NoCapacity if lacks_capacity(self._control.said) else EndpointFailed
                    raise kind(f"endpoint {self.name} failed: {self._control.said}")
                case EndpointState.GONE:
                    raise EndpointFailed(f"there is no endpoint {self.name}: check its name, or create it")
                case EndpointState.STARTING | EndpointState.AWAKE:
                    if await self._control.answers():
                        self._answered = True
                        return
                    if self._control.said != self._reported:
                        self._report(state, self._control.said)
                    # others see it awake, and we cannot reach it: its address may not be the one that we saw
                    self._has_moved = state is EndpointState.AWAKE and self._saw is not EndpointState.AWAKE
            self.waited = True
            if self._control.installing:
                deadline.deadline = anyio.current_time() + self.startup_timeout
            await anyio.sleep(min(POLL, self._control.look_every))

    def _respect_foreign_pause(self, state: EndpointState, policy: Policy, *, again: bool) -> None:
        """`RunStopped` where somebody else has paused what we were using. A provider's timer is nobody."""
        ours = self._control.terms is not None
        if ours and (self._answered or again) and state is EndpointState.PAUSED and policy.on_foreign_pause == "stop":
            raise RunStopped(
                f"somebody paused endpoint {self.name} while it was used; run the same command again to resume it, "
                "or set policy.on_foreign_pause='resume'"
            )

    async def _look(self) -> EndpointState:
        """The endpoint's state. All who hold its window together ask the provider once in `look_every` seconds."""
        windows = self._tenant.store.windows
        self._fresh = False
        if self._window is not None and not await windows.may_look(self._window, self._control.look_every):
            seen = await windows.seen(self._window)
            known = EndpointState.STARTING if seen is None else seen[0]
            if self._saw is not None and not self._has_moved:
                return known
        try:
            state = await self._control.state()
        except EndpointSilent as silence:
            self._report("silent", str(silence))
            return EndpointState.STARTING
        if self._window is not None:
            if self._saw is None and self.terms is not None:
                await self._take_on(self._window, self.terms)
            await windows.saw(self._window, state, self._control.said)
        self._saw, self._fresh, self._has_moved = state, True, False
        self._report(state, self._control.said)
        return state

    def _report(self, state: str, detail: str) -> None:
        self._reported = detail
        self._tenant.events.emit(StateSeen(self.name, state, detail))

    async def _look_again(self) -> bool:
        """Whether it sleeps, for what is said of it at the end: the last look may have been before it was resumed."""
        with anyio.move_on_after(LAST_LOOK), suppress(OrchestratorError):
            return (await self._control.state()).asleep
        return False

    async def _take_on(self, window: int, terms: Terms) -> None:
        """It is the endpoint that was meant. All holders together ask for its price once."""
        price = terms.price_per_hour
        if price is None:
            price = await self._tenant.store.windows.price(window)
        if price is None:
            price = await self._control.price()
        self.price_per_hour = price
        self._tenant.events.emit(PriceSeen(self.name, price))
        if self._tenant.budget_monitor is not None:
            self._tenant.budget_monitor.check_price(price)
        await self._tenant.store.windows.take_on(window, terms, price)
        await self.guarding.tell()
        if self._tenant.budget_monitor is not None:
            self._tenant.budget_monitor.stir()

    async def _resume(self, state: EndpointState) -> bool:
        """Wake it, unless another holder is just doing that; whether we did. The debt is on disk before it can cost."""
        if self._window is not None and self.terms is not None:
            owe = partial(self._tenant.store.windows.owe, process_id=self._tenant.process_id)
            ours = await owe(self._window, self.terms, state, again_after=_LAG * self._control.look_every)
            await self.guarding.tell()
            if not ours:
                return False
        self._resumed = True
        self._tenant.events.emit(ResumeAsked(self.name))
        try:
            reached("before resume")
            await self._control.resume()
            reached("after resume")
        except EndpointFailed as failure:
            if lacks_capacity(str(failure)):
                raise NoCapacity(f"{failure}; run the same command again later") from failure
            raise
        return True

    # -- leaving ------------------------------------------------------------------------------------------------------

    async def _what_is_owed(self, window: int) -> tuple[Leaving, bool]:
        """What the ledger says; where it cannot be written, what it says to who only reads.

        Whatever is wrong with it, our own resuming is reason enough to pause. `PauseUnconfirmed`, upon which our guard
        looks again, where others seem to use the endpoint: they may be leaving just now, and believe that of us.
        """
        store, process_id = self._tenant.store, self._tenant.process_id
        try:
            await reap(store)  # a dead process's hold must not keep us from pausing
            return await store.windows.leave(window, process_id, self.spent)
        except Exception as trouble:  # whatever it is: nothing may keep the endpoint on
            leaving, to_zero = Leaving.OWED if self._resumed else Leaving.STILL_HELD, False
            with suppress(Exception):
                leaving, to_zero = await store.windows.would_leave(window, process_id)
            if leaving is Leaving.STILL_HELD:
                raise PauseUnconfirmed(
                    f"endpoint {self.name} was left to the others who seem to use it, and the ledger could not be told "
                    f"({trouble}); should there be nobody, run `orchestrator sweep`"
                ) from trouble
            return leaving, to_zero

    async def _kept_by(self) -> str:
        """Who wants it awake."""
        with suppress(Exception):  # nothing depends on it
            if self.terms and (kept := await self._tenant.store.lasting_holds.of(self.terms.endpoint)) is not None:
                return f"{kept.kept_by} keeps it"
        return "somebody keeps it"

    async def _pay(self, window: int, *, to_zero: bool) -> None:
        """Pause and see it. Until then the window is held, so that nobody enters; then the debt is settled."""
        store, process_id = self._tenant.store, self._tenant.process_id
        try:
            async with kept_alive(store, process_id):
                with self.counted("pausing"):
                    state = await put_to_sleep(self._control, self.name, self._tenant.events, to_zero=to_zero)
        except PauseUnconfirmed:
            with suppress(Exception):
                await store.windows.drop(window, process_id, self.spent)
            raise
        self.proof = f"endpoint {self.name} read as {self._control.said} at {datetime.now(UTC):%Y-%m-%d %H:%M:%SZ}"
        await store.windows.close(window, process_id, state, self._control.said, by="run", spent=self.spent)

    @contextmanager
    def counted(self, what: str) -> Iterator[None]:
        """Count the block's seconds as `cold_start`, `work`, `idle` or `pausing`."""
        begun = time.monotonic()
        try:
            yield
        finally:
            setattr(self.spent, what, getattr(self.spent, what) + time.monotonic() - begun)


@asynccontextmanager
async def awake(endpoint: Endpoint, tenant: Tenant) -> AsyncIterator[Awake]:
    """Lend an endpoint; nothing is woken until it is used. However the block ends, what is owed has been paid."""
    stack = AsyncExitStack()
    control = await stack.enter_async_context(endpoint.control())
    lent = Awake(endpoint.name, endpoint.startup_timeout, control, tenant, stack)
    try:
        async with lent.guarding.kept():
            yield lent
    finally:
        # with all that was opened: where that is cut short, nobody would hear of a pause that has failed
        with anyio.CancelScope(shield=True):
            async with stack, lent.guarding.kept():
                await lent.leave()
