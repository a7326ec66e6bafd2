"""Notifications still owed: that a run ended is a debt like any other, written down before it is incurred.

`run.notification` is JSON: `{"id", "owed", "by", "results": [...]}`. `by` is the process that notifies late, in place
of one that died. `results` says how each call of a hook went.
"""

from __future__ import annotations

import uuid
from dataclasses import asdict
from typing import TYPE_CHECKING

import orjson

from orchestrator.domain.run import RunState
from orchestrator.store.run_rows import IS_OWED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.domain.notification import NotificationResult
    from orchestrator.store.database import Database

# What the column must hold for a run whose hooks are still to be called.
OWING = "iif(coalesce(json_extract(notification, '$.owed'), 0), notification, json_object('id', :id, 'owed', 1))"
_FREE = """
NOT EXISTS (SELECT 1 FROM process p WHERE p.id = json_extract(r.notification, '$.by') AND p.state = 'live')
"""
_OWE = f"UPDATE run SET notification = {OWING} WHERE id = :run RETURNING json_extract(notification, '$.id')"
_OWED = f"""
SELECT r.id, r.state, json_extract(r.notification, '$.id') FROM run r JOIN job j ON j.id = r.job_id
WHERE (:job IS NULL OR j.name = :job) AND (:but IS NULL OR j.name <> :but) AND {IS_OWED} AND {_FREE} ORDER BY r.id
"""
_TAKE = f"""
UPDATE run AS r SET notification = json_set(notification, '$.by', :process) WHERE r.id = :run AND {IS_OWED} AND {_FREE}
"""
_GIVE_UP = f"UPDATE run AS r SET notification = :done WHERE r.id = :run AND {IS_OWED} AND {_FREE}"
_NOTE = "UPDATE run SET notification = :done WHERE id = :run"


class Notifications:
    """Which runs' hooks are still to be called, and who calls them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def owe(self, run_id: int) -> str:
        """Owe a notification of this run's end; return its id, which is that of an earlier one that was never sent."""
        async with self._database.write() as connection:
            return str((await connection.execute(_OWE, {"run": run_id, "id": new_id()})).scalar_one())

    async def take(self, run_id: int, process_id: int) -> bool:
        """Have this process notify; False if another one does, or if nothing is owed any more."""
        async with self._database.write() as connection:
            return (await connection.execute(_TAKE, {"run": run_id, "process": process_id})).rowcount == 1

    async def owed(self, job: str | None = None, *, but: str | None = None) -> list[tuple[int, RunState, str]]:
        """Ended runs that nobody notifies about because their process died: of one job, or of all jobs except `but`."""
        async with self._database.read() as connection:
            rows = await connection.execute(_OWED, {"job": job, "but": but})
            return [(row[0], RunState(row[1]), row[2]) for row in rows]

    async def give_up(self, run_id: int, id_: str, why: NotificationResult) -> None:
        """Record that nobody can be notified; do nothing if a process notifies, or has done so."""
        async with self._database.write() as connection:
            await connection.execute(_GIVE_UP, {"run": run_id, "done": _done(id_, [why])})

    async def note(self, run_id: int, id_: str, results: Sequence[NotificationResult]) -> None:
        """Record how each hook was called; nothing is owed any more."""
        async with self._database.write() as connection:
            await connection.execute(_NOTE, {"run": run_id, "done": _done(id_, results)})


def _done(id_: str, results: Sequence[NotificationResult]) -> str:
    return orjson.dumps({"id": id_, "owed": 0, "results": [asdict(result) for result in results]}).decode()


def new_id() -> str:
    """The id of a notification, in the form of Standard Webhooks."""
    return f"msg_{uuid.uuid4().hex}"
