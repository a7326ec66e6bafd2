"""Awake: wake an endpoint, open its data plane, and pause it again however the block ends."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

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
    PriceSeen,
    RestartBegan,
    ResumeAsked,
    StateSeen,
    WakeBegan,
)
from orchestrator.domain.failpoints import reached
from orchestrator.domain.terms import Spent
from orchestrator.engine.awake.guarding import Guarding
from orchestrator.engine.awake.pausing import billed_for, put_to_sleep
from orchestrator.engine.awake.reaper import kept_alive, reap
from orchestrator.ports import HasMembers, Metered, PricedByUse, Restarts
from orchestrator.store.windows import Leaving

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence

    from orchestrator.domain.events import RunEvent
    from orchestrator.domain.policy import Policy
    from orchestrator.domain.terms import Billed, Terms
    from orchestrator.engine.awake.budget_monitor import BudgetMonitor
    from orchestrator.engine.awake.tenant import Tenant
    from orchestrator.ports import ControlPlane, DataPlane, Endpoint, Member

POLL = 0.25  # seconds between two attempts to reach the data plane
_LAG = 2  # this many looks may still show a resumed endpoint as paused

LAST_LOOK = 5.0  # seconds for the last look at an endpoint that is not paused, or was not awake in time


class Awake:
    """An endpoint inside its `awake` block. `spent`, `billed` and `proof` are complete when the block has ended.

    `whole`: the endpoint of which this is a member. `charges`: whether it charges for answers.
    """

    def __init__(
        self,
        name: str,
        startup_timeout: float,
        control: ControlPlane,
        tenant: Tenant,
        stack: AsyncExitStack,
        whole: Awake | None = None,
        *,
        charges: bool = False,
    ) -> None:
        self.name = name
        self.spent = Spent()
        self.billed: Billed | None = None
        self.price_per_hour: float | None = None
        self.proof: str | None = None
        self.startup_timeout = startup_timeout
        self._control = control
        self._tenant = tenant
        self._stack = stack
        self._whole = whole
        self._charges = charges
        self.window: int | None = None
        self.guarding = Guarding(tenant.store.windows, name, tenant.events)
        self._entered = False
        self._saw: EndpointState | None = None  # at our own last look
        self._fresh = False  # whether the last state came from a look of our own
        self._has_moved = False
        self._reported = ""  # the description that listeners last received
        self._resumed = False
        self._answered = False
        self.cold_start = 0.0  # seconds that waking took, the longest time
        self.waited = False  # whether the last connection had to wait for it

    @property
    def terms(self) -> Terms | None:
        """The endpoint's terms, once it has been looked at."""
        return self._control.terms

    def members(self) -> AsyncGenerator[Sequence[Member]] | None:
        """Return the changes of its members, as `HasMembers.members`; None if it is a single server."""
        return self._control.members() if isinstance(self._control, HasMembers) else None

    @asynccontextmanager
    async def member(self, member: Member) -> AsyncIterator[Awake]:
        """Open one of its members: nothing starts until it is used, and it is paused when the block ends."""
        async with AsyncExitStack() as stack:
            lent = Awake(member.name, self.startup_timeout, member, self._tenant, stack, self)
            try:
                yield lent
            finally:
                with anyio.CancelScope(shield=True):
                    await lent.leave()

    @asynccontextmanager
    async def connect(self, policy: Policy) -> AsyncIterator[DataPlane]:
        """Wake the endpoint if it is not awake and open its data plane; also after it was lost."""
        self.emit(WakeBegan(self.name))
        begun = time.monotonic()
        with self.counted("cold_start"):
            await self._wake(policy)
        waking = time.monotonic() - begun
        self.cold_start = max(self.cold_start, waking)
        self.emit(EndpointAwake(self.name, waking))
        async with self._control.connect(policy) as model:
            with self.counted("work"):
                yield model

    @property
    def restarts(self) -> bool:
        """Whether the server can be restarted if it fails every request."""
        return isinstance(self._control, Restarts)

    async def restart(self, *, unless_well: bool) -> None:
        """Stop a server of ours, which the next connection starts again; `unless_well`: not if it answers."""
        if isinstance(self._control, Restarts) and not (unless_well and await self._control.answers()):
            self.emit(RestartBegan(self.name))
            await self._control.restart()

    @property
    def budget_monitor(self) -> BudgetMonitor | None:
        """The limit on what it may cost; None if it costs nothing that we know of, or if no budget is set."""
        return self._tenant.budget_monitor if self.terms is not None or self._charges else None

    @property
    def may_cost_no_more(self) -> bool:
        """Whether a budget is spent."""
        return self.budget_monitor is not None and self.budget_monitor.standing is not None

    @property
    def was_used(self) -> bool:
        """Whether it bills, and has been used."""
        return self.window is not None

    def emit(self, event: RunEvent) -> None:
        """Report what happens to it."""
        self._tenant.events.emit(event)

    async def leave(self) -> None:
        """Pause the endpoint unless others use it or it is not ours. Raises `PauseUnconfirmed` if that fails.

        Raises `Fenced` if a pause is owed and this process is considered dead.
        """
        self.emit(LeaveBegan(self.name))
        if not self._entered:
            return
        if self.window is None:
            if self._whole is None or await self._whole.may_pause_member():
                await put_to_sleep(self._control, self.name, self._tenant.events, to_zero=False)
            return
        leaving, to_zero = await self._leave_window(self.window)
        match leaving:
            case Leaving.STILL_HELD:
                self.proof = f"endpoint {self.name} is still used by another run, which will pause it"
            case Leaving.KEPT:
                asleep = await self._look_again()
                left = "is asleep, although " if asleep else "was left awake, as "
                self.proof = f"endpoint {self.name} {left}{await self._kept_by()}: {self._control.status_text}"
            case Leaving.NOT_OURS:
                if self._saw is not None:
                    self.proof = f"endpoint {self.name} was left as it was found: {self._control.status_text}"
            case Leaving.OWED:
                await self._pay(self.window, to_zero=to_zero)
            case Leaving.FENCED:  # our guard pauses it, as it counts as alive
                raise Fenced("this process was silent for too long and considered dead; its guard pauses the endpoint")

    async def may_pause_member(self) -> bool:
        """Whether a member that this process leaves is to be paused: it is not if others use the endpoint."""
        if self.window is None:
            return True
        try:
            leaving, _ = await self._tenant.store.windows.would_leave(self.window, self._tenant.process_id)
        except Exception:  # noqa: BLE001 - without the ledger, what is paid for here must not stay on
            return self._resumed
        return leaving is Leaving.OWED

    # -- waking -------------------------------------------------------------------------------------------------------

    async def _wake(self, policy: Policy) -> None:
        with anyio.move_on_after(self.startup_timeout) as deadline:
            await self._enter()
            await self._until_it_answers(policy, deadline)
            return
        await self._look_again()
        said = f": {self._control.status_text}" if self._control.status_text else ""
        kind = NoCapacity if lacks_capacity(self._control.status_text) else NotAwake
        raise kind(
            f"endpoint {self.name} was not awake within {self.startup_timeout:g} s{said}; "
            "run the same command again to continue, or raise its startup_timeout if that is too short"
        )

    async def _enter(self) -> None:
        """Hold the endpoint's window in the ledger; first wait until no other process is pausing the endpoint."""
        if self._entered:
            return
        tenant, terms = self._tenant, self._control.terms
        if terms is not None:
            self.window = await self._free_window(terms)
        self._entered = True  # the window may hold a dead process's debt, which is ours from here on
        tenant.events.emit(AwakeWindowEntered(self.name))
        if self.window is not None:
            await self.guarding.begin(self.window, tenant.guard, self._stack)

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
                    kind = NoCapacity if lacks_capacity(self._control.status_text) else EndpointFailed
                    raise kind(f"endpoint {self.name} failed: {self._control.status_text}")
                case EndpointState.GONE:
                    raise EndpointFailed(f"there is no endpoint {self.name}: check its name, or create it")
                case EndpointState.STARTING | EndpointState.AWAKE:
                    if await self._control.answers():
                        self._answered = True
                        return
                    if self._control.status_text != self._reported:
                        self._report(state, self._control.status_text)
                    # others see it awake and we cannot reach it, so its address may have changed since our last look
                    self._has_moved = state is EndpointState.AWAKE and self._saw is not EndpointState.AWAKE
            self.waited = True
            if self._control.installing:
                deadline.deadline = anyio.current_time() + self.startup_timeout
            await anyio.sleep(min(POLL, self._control.look_every))

    def _respect_foreign_pause(self, state: EndpointState, policy: Policy, *, again: bool) -> None:
        """Raise `RunStopped` if somebody else paused what we were using; a provider's timer does not count."""
        if (
            self._bills
            and (self._answered or again)
            and state is EndpointState.PAUSED
            and policy.on_foreign_pause == "stop"
        ):
            raise RunStopped(
                f"endpoint {self.name} was paused while it was used; run the same command again to resume it, "
                "or set policy.on_foreign_pause='resume'"
            )

    async def _look(self) -> EndpointState:
        """Return the endpoint's state. All holders of its window together ask the provider once in `look_every`."""
        windows = self._tenant.store.windows
        self._fresh = False
        if self.window is not None and not await windows.may_look(self.window, self._control.look_every):
            seen = await windows.seen(self.window)
            shared = EndpointState.STARTING if seen is None else seen[0]
            if self._saw is not None and not self._has_moved:
                return shared
        try:
            state = await self._control.state()
        except EndpointSilent as silence:
            self._report("silent", str(silence))
            return EndpointState.STARTING
        if self.window is not None:
            if self._saw is None and self.terms is not None:
                await self._take_on(self.window, self.terms)
            await windows.saw(self.window, state, self._control.status_text)
        self._saw, self._fresh, self._has_moved = state, True, False
        self._report(state, self._control.status_text)
        return state

    def _report(self, state: str, detail: str) -> None:
        self._reported = detail
        self.emit(StateSeen(self.name, state, detail))

    async def _look_again(self) -> bool:
        """Whether it sleeps, for the final report, as the last look may have been before it was resumed."""
        with anyio.move_on_after(LAST_LOOK), suppress(OrchestratorError):
            return (await self._control.state()).asleep
        return False

    async def _take_on(self, window: int, terms: Terms) -> None:
        """Record the endpoint's terms and price in its window. All holders together ask for the price once."""
        price = terms.price_per_hour
        if price is None:
            price = await self._tenant.store.windows.price(window)
        if price is None:
            price = await self._control.price()
        self.price_per_hour = price
        self.emit(PriceSeen(self.name, price))
        if self._tenant.budget_monitor is not None:
            self._tenant.budget_monitor.check_price(price)
        await self._tenant.store.windows.take_on(window, terms, price)
        await self.guarding.tell()
        if self._tenant.budget_monitor is not None:
            self._tenant.budget_monitor.stir()

    @property
    def _bills(self) -> bool:
        """Whether it costs money: it has terms, or is a member of an endpoint that has."""
        return (self._whole or self).terms is not None

    async def _owe(self, state: EndpointState) -> bool:
        """Record the debt before it costs; return False if another holder resumes it now, or nobody could pay."""
        whole = self._whole or self
        windows, process_id = self._tenant.store.windows, self._tenant.process_id
        if whole.window is None or whole.terms is None:
            return True
        if whole is not self:  # a part of what is awake, or was just asked to wake
            owed = await windows.owe_member(whole.window, whole.terms, process_id)
        else:
            again_after = _LAG * self._control.look_every
            owed = await windows.owe(whole.window, whole.terms, state, again_after=again_after, process_id=process_id)
        await whole.guarding.tell()
        if owed and isinstance(self._control, Metered):
            self._control.prepare(await windows.label(whole.window), await self._tenant.lifetime())
        return owed

    async def _resume(self, state: EndpointState) -> bool:
        """Resume it unless another holder does so now; return whether we did. The debt is on disk before it costs."""
        if not await self._owe(state):
            return False
        self._resumed = True
        self.emit(ResumeAsked(self.name))
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

    async def _leave_window(self, window: int) -> tuple[Leaving, bool]:
        """Leave the window; return what that leaves to do. If the ledger cannot be written, only read it.

        If even that fails, pause what we resumed ourselves. If others seem to use the endpoint, they may be leaving
        just now and believe the same of us: this raises `PauseUnconfirmed`, after which our guard checks again.
        """
        store, process_id = self._tenant.store, self._tenant.process_id
        try:
            await reap(store)  # a dead process's hold must not keep us from pausing
            return await store.windows.leave(window, process_id, self.spent)
        except Exception as trouble:  # whatever happens, the endpoint must not stay on
            leaving, to_zero = Leaving.OWED if self._resumed else Leaving.STILL_HELD, False
            with suppress(Exception):
                leaving, to_zero = await store.windows.would_leave(window, process_id)
            if leaving is Leaving.STILL_HELD:
                raise PauseUnconfirmed(
                    f"endpoint {self.name} was not paused, as other processes seem to use it, and the ledger could not "
                    f"be updated ({trouble}); if none uses it, run `orchestrator sweep`"
                ) from trouble
            return leaving, to_zero

    async def _kept_by(self) -> str:
        """Return a phrase that says who keeps it awake."""
        with suppress(Exception):  # nothing depends on it
            if self.terms and (kept := await self._tenant.store.lasting_holds.of(self.terms.endpoint)) is not None:
                return f"{kept.kept_by} keeps it"
        return "somebody keeps it"

    async def _pay(self, window: int, *, to_zero: bool) -> None:
        """Pause it and confirm that. Until then the window is held, so that no run enters; then settle the debt."""
        store, process_id = self._tenant.store, self._tenant.process_id
        try:
            async with kept_alive(store, process_id):
                with self.counted("pausing"):
                    state = await put_to_sleep(self._control, self.name, self._tenant.events, to_zero=to_zero)
        except PauseUnconfirmed:
            with suppress(Exception):
                await store.windows.drop(window, process_id, self.spent)
            raise
        self.proof = (
            f"endpoint {self.name} read as {self._control.status_text} at {datetime.now(UTC):%Y-%m-%d %H:%M:%SZ}"
        )
        self.billed = await billed_for(self._control, store, window)
        spent, billed = self.spent, self.billed
        await store.windows.close(
            window, process_id, state, self._control.status_text, by="run", spent=spent, billed=billed
        )

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
    """Open an endpoint; nothing is woken until it is used. However the block ends, what is owed has been paid."""
    stack = AsyncExitStack()
    control = await stack.enter_async_context(endpoint.control())
    charges = isinstance(endpoint, PricedByUse) and endpoint.use_price is not None
    lent = Awake(endpoint.name, endpoint.startup_timeout, control, tenant, stack, charges=charges)
    try:
        async with lent.guarding.kept():
            yield lent
    finally:
        # the shield covers closing the stack: if that were cut short, a failed pause would go unreported
        with anyio.CancelScope(shield=True):
            async with stack, lent.guarding.kept():
                await lent.leave()
