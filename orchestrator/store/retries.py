"""Transition of discarded items that are to be asked again by a queued run: forgiven, and their run due.

`retry` is a `take` that forgives: one transaction chooses a run, holds it, and opens it again where it has the
items. A queued retry (`App.queue_retry`) forgives in the transaction that makes the run due, so
a daemon needs no order besides the queue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain.errors import UsageError
from orchestrator.domain.failpoints import reached
from orchestrator.domain.queue import Submission
from orchestrator.domain.run import RunState
from orchestrator.store.forgive import forgivable, forgive
from orchestrator.store.queue import insert_queued
from orchestrator.store.run_rows import run_by_id
from orchestrator.store.taking import refuse_while_executed, refuse_while_held, retried_by

if TYPE_CHECKING:
    from orchestrator.domain.run import Run
    from orchestrator.store.connection import AsyncConnection
    from orchestrator.store.database import Database

_CANNOT_GO_ON = {RunState.INGESTING, RunState.CANCELLED, RunState.SUPERSEDED}
_OF_A_SUBMISSION = ("jobfile", "folder", "overrides", "limit", "reuse", "spec", "no_spec")  # what a process needs
_DUE = """
UPDATE run SET state = 'open', error = NULL, finished_at = NULL, delivered_at = NULL, due_at = :now, tries = 0,
    why = NULL WHERE id = :run
"""
_TO_BEGIN = """
SELECT id FROM run WHERE job_id = :job AND due_at IS NOT NULL AND fingerprint = '' AND spec ->> 'limit' IS :limit
AND state = 'ingesting' ORDER BY id DESC LIMIT 1
"""
_USES = "INSERT INTO uses (run_id, endpoint) VALUES (:run, :endpoint) ON CONFLICT DO NOTHING"


class Retries:
    """The transition from discarded items to a queued run that asks them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def queue(self, run_id: int, now: float, like: str | None = None) -> tuple[int, int]:
        """Forgive a run's discarded items and queue the run that asks them; return that run and how many they are.

        It is the run that `retried_by` names, or if that was cancelled, one that has not begun. Doing this twice queues
        the same run. With `like`, only the items that failed for the same cause as this one.
        `Busy` while the job is executed. `UsageError` if there is nothing to ask again, or no process could load the
        job.
        """
        async with self._database.write() as connection:
            run = await run_by_id(connection, run_id)
            by = await retried_by(connection, run)
            await refuse_while_executed(connection, run.job)
            refuse_while_held(by)
            _check_loadable(by)
            keys = await forgivable(connection, run.id, like)
            if not keys:
                raise UsageError(f"run {run.id} of {run.job} has no discarded items that can be asked again")
            asked_by = await _submit(connection, by, now) if by.state in _CANNOT_GO_ON else by.id
            here = await forgive(connection, keys, asked_by=asked_by)
            if asked_by == by.id:
                if not here:
                    raise UsageError(f"run {by.id}, the latest of {run.job}, no longer has these rows: run the job")
                await _make_due(connection, by, now)
            reached("before submit")
        reached("after submit")
        return asked_by, len(keys)


async def _submit(connection: AsyncConnection, by: Run, now: float) -> int:
    """Return a queued run of the same job that has not begun; make one, as this one was submitted, if there is none."""
    values = {"job": by.job_id, "limit": by.spec.about.get("limit")}
    waiting: int | None = (await connection.execute(_TO_BEGIN, values)).scalar_one_or_none()
    if waiting is not None:
        return waiting
    about = {name: by.spec.about[name] for name in _OF_A_SUBMISSION if name in by.spec.about}
    return await insert_queued(connection, Submission(by.job, about, await _endpoints(connection, by), now))


async def _make_due(connection: AsyncConnection, by: Run, now: float) -> None:
    """Put a run that has begun, and perhaps ended, into the queue."""
    await connection.execute(_DUE, {"run": by.id, "now": now})
    for endpoint in await _endpoints(connection, by):
        await connection.execute(_USES, {"run": by.id, "endpoint": endpoint})


async def _endpoints(connection: AsyncConnection, by: Run) -> list[str]:
    """Return the names of the endpoints that the run uses. A run that was never queued does not name its fallback."""
    used = await connection.execute("SELECT endpoint FROM uses WHERE run_id = :run", {"run": by.id})
    return list(used.scalars()) or str(by.spec.about.get("endpoint", "")).split(", ")


def _check_loadable(by: Run) -> None:
    about = by.spec.about
    if about.get("jobfile") is None and about.get("spec") is None:
        raise UsageError(str(about.get("no_spec", f"run {by.id} was not made from a job file: run its job again")))
