"""Who has to be told how a run ended: a debt like any other, written before it is incurred."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import orjson
from sqlalchemy import text

from orchestrator.domain.run import RunState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.domain.news import Told
    from orchestrator.store.database import Database

_OWE = text("""
UPDATE run SET told = json_object('id', :id, 'owed', 1)
WHERE id = :run AND coalesce(json_extract(told, '$.owed'), 0) = 0 RETURNING told
""")
_OWED = text("""
SELECT r.id, r.state, json_extract(r.told, '$.id') FROM run r JOIN job j ON j.id = r.job_id
WHERE j.name = :job AND r.holder IS NULL AND r.state IN ('finished', 'failed') AND r.due_at IS NULL
AND json_extract(r.told, '$.owed') = 1 AND (r.state = 'failed' OR r.delivered_at IS NOT NULL) ORDER BY r.id
""")
_NOTE = text("UPDATE run SET told = :told WHERE id = :run")


class Telling:
    """`run.told`: `{"id", "owed", "told": [...]}`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def owe(self, run_id: int, id_: str) -> str:
        """This run's end is news, under this id; or under the one that an earlier process gave it and never told."""
        values = {"run": run_id, "id": id_}
        standing = text("SELECT json_extract(told, '$.id') FROM run WHERE id = :run")
        async with self._database.write() as connection:
            await connection.execute(_OWE, values)
            return str((await connection.execute(standing, values)).scalar_one())

    async def owed(self, job: str) -> list[tuple[int, RunState, str]]:
        """Runs of the job that ended and whose process died before it could tell."""
        async with self._database.read() as connection:
            rows = await connection.execute(_OWED, {"job": job})
            return [(row[0], RunState(row[1]), row[2]) for row in rows]

    async def note(self, run_id: int, id_: str, told: Sequence[Told]) -> None:
        """They have been told, or will never be."""
        said = orjson.dumps({"id": id_, "owed": 0, "told": [asdict(one) for one in told]}).decode()
        async with self._database.write() as connection:
            await connection.execute(_NOTE, {"run": run_id, "told": said})
