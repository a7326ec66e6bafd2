"""Running totals: sums over all runs, kept apart from the runs so that pruning does not lower them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from orchestrator.domain.running_totals import RunningTotals, Total

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.domain.running_totals import TotalKey
    from orchestrator.store.connection import AsyncConnection, BlockingConnection

_ADD = "ON CONFLICT (name, label) DO UPDATE SET value = value + excluded.value"
_GROW = f"""
INSERT INTO running_total (name, label, value) SELECT v.value ->> 0, v.value ->> 1, v.value ->> 2
FROM json_each(:rows) v WHERE true {_ADD}
"""
_ALL = "SELECT name, label, value FROM running_total"
# How long an awake window `w` is billed, as in `bill`: from the resume until the endpoint was seen asleep.
BILLED = "max(0.0, coalesce(w.closed_at, :now) - coalesce(w.resumed_at, w.opened_at))"
# What closed windows cost, before they are deleted. `keys`: JSON, their ids.
KEEP_COSTS = tuple(
    f"""
    INSERT INTO running_total (name, label, value)
    SELECT '{total}', w.endpoint, sum({amount}) FROM awake_window w
    WHERE w.id IN (SELECT value FROM json_each(:keys)) AND {amount} IS NOT NULL GROUP BY w.endpoint {_ADD}
    """
    for total, amount in (
        (Total.AWAKE_SECONDS, BILLED.replace(":now", "w.closed_at")),
        (Total.DOLLARS, f"{BILLED.replace(':now', 'w.closed_at')} * w.price_per_hour / 3600.0"),
    )
)


async def grow(connection: AsyncConnection, by: Mapping[TotalKey, float]) -> None:
    """Increase totals, within the caller's transaction."""
    if by:
        rows = [[name, label, value] for (name, label), value in by.items()]
        await connection.execute(_GROW, {"rows": orjson.dumps(rows).decode()})


def read_totals(connection: BlockingConnection) -> RunningTotals:
    """Return all totals."""
    rows = connection.execute(_ALL)
    return RunningTotals({(Total(name), label): value for name, label, value in rows})
