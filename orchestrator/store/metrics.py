"""Metrics of the ledger: what `/metrics` shows, read anew each time. Read only."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.domain.metrics import AwakeTotal, LedgerMetrics
from orchestrator.domain.running_totals import Total
from orchestrator.store.running_totals import BILLED, read_totals
from orchestrator.store.windows import Windows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from orchestrator.domain.running_totals import RunningTotals
    from orchestrator.store.connection import BlockingConnection
    from orchestrator.store.database import Database

# Each looks only at what is open, so that a long past costs nothing.
_ITEMS = """
SELECT c.state, sum(c.hi - c.lo - c.completed - c.discarded) FROM (
    SELECT * FROM chunk INDEXED BY ix_chunk_available WHERE state = 'available'
    UNION ALL SELECT * FROM chunk INDEXED BY ix_chunk_leased WHERE state = 'leased') c
JOIN run r ON r.id = c.run_id WHERE r.state NOT IN ('finished', 'cancelled', 'superseded') GROUP BY c.state
"""
_EXECUTING = """
SELECT count(*), coalesce(sum((
    SELECT g.in_flight FROM reading g WHERE g.run_id = r.id AND g.process_id = r.holder ORDER BY g.at DESC LIMIT 1)), 0)
FROM run r INDEXED BY ix_run_holder JOIN process p ON p.id = r.holder
WHERE r.holder IS NOT NULL AND p.state = 'live' AND p.lease_until > :now
"""
_QUEUE = """
SELECT iif(held, 'held', iif(due_at <= :now, 'due', 'later')) AS state, count(*)
FROM run INDEXED BY ix_run_queued WHERE due_at IS NOT NULL AND holder IS NULL GROUP BY 1
"""
_AWAKE = f"""
SELECT w.endpoint, sum({BILLED}), sum({BILLED} * w.price_per_hour / 3600.0), max(w.state <> 'closed')
FROM awake_window w GROUP BY w.endpoint
"""


class Metrics:
    """Queries for a monitoring system."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def now(self) -> LedgerMetrics:
        """The ledger at this moment."""
        debts = [debt for debt in await Windows(self._database).debts() if debt.owed]
        return replace(await self._database.read_in_one_trip(_metrics), debts=len(debts))


def _metrics(connection: BlockingConnection) -> LedgerMetrics:
    """Return everything but the debts."""
    values = {"now": time.time()}
    totals = read_totals(connection)
    executing, in_flight = connection.execute(_EXECUTING, values).one()
    return LedgerMetrics(
        totals,
        {"available": 0, "leased": 0} | _numbers(connection.execute(_ITEMS)),
        in_flight,
        executing,
        {"due": 0, "later": 0, "held": 0} | _numbers(connection.execute(_QUEUE, values)),
        _endpoints(connection, totals, values),
    )


def _numbers(rows: Iterable[Sequence[Any]]) -> dict[str, int]:
    return {state: number for state, number in rows}  # noqa: C416 - rows have no types that `dict` takes


def _endpoints(
    connection: BlockingConnection, totals: RunningTotals, values: Mapping[str, object]
) -> dict[str, AwakeTotal]:
    """Return what endpoints have cost: their windows, and those that were pruned."""
    windows = {row[0]: row[1:] for row in connection.execute(_AWAKE, values)}
    pruned = {label for name, label in totals.values if name is Total.AWAKE_SECONDS}
    found = dict[str, AwakeTotal]()
    for endpoint in sorted(windows.keys() | pruned):
        seconds, dollars, awake = windows.get(endpoint, (0.0, None, 0))
        before = totals.values.get((Total.DOLLARS, endpoint))
        found[endpoint] = AwakeTotal(
            seconds + totals.of(Total.AWAKE_SECONDS, endpoint),
            None if dollars is None and before is None else (dollars or 0.0) + (before or 0.0),
            bool(awake),
        )
    return found
