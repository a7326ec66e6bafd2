"""Sweep: pay the pauses that dead processes owe. Pauses only what this ledger resumed and no process holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.terms import Spent
from orchestrator.engine.awake.pausing import billed_for, put_to_sleep
from orchestrator.engine.awake.reaper import kept_alive, reap

if TYPE_CHECKING:
    from collections.abc import Collection

    from orchestrator.ports import Endpoint
    from orchestrator.store import Store
    from orchestrator.store.windows import Debt

LOOK = 60.0  # seconds between two looks at an endpoint that the user keeps awake
Revive = Callable[[Mapping[str, object]], "Endpoint"]  # makes an endpoint from what the ledger stores of it


@dataclass(frozen=True, slots=True)
class Swept:
    """The result of paying one debt. `failure` is why it is still owed."""

    endpoint: str
    since: float
    proof: str | None = None
    failure: str | None = None


async def owed(store: Store) -> list[Debt]:
    """Return the debts of dead processes. Calls no provider."""
    await reap(store)
    return [debt for debt in await store.windows.debts() if debt.owed]


async def sweep(store: Store, revive: Revive, process_id: int, *, spare: Collection[str] = ()) -> list[Swept]:
    """Pay all debts in turn, except those of the endpoints in `spare`; one that fails is still owed."""
    await reap(store)
    swept = []
    for debt in await store.windows.debts():
        if debt.endpoint in spare or not await store.windows.claim(debt.window_id, process_id):
            continue
        try:
            if not debt.owed:
                await store.windows.close(debt.window_id, process_id, None, debt.said, by="sweep", spent=Spent())
                continue
            swept.append(await _pay(debt, store, revive, process_id))
        except OrchestratorError as failure:
            swept.append(Swept(debt.endpoint, debt.opened_at, failure=str(failure)))
        finally:
            with suppress(OrchestratorError):
                await store.windows.drop(debt.window_id, process_id, Spent())  # has no effect if it was closed
    await _look_at_lasting_holds(store, revive, spare)
    return swept


async def _look_at_lasting_holds(store: Store, revive: Revive, spare: Collection[str]) -> None:
    """Close lasting holds whose endpoint has been paused meanwhile, for example by the provider's timer."""
    for kept in await store.lasting_holds.unattended(time.time() - LOOK):
        if kept.endpoint in spare or not await store.windows.may_look(kept.window_id, LOOK):
            continue
        with suppress(OrchestratorError):  # nothing is owed, and a later look may succeed
            async with revive(kept.pause_with).control() as control:
                state = await control.state()
                await store.windows.saw(kept.window_id, state, control.status_text)
                if state.asleep:
                    await store.lasting_holds.lapse(kept.endpoint, state, control.status_text)


async def pay_lost(debt: Mapping[str, Any], revive: Revive) -> Swept:
    """Pay a debt whose ledger is gone, which no other process knows of."""
    endpoint, since = str(debt["endpoint"]), float(debt["opened_at"])
    try:
        async with revive(debt["pause_with"]).control() as control:
            await put_to_sleep(control, endpoint, to_zero=bool(debt["to_zero"]))
            return Swept(endpoint, since, proof=_proof(endpoint, control.status_text))
    except OrchestratorError as failure:
        return Swept(endpoint, since, failure=str(failure))


def _proof(endpoint: str, said: str) -> str:
    return f"endpoint {endpoint} read as {said} at {datetime.now(UTC):%Y-%m-%d %H:%M:%SZ}"


async def _pay(debt: Debt, store: Store, revive: Revive, process_id: int) -> Swept:
    """Pause the endpoint and confirm that it is paused."""
    endpoint = revive(debt.pause_with)
    begun = time.monotonic()
    async with kept_alive(store, process_id), endpoint.control() as control:
        state = await put_to_sleep(control, debt.endpoint, to_zero=debt.to_zero)
        said = control.status_text
        billed = await billed_for(control, store, debt.window_id)
    spent = Spent(pausing=time.monotonic() - begun)
    await store.windows.close(debt.window_id, process_id, state, said, by="sweep", spent=spent, billed=billed)
    return Swept(debt.endpoint, debt.opened_at, proof=_proof(debt.endpoint, said))
