"""Snapshots: rows of a source become items of a job and members of a run, in chunks that can be leased."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from orchestrator.domain.run import Plan
from orchestrator.store.chunks import RECOUNT, open_chunk
from orchestrator.store.settled import SETTLED
from orchestrator.store.tables import POSITION_BITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.store.connection import AsyncConnection
    from orchestrator.store.database import Database


@dataclass(frozen=True, slots=True)
class NewItem:
    """One row, prepared for the ledger. `request` is None if the row is unreadable; `unreadable` then says why.

    `shares` identifies the request as it is sent, if the row may share the answer of another row with the same
    request. `same_as` is the position in the run of the first such row, if that is an earlier one.
    """

    item_id: str
    hash: str
    request: str | None
    kept: str | None
    unreadable: str | None = None
    shares: str | None = None
    same_as: int | None = None


_CLASSIFY = f"""
SELECT class, count(*) FROM (
    SELECT CASE
        WHEN r.outcome = 'completed' THEN 'reused'
        WHEN {SETTLED} THEN 'discarded'
        WHEN EXISTS (SELECT 1 FROM json_each(:reuse) j
                     CROSS JOIN item o ON o.job_id = j.value AND o.item_id = v.value ->> 0 AND o.hash = v.value ->> 1
                     CROSS JOIN result s ON s.item_key = o.key AND s.outcome = 'completed') THEN 'reused'
        WHEN EXISTS (SELECT 1 FROM attempt a WHERE a.item_key = i.key) THEN 'retry'
        WHEN EXISTS (SELECT 1 FROM item o WHERE o.job_id = :job AND o.item_id = v.value ->> 0
                     AND o.hash <> v.value ->> 1 AND (i.key IS NULL OR o.key < i.key)) THEN 'edited'
        ELSE 'new' END AS class
    FROM json_each(:rows) v
    LEFT JOIN item i ON i.job_id = :job AND i.item_id = v.value ->> 0 AND i.hash = v.value ->> 1
    LEFT JOIN result r ON r.item_key = i.key
) GROUP BY class
"""
# Keys in another order are the same item. An item that is still to be asked is asked as it is given now.
_ADD_ITEMS = """
INSERT INTO item (job_id, item_id, hash, request)
SELECT :job, value ->> 0, value ->> 1, value ->> 2 FROM json_each(:rows) WHERE true
ON CONFLICT (job_id, item_id, hash) DO UPDATE SET request = excluded.request
WHERE request <> excluded.request
  AND NOT EXISTS (SELECT 1 FROM result r WHERE r.item_key = item.key AND r.outcome = 'completed')
"""
_ADD_MEMBERS = f"""
INSERT INTO member (id, run_id, item_key, kept)
SELECT (:run << {POSITION_BITS}) | (:lo + v.key), :run, i.key, v.value ->> 3
FROM json_each(:rows) v
CROSS JOIN item i ON i.job_id = :job AND i.item_id = v.value ->> 0 AND i.hash = v.value ->> 1
"""
_MARK_SAME = f"""
UPDATE member SET same_as = f.item_key
FROM json_each(:rows) v CROSS JOIN member f ON f.id = (:run << {POSITION_BITS}) | (v.value ->> 1)
WHERE member.id = (:run << {POSITION_BITS}) | (v.value ->> 0)
"""
# If the code that failed has changed and fails again, its latest message counts.
_ADD_UNREADABLE_ATTEMPTS = """
INSERT INTO attempt (item_key, number, outcome, kind, message, seconds, at)
SELECT i.key, 0, 'discarded', 'unreadable', value ->> 4, 0.0, :now
FROM json_each(:rows) v
CROSS JOIN item i ON i.job_id = :job AND i.item_id = v.value ->> 0 AND i.hash = v.value ->> 1
WHERE true ON CONFLICT DO UPDATE SET message = excluded.message WHERE message <> excluded.message
"""
_ADD_UNREADABLE_RESULTS = """
INSERT INTO result (item_key, outcome, attempts, seconds, finished_at)
SELECT i.key, 'discarded', 0, 0.0, :now
FROM json_each(:rows) v
CROSS JOIN item i ON i.job_id = :job AND i.item_id = v.value ->> 0 AND i.hash = v.value ->> 1
WHERE true ON CONFLICT DO NOTHING RETURNING item_key
"""


class Snapshots:
    """Adding rows to a run's snapshot."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def classify(self, job_id: int | None, rows: Sequence[NewItem], reuse: Sequence[int] = ()) -> Plan:
        """What these rows would be to a run of this job that reuses answers of other jobs; changes nothing."""
        async with self._database.read() as connection:
            return await _classify(connection, job_id, rows, reuse)

    async def ingest(
        self, run_id: int, job_id: int, position: int, chunks: Sequence[Sequence[NewItem]], reuse: Sequence[int] = ()
    ) -> Plan:
        """Append rows to a run's snapshot, one chunk after the other, and return what they are.

        `reuse`: ids of other jobs whose answers will be reused.
        """
        plan = Plan()
        async with self._database.write() as connection:
            for rows in chunks:
                plan += await _classify(connection, job_id, rows, reuse)
                await _add_chunk(connection, run_id, job_id, position, rows)
                position += len(rows)
        return plan


async def _classify(
    connection: AsyncConnection, job_id: int | None, rows: Sequence[NewItem], reuse: Sequence[int]
) -> Plan:
    slim = _json([[row.item_id, row.hash] for row in rows])
    classes = await connection.execute(_CLASSIFY, {"job": job_id, "rows": slim, "reuse": _json(list(reuse))})
    return Plan(**{str(name): number for name, number in classes})


async def _add_chunk(
    connection: AsyncConnection, run_id: int, job_id: int, position: int, rows: Sequence[NewItem]
) -> None:
    packed = _json([[row.item_id, row.hash, row.request, row.kept] for row in rows])
    await connection.execute(_ADD_ITEMS, {"job": job_id, "rows": packed})
    await connection.execute(_ADD_MEMBERS, {"run": run_id, "job": job_id, "lo": position, "rows": packed})
    same = [[position + offset, row.same_as] for offset, row in enumerate(rows) if row.same_as is not None]
    if same:
        await connection.execute(_MARK_SAME, {"run": run_id, "rows": _json(same)})
    unreadable = [[row.item_id, row.hash, None, None, row.unreadable] for row in rows if row.unreadable is not None]
    if unreadable:
        what = {"job": job_id, "now": time.time(), "rows": _json(unreadable)}
        await connection.execute(_ADD_UNREADABLE_ATTEMPTS, what)
        keys = list((await connection.execute(_ADD_UNREADABLE_RESULTS, what)).scalars())
        await connection.execute(RECOUNT, {"keys": _json(keys)})
    await open_chunk(connection, run_id, position, position + len(rows))


def _json(rows: object) -> str:
    return orjson.dumps(rows).decode()
