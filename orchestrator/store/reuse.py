"""Answers of other jobs: items with the same id and hash were asked the same, whatever the job's name.

So were asks of rollouts, whatever the function around them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from orchestrator.domain.errors import UsageError
from orchestrator.store.answers import refuse
from orchestrator.store.chunks import CLOSE_IF_SETTLED, POSITION_BITS, recount
from orchestrator.store.settled import REPLACE_FORGIVEN, SETTLED

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Mapping, Sequence

    from orchestrator.store.answers import Reparsed
    from orchestrator.store.database import Database
    from orchestrator.store.row_classes import NewItem


@dataclass(frozen=True, slots=True)
class Part:
    """A chunk of a run, and another job's answers to its unsettled items as pairs of key and JSON.

    `notes`: what is noted about these answers, by key.
    """

    chunk: int
    answers: Sequence[tuple[int, str]]
    notes: Mapping[int, str | None]


_IDENTITIES = """
SELECT DISTINCT j.id, j.name, r.spec -> '$.identity' FROM job j JOIN run r ON r.job_id = j.id
WHERE j.name <> :job AND r.spec -> '$.identity' IS NOT NULL
"""
_ANSWERED = f"""
SELECT o.job_id, count(*) FROM json_each(:rows) v CROSS JOIN json_each(:others) j
CROSS JOIN item o ON o.job_id = j.value AND o.item_id = v.value ->> 0 AND o.hash = v.value ->> 1
CROSS JOIN result s ON s.item_key = o.key AND s.outcome = 'completed'
WHERE NOT EXISTS (
    SELECT 1 FROM item i CROSS JOIN result r ON r.item_key = i.key
    WHERE i.job_id = :job AND i.item_id = v.value ->> 0 AND i.hash = v.value ->> 1 AND {SETTLED})
GROUP BY o.job_id
"""
_NEXT_CHUNK = """
SELECT id, lo, hi FROM chunk WHERE run_id = :run AND state = 'available' AND id > :after ORDER BY id LIMIT 1
"""
_ELSEWHERE = f"""
SELECT i.key, coalesce(s.answer, s.output), s.notes
FROM member m CROSS JOIN item i ON i.key = m.item_key LEFT JOIN result r ON r.item_key = i.key
CROSS JOIN item o ON o.job_id = :other AND o.item_id = i.item_id AND o.hash = i.hash
CROSS JOIN result s ON s.item_key = o.key AND s.outcome = 'completed'
WHERE m.id >= (:run << {POSITION_BITS}) | :lo AND m.id < (:run << {POSITION_BITS}) | :hi AND NOT {SETTLED}
"""
# Recorded as the next attempt, which took no time and no tokens.
_ADOPT = f"""
INSERT INTO result (item_key, outcome, attempts, seconds, finished_at, output, answer, notes)
SELECT v.value ->> 0, iif(v.value ->> 1 IS NULL, 'discarded', 'completed'),
       (SELECT coalesce(max(number), 0) + 1 FROM attempt a WHERE a.item_key = v.value ->> 0), 0.0, :now,
       v.value ->> 1, v.value ->> 2, v.value ->> 4
FROM json_each(:rows) v WHERE true {REPLACE_FORGIVEN}
"""
_IF_ASKED = """
SELECT id FROM chunk WHERE run_id = :run AND state = 'available' AND EXISTS (SELECT 1 FROM ask WHERE job_id = :other)
ORDER BY id
"""
# Recorded as asks that took no time and no tokens, as for items.
_ADOPT_ASKS = f"""
INSERT INTO ask (job_id, item_id, hash, nth, number, endpoint, step, request, outcome, answer, seconds, at, notes)
SELECT i.job_id, o.item_id, o.hash, o.nth, o.number, o.endpoint, o.step, o.request, 'completed', o.answer, 0.0, :now,
       o.notes
FROM chunk c CROSS JOIN member m ON m.id >= (:run << {POSITION_BITS}) | c.lo AND m.id < (:run << {POSITION_BITS}) | c.hi
CROSS JOIN item i ON i.key = m.item_key LEFT JOIN result r ON r.item_key = i.key
CROSS JOIN ask o ON o.job_id = :other AND o.item_id = i.item_id AND o.outcome = 'completed'
WHERE c.id = :chunk AND NOT {SETTLED}
ON CONFLICT (job_id, item_id, hash, nth) DO UPDATE SET outcome = excluded.outcome, answer = excluded.answer,
    seconds = excluded.seconds, at = excluded.at, notes = excluded.notes WHERE ask.outcome IS NULL
"""


class Reuse:
    """Finding answers of other jobs, and copying them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def named(self, names: Sequence[str], job: str) -> list[int]:
        """The ids of other jobs. `UsageError` if one is not in the ledger or is the job itself."""
        async with self._database.read() as connection:
            rows = (await connection.execute("SELECT name, id FROM job")).all() if names else []
        others: dict[str, int] = {name: number for name, number in rows if name != job}
        if unknown := [name for name in names if name not in others]:
            what = "is this job itself" if unknown[0] == job else "is not in the ledger"
            raise UsageError(f"--reuse {unknown[0]}: job {unknown[0]!r} {what} ({self._database.path})")
        return [others[name] for name in names]

    async def asked_alike(self, job: str, identity: Mapping[str, object]) -> dict[int, str]:
        """Other jobs that have asked with this identity; only these can have answers to the same requests."""
        wanted = orjson.loads(orjson.dumps(identity))
        return {number: name for number, name, stored in await self._identities(job) if stored == wanted}

    async def asking_alike(self, job: str, identity: Mapping[str, Any]) -> dict[int, str]:
        """Other jobs with another rollout that asks an endpoint as this one does: only these can have the same asks."""
        wanted = orjson.loads(orjson.dumps(identity))
        routes = list(wanted["routes"].values())
        return {
            number: name
            for number, name, stored in await self._identities(job)
            if stored != wanted and any(route in routes for route in stored.get("routes", {}).values())
        }

    async def _identities(self, job: str) -> list[tuple[int, str, dict[str, Any]]]:
        async with self._database.read() as connection:
            rows = (await connection.execute(_IDENTITIES, {"job": job})).all()
        return [(number, name, orjson.loads(stored)) for number, name, stored in rows]

    async def answered(self, job_id: int | None, rows: Sequence[NewItem], others: Sequence[int]) -> dict[int, int]:
        """For each of the other jobs, how many of these rows it has answered and this job has not."""
        slim = orjson.dumps([[row.item_id, row.hash] for row in rows]).decode()
        values = {"job": job_id, "rows": slim, "others": orjson.dumps(list(others)).decode()}
        async with self._database.read() as connection:
            return {row[0]: row[1] for row in await connection.execute(_ANSWERED, values)}

    async def parts(self, run_id: int, other: int) -> AsyncIterator[Part]:
        """The available chunks of a run for which the other job has answers, with these answers."""
        after = 0
        while True:
            async with self._database.read() as connection:
                chunk = (await connection.execute(_NEXT_CHUNK, {"run": run_id, "after": after})).one_or_none()
                if chunk is None:
                    return
                after, lo, hi = chunk
                values = {"run": run_id, "lo": lo, "hi": hi, "other": other}
                rows = (await connection.execute(_ELSEWHERE, values)).all()
            if rows:
                yield Part(after, [(key, answer) for key, answer, _ in rows], {key: notes for key, _, notes in rows})

    async def adopt(self, part: Part, outputs: Sequence[Reparsed]) -> None:
        """Store these as results of this job's items, and close the chunk if all its items are settled. Replayable."""
        await self._database.write_in_one_trip(partial(_adopt, part, outputs))

    async def adopt_asks(self, run_id: int, other: int) -> None:
        """Copy what the other job's rollouts were answered for items that a run has not settled. Replayable."""
        async with self._database.read() as connection:
            chunks = list((await connection.execute(_IF_ASKED, {"run": run_id, "other": other})).scalars())
        for chunk in chunks:
            values = {"run": run_id, "other": other, "chunk": chunk, "now": time.time()}
            await self._database.write_in_one_trip(partial(_adopt_asks, values))


def _adopt_asks(values: Mapping[str, object], connection: sqlite3.Connection) -> None:
    connection.execute(_ADOPT_ASKS, values)


def _adopt(part: Part, outputs: Sequence[Reparsed], connection: sqlite3.Connection) -> None:
    rows = orjson.dumps(
        [[one.key, one.output, one.answer, one.refused, part.notes[one.key]] for one in outputs]
    ).decode()
    connection.execute(_ADOPT, {"rows": rows, "now": time.time()})
    refuse(connection, rows)
    recount(connection, [one.key for one in outputs])
    connection.execute(CLOSE_IF_SETTLED, {"chunk": part.chunk})
