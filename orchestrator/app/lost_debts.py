"""Debts of lost ledgers: pauses that guards gave up, of a ledger that is no longer at its place."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from anyio import to_thread

from orchestrator.engine.awake.sweep import Swept
from orchestrator.guard.traces import traces
from orchestrator.store.ledger_file import identity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from orchestrator.guard.traces import Trace
    from orchestrator.store import Store


async def adopt_lost_debts(store: Store) -> None:
    """Take over what guards of lost ledgers gave up pausing, so that every sweep of this ledger pays it."""
    ledger = store.database.path
    for trace in await to_thread.run_sync(_given_up, ledger):
        if (debt := trace.debt) is not None and await to_thread.run_sync(is_lost, debt, ledger):
            endpoint, to_zero, opened_at = str(debt["endpoint"]), bool(debt["to_zero"]), float(debt["opened_at"])
            await store.windows.adopt(endpoint, debt["pause_with"], to_zero=to_zero, opened_at=opened_at)
        await to_thread.run_sync(partial(trace.path.unlink, missing_ok=True))


def _given_up(ledger: Path) -> list[Trace]:
    """Return the traces that guards have left beside this ledger, except of those that are still trying."""
    return [trace for trace in traces(ledger) if not trace.at_work]


def is_lost(debt: Mapping[str, object], ledger: Path) -> bool:
    """Whether the ledger that owed this is no longer at its place."""
    file = identity(ledger)
    return file is None or debt["file"] != list(file)


def without_ledger(ledger: Path) -> str:
    """Return what can be done to find what is owed, if the ledger is gone and no guard has given up."""
    trying = [(one, one.debt) for one in traces(ledger) if one.at_work]
    if named := [f"{debt['endpoint']} (guard {one.pid}: {one.said})" for one, debt in trying if debt is not None]:
        return f"there is no ledger {ledger}; guards are still trying to pause {', '.join(named)}"
    return (
        f"there is no ledger {ledger}, and no guard has left a debt beside it: name another one with --db, put a "
        "backup in its place, or see what is awake with `orchestrator endpoints list`"
    )


def lost_debts(ledger: Path) -> list[Swept]:
    """Return what lost ledgers owe, according to the traces beside this one."""
    lost = [trace.debt for trace in _given_up(ledger) if trace.debt is not None and is_lost(trace.debt, ledger)]
    return [Swept(str(debt["endpoint"]), float(debt["opened_at"])) for debt in lost]
