"""Running totals: sums over all runs, kept apart from the runs so that pruning does not lower them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from sqlalchemy import text

from orchestrator.domain.running_totals import Total

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.ext.asyncio import AsyncConnection

    from orchestrator.domain.running_totals import TotalKey

_ON_CONFLICT = "ON CONFLICT (name, label) DO UPDATE SET value = value + excluded.value"
_GROW = text(f"""
INSERT INTO running_total (name, label, value) SELECT v.value ->> 0, v.value ->> 1, v.value ->> 2
FROM json_each(:rows) v WHERE true {_ON_CONFLICT}
""")
_ALL = text("SELECT name, label, value FROM running_total")
# As `bill` adds up: from the resume until it was seen asleep.
_SECONDS = "max(0.0, coalesce(w.closed_at, :now) - coalesce(w.resumed_at, w.opened_at))"
AWAKE = {
    Total.AWAKE_SECONDS: f"SELECT w.endpoint, sum({_SECONDS}) FROM awake_window w WHERE {{where}} GROUP BY w.endpoint",
    Total.DOLLARS: f"SELECT w.endpoint, sum({_SECONDS} * w.price_per_hour / 3600.0) FROM awake_window w "
    "WHERE {where} AND w.price_per_hour IS NOT NULL GROUP BY w.endpoint",
}
# Before closed windows are deleted: what they add to the totals. The keys are those of the windows.
KEEP_AWAKE = tuple(
    text(
        f"INSERT INTO running_total (name, label, value) SELECT '{total}', a.* FROM ("
        + select.replace(":now", "w.closed_at").format(where="w.id IN (SELECT value FROM json_each(:keys))")
        + f") a WHERE true {_ON_CONFLICT}"
    )
    for total, select in AWAKE.items()
)


async def grow(connection: AsyncConnection, by: Mapping[TotalKey, float]) -> None:
    """Increase totals, within the caller's transaction."""
    if by:
        rows = [[name, label, value] for (name, label), value in by.items()]
        await connection.execute(_GROW, {"rows": orjson.dumps(rows).decode()})
