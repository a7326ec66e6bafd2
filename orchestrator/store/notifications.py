"""Who has to be told how a run ended: a debt like any other, written before it is incurred."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from typing import TYPE_CHECKING

import orjson
from sqlalchemy import text

from orchestrator.domain.run import RunState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.domain.notification import NotificationResult
    from orchestrator.store.database import Database

OWING = "iif(coalesce(json_extract(told, '$.owed'), 0), told, json_object('id', :id, 'owed', 1))"  # as it should be
IS_OWED = """
(r.holder IS NULL AND r.state IN ('finished', 'failed') AND r.due_at IS NULL
 AND json_extract(r.told, '$.owed') = 1 AND (r.state = 'failed' OR r.delivered_at IS NOT NULL))
"""
_FREE = "NOT EXISTS (SELECT 1 FROM process p WHERE p.id = json_extract(r.told, '$.by') AND p.state = 'live')"
_OWE = text(f"UPDATE run SET told = {OWING} WHERE id = :run RETURNING json_extract(told, '$.id')")
_OWED = text(f"""
SELECT r.id, r.state, json_extract(r.told, '$.id') FROM run r JOIN job j ON j.id = r.job_id
WHERE (:job IS NULL OR j.name = :job) AND (:but IS NULL OR j.name <> :but) AND {IS_OWED} AND {_FREE} ORDER BY r.id
""")
_TAKE = text(f"UPDATE run AS r SET told = json_set(told, '$.by', :process) WHERE r.id = :run AND {IS_OWED} AND {_FREE}")
_GIVE_UP = text(f"UPDATE run AS r SET told = :told WHERE r.id = :run AND {IS_OWED} AND {_FREE}")
_NOTE = text("UPDATE run SET told = :told WHERE id = :run")


class Notifications:
    """`run.told`: `{"id", "owed", "by", "told": [...]}`; `by` is the process that tells late what another one owed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def owe(self, run_id: int) -> str:
        """This run's end is news; gives its id, which stays the one that an earlier process gave it and never told."""
        async with self._database.write() as connection:
            return str((await connection.execute(_OWE, {"run": run_id, "id": new_id()})).scalar_one())

    async def take(self, run_id: int, process_id: int) -> bool:
        """Have this process tell how a run ended, while no other one does; False where that is not owed any more."""
        async with self._database.write() as connection:
            return (await connection.execute(_TAKE, {"run": run_id, "process": process_id})).rowcount == 1

    async def owed(self, job: str | None = None, *, but: str | None = None) -> list[tuple[int, RunState, str]]:
        """Runs of the job, or of all but one, that ended and of which nobody tells, as their process died."""
        async with self._database.read() as connection:
            rows = await connection.execute(_OWED, {"job": job, "but": but})
            return [(row[0], RunState(row[1]), row[2]) for row in rows]

    async def give_up(self, run_id: int, id_: str, why: NotificationResult) -> None:
        """Nobody can tell how it ended; nothing where somebody does, or has."""
        said = orjson.dumps({"id": id_, "owed": 0, "told": [asdict(why)]}).decode()
        async with self._database.write() as connection:
            await connection.execute(_GIVE_UP, {"run": run_id, "told": said})

    async def note(self, run_id: int, id_: str, results: Sequence[NotificationResult]) -> None:
        """They have been told, or will never be."""
        said = orjson.dumps({"id": id_, "owed": 0, "told": [asdict(one) for one in results]}).decode()
        async with self._database.write() as connection:
            await connection.execute(_NOTE, {"run": run_id, "told": said})


def new_id() -> str:
    """The id of news, as Standard Webhooks has them."""
    return f"msg_{uuid.uuid4().hex}"
