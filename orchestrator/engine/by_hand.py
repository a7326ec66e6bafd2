"""by hand: what a person's command wakes or pauses is in the ledger, with who did it and until when."""

from __future__ import annotations

import getpass
import os
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import OrchestratorError, UsageError
from orchestrator.domain.terms import LastingHold, Pause, Spent
from orchestrator.engine.awake import POLL
from orchestrator.engine.reaper import kept_alive, reap, registered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from orchestrator.domain.terms import Terms
    from orchestrator.ports import ControlPlane
    from orchestrator.store import Store
    from orchestrator.store.windows import Holder

Seen = tuple[EndpointState, str]  # what a look showed, ours and the provider's word


@dataclass(frozen=True, slots=True)
class Waking:
    """What a command is about to do to an endpoint, and for how many seconds it is to stay awake; None: until paused.

    `command` names it where costs are added up by job.
    """

    command: str
    seconds: float | None = None


@asynccontextmanager
async def kept_by_hand(
    store: Store, control: ControlPlane, terms: Terms, waking: Waking, found: EndpointState
) -> AsyncIterator[int]:
    """Record that a person keeps the endpoint awake, before the block wakes it; give the window's number.

    With a time, the pause is owed once that is up. Where the block fails and the endpoint is asleep, nothing is kept.
    """
    until = None if waking.seconds is None else time.time() + waking.seconds
    terms = replace(terms, pause=_pause(waking, found))
    if found.asleep:  # what somebody kept awake earlier has been put to sleep meanwhile
        await store.lasting_holds.lapse(terms.endpoint, found, control.said)
    async with registered(store) as process_id:
        window = await _entered(store, terms, process_id, waking, LastingHold(_person(), until))
        price = terms.price_per_hour
        await store.windows.take_on(window, terms, await control.price() if price is None else price)
        if found.asleep or found is EndpointState.FAILED:
            await store.windows.owe(window, terms, found)
        try:
            yield window
        except OrchestratorError:
            with suppress(OrchestratorError):
                if (await control.state()).asleep:
                    await store.lasting_holds.forget(window, process_id)
            raise


def _pause(waking: Waking, found: EndpointState) -> Pause:
    if waking.seconds is None:
        return Pause.NEVER
    return Pause.IF_RESUMED if found.asleep else Pause.ALWAYS


async def _entered(store: Store, terms: Terms, process_id: int, waking: Waking, lasting: LastingHold) -> int:
    """The window; while somebody is pausing the endpoint, wait until that is done."""
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
    """Living processes that use the endpoint."""
    await reap(store)
    return await store.windows.holders(name)


def held_by(holder: Holder) -> str:
    """A holder in words."""
    what = f"run {holder.run_id} of {holder.job}" if holder.run_id else holder.job or "a sweep"
    return f"{what} (process {holder.pid} on {holder.host.partition('/')[0]})"


async def refuse_while_held(store: Store, name: str, remedy: str) -> None:
    """`UsageError` where a living process uses the endpoint."""
    if found := await holders(store, name):
        raise UsageError(f"endpoint {name} is used by {', '.join(map(held_by, found))}; {remedy}")


async def settling(store: Store, name: str, by: str, put_down: Callable[[], Awaitable[Seen]]) -> Seen:
    """Put the endpoint down, and with that settle the pause which a dead process owes. Nobody enters meanwhile.

    What a person kept awake by hand is owed a pause from here on, until it was seen.
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
                await store.windows.close(window, process_id, state, said, by=by, spent=Spent())
            return state, said
        finally:
            with anyio.CancelScope(shield=True), suppress(OrchestratorError):
                for window in taken:
                    await store.windows.drop(window, process_id, Spent())  # nothing where it was closed
