"""by hand: what a person's command wakes is in the ledger, with who did it and until when."""

from __future__ import annotations

import getpass
import os
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.terms import LastingHold, Pause
from orchestrator.engine.awake import POLL
from orchestrator.engine.reaper import reap, registered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.domain.terms import Terms
    from orchestrator.ports import ControlPlane
    from orchestrator.store import Store


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
