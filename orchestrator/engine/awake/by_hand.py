"""By hand: wake and pause endpoints for a command, recording in the ledger who did it and until when."""

from __future__ import annotations

import getpass
import os
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.command_line import typed
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointFailed, EndpointSilent, OrchestratorError, UsageError
from orchestrator.domain.lifetime import lifetime
from orchestrator.domain.terms import LastingHold, Pause, Spent
from orchestrator.engine.awake.awake import POLL
from orchestrator.engine.awake.pausing import PAUSE_DEADLINE, billed_for, put_to_sleep
from orchestrator.engine.awake.reaper import kept_alive, reap, registered
from orchestrator.ports import Metered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from orchestrator.domain.terms import Terms
    from orchestrator.ports import ControlPlane, Endpoint
    from orchestrator.store import Store
    from orchestrator.store.windows import Holder

Seen = tuple[EndpointState, str]  # the state as we and as the provider call it

_LAG = 3  # this many looks may still show a resumed endpoint as asleep


@dataclass(frozen=True, slots=True)
class Waking:
    """What a command is about to do to an endpoint, and for how many seconds it stays awake; None: until paused.

    `command`: the name under which its costs are listed among the jobs.
    """

    command: str
    seconds: float | None = None


@asynccontextmanager
async def kept_by_hand(
    store: Store, control: ControlPlane, terms: Terms, waking: Waking, found: EndpointState
) -> AsyncIterator[int]:
    """Record that the user keeps the endpoint awake, before the block wakes it; yield the window's number.

    With a time limit, the pause is owed once that is over. If the block fails and the endpoint is asleep, the record is
    removed.
    """
    until = None if waking.seconds is None else time.time() + waking.seconds
    terms = replace(terms, pause=_pause_of(waking, found))
    if found.asleep:  # an earlier hold has ended, as the endpoint sleeps
        await store.lasting_holds.lapse(terms.endpoint, found, control.status_text)
    async with registered(store) as process_id:
        window = await _entered(store, terms, process_id, waking, LastingHold(_person(), until))
        price = terms.price_per_hour
        await store.windows.take_on(window, terms, await control.price() if price is None else price)
        if found.asleep or found is EndpointState.FAILED:
            await store.windows.owe(window, terms, found)
        if isinstance(control, Metered):
            most = inf if waking.seconds is None else lifetime(budget_left=waking.seconds)
            control.prepare(await store.windows.label(window), most)
        try:
            yield window
        except OrchestratorError:
            with suppress(OrchestratorError):
                if (await control.state()).asleep:
                    await store.lasting_holds.forget(window, process_id)
            raise


def _pause_of(waking: Waking, found: EndpointState) -> Pause:
    if waking.seconds is None:
        return Pause.NEVER
    return Pause.IF_RESUMED if found.asleep else Pause.ALWAYS


async def _entered(store: Store, terms: Terms, process_id: int, waking: Waking, lasting: LastingHold) -> int:
    """Enter the endpoint's window and return it; first wait until no other process is pausing the endpoint."""
    job = f"({waking.command})"
    while (window := await store.windows.enter(terms, process_id, None, job, lasting)) is None:
        await anyio.sleep(POLL)
        await reap(store)
    return window


def _person() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        return f"user {os.getuid()}"


async def holders(store: Store, name: str) -> list[Holder]:
    """Return the living processes that use the endpoint."""
    await reap(store)
    return await store.windows.holders(name)


def held_by(holder: Holder) -> str:
    """Return a holder in words."""
    user = f"run {holder.run_id} of {holder.job}" if holder.run_id else holder.job or "a sweep"
    return f"{user} (process {holder.pid} on {holder.host.partition('/')[0]})"


async def refuse_while_held(store: Store, name: str, remedy: str) -> None:
    """Raise `UsageError` if a living process uses the endpoint."""
    if current := await holders(store, name):
        raise UsageError(f"endpoint {name} is used by {', '.join(map(held_by, current))}; {remedy}")


async def settling(
    store: Store, name: str, by: str, put_down: Callable[[], Awaitable[Seen]], control: ControlPlane | None = None
) -> Seen:
    """Put the endpoint to sleep and settle the pauses that dead processes owe for it. No run can enter meanwhile.

    A lasting hold ends here; until the endpoint is seen asleep, its pause is owed. `control`: says what was billed.
    """
    await reap(store)
    await store.lasting_holds.release(name)
    debts = [debt for debt in await store.windows.debts() if debt.endpoint == name]
    if not debts:
        return await put_down()
    async with registered(store) as process_id, kept_alive(store, process_id):
        taken = [debt.window_id for debt in debts if await store.windows.claim(debt.window_id, process_id)]
        try:
            state, said = await put_down()
            for window in taken:
                billed = None if control is None else await billed_for(control, store, window)
                await store.windows.close(window, process_id, state, said, by=by, spent=Spent(), billed=billed)
            return state, said
        finally:
            with anyio.CancelScope(shield=True), suppress(OrchestratorError):
                for window in taken:
                    await store.windows.drop(window, process_id, Spent())  # has no effect if it was closed


# -- commands ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Resumed:
    """The result of waking an endpoint for the user. `state`: in the provider's words.

    `resumed`: it was asleep, and costs money from now on. `pause_owed`: the ledger owes it a pause.
    """

    endpoint: str
    resumed: bool
    state: str
    answers: bool
    pause_owed: bool


@dataclass(frozen=True, slots=True)
class Paused:
    """The result of pausing an endpoint for the user. `asked`: we requested a pause. `confirmed`: it sleeps."""

    endpoint: str
    state: str
    asked: bool = True
    confirmed: bool = False


async def resume(
    endpoint: Endpoint, store: Store, say: Callable[[str], None], *, seconds: float | None, wait: bool
) -> Resumed:
    """Wake an endpoint for the user, until it is paused or its `seconds` are over; with `wait`, until it answers."""
    async with endpoint.control() as control, AsyncExitStack() as stack:
        state = await control.state()
        name = control.terms.endpoint if control.terms else endpoint.name
        resumed = control.terms is not None and (state.asleep or state is EndpointState.FAILED)
        if state is EndpointState.GONE:
            raise absent(name)
        if control.terms is None and seconds is not None:
            raise UsageError(f"endpoint {name} is kept running by somebody else: it cannot be paused after --for")
        if control.terms is not None and (resumed or seconds is not None):
            waking = Waking("resume", seconds)
            await stack.enter_async_context(kept_by_hand(store, control, control.terms, waking, state))
        if resumed:
            await control.resume()
        if wait:
            await until_it_answers(control, name, endpoint.startup_timeout, say)
        if control.terms is not None:
            await control.state()
        said = control.status_text if control.terms else "kept running by somebody else"
    await reap(store)
    owed = any(debt.owed for debt in await store.windows.debts() if debt.endpoint == name)
    return Resumed(name, resumed, said, wait, owed)


async def pause(endpoint: Endpoint, store: Store, *, wait: bool, force: bool) -> Paused:
    """Pause an endpoint for the user; with `wait`, confirm that it sleeps. `force`: even while a run uses it."""
    async with endpoint.control() as control:
        state = await control.state()
        if control.terms is None:
            return Paused(endpoint.name, "kept running by somebody else, and not ours to pause", asked=False)
        name = control.terms.endpoint
        if state is EndpointState.GONE:
            raise absent(name)
        if not force:
            await refuse_while_held(store, name, "stop that first, or pass --force")
        if wait:
            _, said = await settling(store, name, "pause", partial(_until_paused, control, name), control)
            return Paused(name, said, confirmed=True)
        await store.lasting_holds.release(name)
        await control.pause()
        await control.state()
        return Paused(name, control.status_text)


async def _until_paused(control: ControlPlane, name: str) -> Seen:
    """Pause an endpoint; one that had scaled to zero is asleep at once, so wait until it is really paused."""
    state = await put_to_sleep(control, name, to_zero=False)
    with anyio.move_on_after(PAUSE_DEADLINE):
        while state is EndpointState.SCALED_TO_ZERO:
            await anyio.sleep(control.look_every)
            state = await control.state()
    return state, control.status_text


async def until_it_answers(
    control: ControlPlane, name: str, seconds: float, say: Callable[[str], None], *, lag: int = _LAG
) -> None:
    """Wait until the data plane answers. Raises `EndpointFailed` if it does not; the endpoint is left as it is.

    A sleeping endpoint is not asked, since a request may wake it; it may be seen asleep `lag` times. A control plane
    that does not answer is retried.
    """
    asleep, reported = 0, ""
    with anyio.move_on_after(seconds):
        while True:
            state, said = await _seen(control)
            if said not in {"", reported}:
                reported = said
                say(f"endpoint {name}: {reported}")
            asleep += state.asleep
            if state is EndpointState.FAILED:
                raise EndpointFailed(f"endpoint {name} did not come up: {control.status_text}")
            if asleep > lag:
                remedy = f"{typed('endpoints', 'resume', name)} --wait"
                raise EndpointFailed(
                    f"endpoint {name} is asleep ({control.status_text}) and nothing wakes it: {remedy}"
                )
            if state is EndpointState.GONE:
                raise absent(name)
            with anyio.move_on_after(control.look_every):
                while state.asleep or not await control.answers():
                    await anyio.sleep(POLL)
                return
    raise EndpointFailed(
        f"endpoint {name} did not answer within {seconds:g} s ({control.status_text}); it may cost money: "
        f"{typed('endpoints', 'pause', name)}"
    )


async def _seen(control: ControlPlane) -> tuple[EndpointState, str]:
    """Return the endpoint's state, and its description in the provider's words."""
    if control.terms is None:
        return EndpointState.AWAKE, ""
    try:
        return await control.state(), control.status_text
    except EndpointSilent as silence:
        return EndpointState.STARTING, str(silence)


def absent(name: str) -> EndpointFailed:
    """Return the error for an endpoint that does not exist."""
    return EndpointFailed(f"there is no endpoint {name}: check its name, see `orchestrator endpoints list`")
