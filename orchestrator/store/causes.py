"""Causes of failures: which failures count as the same one, and a run's discarded items grouped by them. Read only.

Messages that differ only in numbers are one cause: 4413 and 4668 characters are both too many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from orchestrator.domain.errors import UsageError
from orchestrator.domain.run import Cause
from orchestrator.store.chunks import POSITION_BITS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.store.connection import AsyncConnection

_BEGINS = "substr(a.message, 1, 120)"  # of the last attempt of an item, joined as `a`


def _masked(expression: str) -> str:
    for digit in "0123456789":
        expression = f"replace({expression}, '{digit}', '#')"
    for _ in range(4):
        expression = f"replace({expression}, '##', '#')"
    return expression


# Whether the attempt `a` failed for the cause that `cause_of` has returned.
IS_ALIKE = f"a.kind = :kind AND a.status IS :status AND {_masked(_BEGINS)} = :begins"
_OF_ITEM = f"""
SELECT a.kind, a.status, {_masked(_BEGINS)} AS begins FROM item i
JOIN member m ON m.item_key = i.key AND m.run_id = :run
JOIN result r ON r.item_key = i.key AND r.outcome = 'discarded'
JOIN attempt a ON a.item_key = r.item_key AND a.number = r.attempts
WHERE i.item_id = :item AND i.job_id = (SELECT job_id FROM run WHERE id = :run)
"""
_DISCARDED = """
SELECT run_id, sum(hi - lo) FROM chunk WHERE run_id IN (SELECT value FROM json_each(:runs))
GROUP BY run_id HAVING sum(discarded) > 0
"""
_SMALL = 100_000  # up to so many items of a run are read faster than everything that was ever discarded
_OF_SMALL = f"""
json_each(:runs) v CROSS JOIN member m ON m.id >= v.value << {POSITION_BITS} AND m.id < (v.value + 1) << {POSITION_BITS}
CROSS JOIN result r ON r.item_key = m.item_key
"""
_OF_LARGE = f"""
json_each(:runs) v CROSS JOIN result r
CROSS JOIN member m ON m.item_key = r.item_key AND m.run_id = v.value AND m.id >> {POSITION_BITS} = v.value
"""


def _causes_from(discarded: str) -> str:
    """Group equal messages first, because masking numbers takes longest."""
    return f"""
SELECT h.run, h.kind, h.status, h.message, h.items, (SELECT item_id FROM item WHERE key = h.first) FROM (
    SELECT g.run, g.kind, g.status, min(g.message) AS message, sum(g.items) AS items, min(g.first) AS first,
           row_number() OVER (PARTITION BY g.run ORDER BY sum(g.items) DESC) AS place FROM (
        SELECT v.value AS run, a.kind, a.status, {_BEGINS} AS begins, min(a.message) AS message, count(*) AS items,
               min(r.item_key) AS first
        FROM {discarded}
        CROSS JOIN attempt a ON a.item_key = r.item_key AND a.number = r.attempts
        WHERE r.outcome = 'discarded'
        GROUP BY v.value, a.kind, a.status, begins) g
    GROUP BY g.run, g.kind, g.status, {_masked("g.begins")}) h
WHERE h.place <= :limit ORDER BY h.run, h.place
"""


_CAUSES = {"small": _causes_from(_OF_SMALL), "large": _causes_from(_OF_LARGE)}


async def causes_of(connection: AsyncConnection, run_ids: Sequence[int], limit: int) -> dict[int, list[Cause]]:
    """Return the discarded items of each of these runs that has any, grouped by cause, the most frequent first."""
    runs: dict[str, list[int]] = {"small": [], "large": []}
    for run, items in await connection.execute(_DISCARDED, {"runs": orjson.dumps(run_ids).decode()}):
        runs["small" if items <= _SMALL else "large"].append(run)
    found: dict[int, list[Cause]] = {}
    for size, ids in runs.items():
        values = {"runs": orjson.dumps(ids).decode(), "limit": limit}
        for run, *cause in await connection.execute(_CAUSES[size], values) if ids else ():
            found.setdefault(run, []).append(Cause(*cause))
    return found


async def cause_of(connection: AsyncConnection, run_id: int, item_id: str) -> Mapping[str, object]:
    """Return the values with which `IS_ALIKE` finds what failed as this item of the run did.

    Raises `UsageError` if the item is not among the run's discarded ones.
    """
    row = (await connection.execute(_OF_ITEM, {"run": run_id, "item": item_id})).first()
    if row is None:
        raise UsageError(f"run {run_id} has no discarded item {item_id!r}; see `orchestrator status {run_id}`")
    return row.as_dict()
