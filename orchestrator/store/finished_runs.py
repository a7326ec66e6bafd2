"""The results of a job for the jobs that read them: which of its runs have them, and whether these have changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from orchestrator.store.run_rows import RUN, as_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.domain.run import Run
    from orchestrator.store.database import Database

# The latest run over the whole source, and later ones, which have only a part of it.
_SINCE_WHOLE = f"""
{RUN} WHERE j.name = :job AND r.state = 'finished' AND r.id >= coalesce(
    (SELECT max(w.id) FROM run w JOIN job k ON k.id = w.job_id WHERE k.name = :job AND w.state = 'finished'
     AND w.spec ->> 'limit' IS NULL AND NOT coalesce(w.spec ->> 'incremental', 0)), 0)
ORDER BY r.id
"""
_FINISHED_AT = "SELECT finished_at FROM run WHERE id = :run AND state = 'finished'"
_VERSION = """
SELECT r.id, r.finished_at, j.parse, coalesce(sum(c.completed), 0), coalesce(sum(c.discarded), 0)
FROM run r JOIN job j ON j.id = r.job_id LEFT JOIN chunk c ON c.run_id = r.id
WHERE r.state = 'finished' AND r.id IN (SELECT value FROM json_each(:runs)) GROUP BY r.id ORDER BY r.id
"""
_IN_LATER_RUN = """
SELECT v.value FROM json_each(:ids) v WHERE EXISTS (
    SELECT 1 FROM item i CROSS JOIN member m ON m.item_key = i.key AND m.run_id > :run AND m.run_id <= :last
    JOIN run r ON r.id = m.run_id AND r.state = 'finished' WHERE i.job_id = :job AND i.item_id = v.value)
"""


class FinishedRuns:
    """Finished runs as the source of another job."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, job: str) -> list[Run]:
        """The runs that have the job's results, oldest first; empty if none has finished.

        That is its latest finished run, but a run with a limit only if no run without one has finished. An incremental
        job's results are in all its finished runs.
        """
        async with self._database.read() as connection:
            runs = [as_run(row) for row in await connection.execute(_SINCE_WHOLE, {"job": job})]
        if not runs or runs[-1].spec.about.get("incremental"):
            return runs
        return runs[:1] if runs[0].spec.about.get("limit") is None else runs[-1:]

    async def finished_at(self, run_id: int) -> float | None:
        """When the run has finished; None if it was deleted, or is asking discarded items again."""
        async with self._database.read() as connection:
            at: float | None = (await connection.execute(_FINISHED_AT, {"run": run_id})).scalar_one_or_none()
            return at

    async def version(self, runs: Sequence[int]) -> str:
        """A text that changes when the results of these runs do: they are retried, parsed again, or deleted."""
        async with self._database.read() as connection:
            rows = await connection.execute(_VERSION, {"runs": orjson.dumps(list(runs)).decode()})
            return orjson.dumps([list(row) for row in rows]).decode()

    async def in_later_run(self, run: Run, last: int, ids: Sequence[str]) -> set[str]:
        """Those of a run's ids that a later finished run of the job has too, up to the run `last`."""
        values = {"run": run.id, "last": last, "job": run.job_id, "ids": orjson.dumps(list(ids)).decode()}
        async with self._database.read() as connection:
            return set((await connection.execute(_IN_LATER_RUN, values)).scalars())
