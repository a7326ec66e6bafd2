"""Answers: what models returned, stored apart from the outputs that `parse` made, which a new `parse` replaces."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import orjson

from orchestrator.store.chunks import recount

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Sequence

    from orchestrator.store.database import Database


@dataclass(frozen=True, slots=True)
class Reparsed:
    """A settled item under a changed `parse`: its new output, or why it was refused. Output and answer are JSON."""

    key: int
    output: str | None
    answer: str | None
    refused: str | None


_ANSWERS = """
SELECT i.key, coalesce(r.answer, r.output) FROM item i JOIN result r ON r.item_key = i.key
WHERE +i.job_id = :job AND i.key > :after AND coalesce(r.answer, r.output) IS NOT NULL ORDER BY i.key LIMIT 1000
"""
_BEGINS = """
SELECT EXISTS (SELECT 1 FROM item i JOIN result r ON r.item_key = i.key
               WHERE i.job_id = :job AND substr(coalesce(r.answer, r.output), 1, length(:beginning)) = :beginning)
"""
_REPARSE = """
UPDATE result SET output = v.value ->> 1, answer = v.value ->> 2,
                  outcome = iif(v.value ->> 1 IS NULL, 'discarded', 'completed')
FROM json_each(:rows) v WHERE result.item_key = v.value ->> 0
"""
_CHANGED = """
SELECT r.item_key FROM json_each(:rows) v CROSS JOIN result r ON r.item_key = v.value ->> 0
WHERE (r.outcome = 'completed') <> (v.value ->> 1 IS NOT NULL)
"""
# the refusal belongs to the attempt that brought the answer
_REFUSE = """
INSERT INTO attempt (item_key, number, outcome, kind, message, seconds, at)
SELECT r.item_key, r.attempts, 'discarded', 'parse', v.value ->> 3, r.seconds, :now
FROM json_each(:rows) v CROSS JOIN result r ON r.item_key = v.value ->> 0
WHERE v.value ->> 3 IS NOT NULL
ON CONFLICT (item_key, number) DO UPDATE SET message = excluded.message
"""
_ACCEPT = """
DELETE FROM attempt WHERE (item_key, number) IN (
    SELECT r.item_key, r.attempts FROM json_each(:rows) v CROSS JOIN result r ON r.item_key = v.value ->> 0
    WHERE v.value ->> 3 IS NULL)
"""


class Answers:
    """All answers of a job, and replacing its outputs when `parse` has changed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def pages(self, job_id: int) -> AsyncIterator[list[tuple[int, str]]]:
        """Every answer of a job as the model gave it, in pages of (key, JSON)."""
        after = 0
        while True:
            async with self._database.read() as connection:
                rows = (await connection.execute(_ANSWERS, {"job": job_id, "after": after})).all()
            if not rows:
                return
            yield [(key, answer) for key, answer in rows]
            after = rows[-1][0]

    async def any_begins(self, job_id: int, beginning: str) -> bool:
        """Whether one of a job's answers, as JSON, starts with this text."""
        async with self._database.read() as connection:
            exists = await connection.execute(_BEGINS, {"job": job_id, "beginning": beginning})
            return bool(exists.scalar_one())

    async def reparse(self, page: Sequence[Reparsed]) -> None:
        """Replace the outputs of settled items with what a changed `parse` made, or with its refusal."""
        rows = orjson.dumps([[item.key, item.output, item.answer, item.refused] for item in page]).decode()
        await self._database.write_in_one_trip(partial(_reparse, rows))


def refuse(connection: sqlite3.Connection, rows: str) -> None:
    """Record why `parse` refused answers. `rows` is JSON: a row's first value is the key, the fourth is the reason."""
    connection.execute(_REFUSE, {"rows": rows, "now": time.time()})


def _reparse(rows: str, connection: sqlite3.Connection) -> None:
    changed = [key for (key,) in connection.execute(_CHANGED, {"rows": rows}).fetchall()]
    refuse(connection, rows)
    connection.execute(_ACCEPT, {"rows": rows})
    connection.execute(_REPARSE, {"rows": rows})
    recount(connection, changed)
