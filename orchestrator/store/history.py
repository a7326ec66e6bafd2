"""What the report needs: runs of a period, how endpoints were left, slots at which no run began. Read only."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import orjson

from orchestrator.domain.notification import NotificationResult
from orchestrator.domain.report_data import AwakeWindow, Broken, Lapse, Ran, User
from orchestrator.domain.run import RunState
from orchestrator.store.lasting_holds import STANDS
from orchestrator.store.run_rows import HELD_BY_A_PROCESS, IS_OWED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.store.database import Database

_RUN = f"""
SELECT r.id, j.name, r.state, r.created_at, r.started_at, r.left_at, r.finished_at, r.due_at, r.deadline, r.error,
       r.why, r.holder IS NOT NULL AS executing, r.held, json_extract(r.spec, '$.jobfile') AS jobfile,
       json_extract(r.spec, '$.output') AS output, r.total,
       (SELECT coalesce(sum(c.completed), 0) FROM chunk c WHERE c.run_id = r.id) AS completed,
       (SELECT coalesce(sum(c.discarded), 0) FROM chunk c WHERE c.run_id = r.id) AS discarded, r.notification,
       {IS_OWED} AS owes_news, r.rate, r.concurrency,
       json_extract(r.spec, '$.routes') AS routes, json_extract(r.spec, '$.handed_over') AS handed_over
FROM run r JOIN job j ON j.id = r.job_id
"""
_RUNS = f"""{_RUN}
WHERE r.holder IS NOT NULL OR {IS_OWED} OR r.left_at >= :since OR r.started_at >= :since
   OR EXISTS (SELECT 1 FROM reading g WHERE g.run_id = r.id AND g.at >= :since)
ORDER BY r.id
"""
_ONE = f"{_RUN} WHERE r.id = :run"
_EXECUTING = f"{_RUN} WHERE r.id IN ({HELD_BY_A_PROCESS}) ORDER BY r.id"
# The newest first: most ledgers have more runs than anyone looks at.
_TROUBLED = f"""{_RUN}
WHERE r.holder IS NULL AND coalesce(r.left_at, r.created_at) >= :since
AND (r.state IN ('failed', 'stopped', 'open', 'ingesting') AND r.due_at IS NULL
     OR r.state <> 'superseded' AND EXISTS (SELECT 1 FROM chunk c WHERE c.run_id = r.id AND c.discarded > 0))
ORDER BY r.id DESC LIMIT :limit
"""
_BEFORE = """
SELECT r.id, b.id, b.created_at FROM run r CROSS JOIN run b ON b.id = (
    SELECT p.id FROM run p WHERE p.job_id = r.job_id AND p.id < r.id
    AND EXISTS (SELECT 1 FROM reading g WHERE g.run_id = p.id AND g.completed + g.discarded > 0)
    ORDER BY p.id DESC LIMIT 1)
WHERE r.id IN (SELECT value FROM json_each(:runs))
"""
_WINDOW = """
SELECT w.endpoint, w.owed, w.price_per_hour, coalesce(w.resumed_at, w.opened_at), w.closed_at, w.closed_by,
       w.looked_at, w.seen, w.said, w.id,
       (SELECT h.run_id FROM hold h WHERE h.window_id = w.id AND h.run_id IS NOT NULL
        ORDER BY h.until IS NULL DESC, h.until DESC LIMIT 1),
       w.billed_seconds, w.billed_dollars
FROM awake_window w
"""
_WINDOWS = f"""{_WINDOW} WHERE w.id IN (
    SELECT id FROM (SELECT x.id, max(x.opened_at) FROM awake_window x
                    WHERE x.state <> 'closed' OR x.closed_at >= :since GROUP BY x.endpoint)
) ORDER BY w.endpoint"""
_LATEST_WINDOWS = f"""{_WINDOW}
WHERE w.state <> 'closed' OR w.closed_at >= :since ORDER BY w.opened_at DESC LIMIT :limit
"""
_WINDOWS_OF_RUN = f"""{_WINDOW} WHERE w.id IN (
    SELECT id FROM (SELECT x.id, max(x.opened_at) FROM awake_window x JOIN hold h ON h.window_id = x.id
                    WHERE h.run_id = :run GROUP BY x.endpoint)
) OR w.state <> 'closed' ORDER BY w.endpoint, w.id"""
_USERS = f"""
SELECT h.window_id, p.pid, h.run_id, h.job, h.kept_by, h.expires_at
FROM awake_window w JOIN hold h ON h.window_id = w.id JOIN process p ON p.id = h.process_id
WHERE w.state <> 'closed' AND h.until IS NULL AND (h.kept_by IS NULL AND p.state = 'live' OR {STANDS}) ORDER BY h.id
"""
_LAPSES = """
SELECT s.job, t.outcome, count(*), min(t.slot), max(t.slot) FROM slot t JOIN schedule s ON s.id = t.schedule_id
WHERE t.at >= :since AND t.outcome <> 'fired' GROUP BY s.job, t.outcome ORDER BY s.job, t.outcome
"""


class History:
    """Queries for the report."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def runs(self, since: float) -> list[Ran]:
        """Runs that any process has worked on since then, in order of creation."""
        async with self._database.read() as connection:
            return [_as_ran(row) for row in await connection.execute(_RUNS, {"since": since})]

    async def run(self, run_id: int) -> Ran:
        """One run."""
        async with self._database.read() as connection:
            return _as_ran((await connection.execute(_ONE, {"run": run_id})).one())

    async def executing(self) -> list[Ran]:
        """Runs that a process holds, in order of creation."""
        async with self._database.read() as connection:
            return [_as_ran(row) for row in await connection.execute(_EXECUTING)]

    async def troubled(self, since: float, limit: int) -> list[Ran]:
        """Runs that a process left since then, and that ended early or have discarded items; newest first."""
        async with self._database.read() as connection:
            return [_as_ran(row) for row in await connection.execute(_TROUBLED, {"since": since, "limit": limit})]

    async def before(self, run_ids: Sequence[int]) -> dict[int, tuple[int, float]]:
        """For each run, its job's previous run that settled anything, and when that was created."""
        async with self._database.read() as connection:
            rows = await connection.execute(_BEFORE, {"runs": orjson.dumps(run_ids).decode()})
            return {run: (before, created_at) for run, before, created_at in rows}

    async def windows(self, since: float, run_id: int | None = None) -> list[AwakeWindow]:
        """The latest window of each endpoint that was awake since then; with `run_id`, that run's and all open ones.

        Open windows come with their users.
        """
        statement = _WINDOWS if run_id is None else _WINDOWS_OF_RUN
        values = {"since": since} if run_id is None else {"run": run_id}
        return [window for _, window in await self._windows(statement, values)]

    async def latest_windows(self, since: float, limit: int) -> list[tuple[int, AwakeWindow]]:
        """All windows that were open since then, each with its id, the latest first: at most so many."""
        return await self._windows(_LATEST_WINDOWS, {"since": since, "limit": limit})

    async def _windows(self, statement: str, values: Mapping[str, object]) -> list[tuple[int, AwakeWindow]]:
        async with self._database.read() as connection:
            rows = (await connection.execute(statement, values)).all()
            users = (await connection.execute(_USERS, {"now": time.time()})).all()
        return [(row[9], _as_window(row, [User(*user[1:]) for user in users if user[0] == row[9]])) for row in rows]

    async def lapses(self, since: float) -> list[Lapse]:
        """Slots that have been missed or skipped since then."""
        async with self._database.read() as connection:
            return [Lapse(*row) for row in await connection.execute(_LAPSES, {"since": since})]

    async def broken(self) -> list[Broken]:
        """Job files that could not be loaded when they were last looked at."""
        async with self._database.read() as connection:
            rows = await connection.execute("SELECT path, error, at FROM broken_file ORDER BY path")
            return [Broken(*row) for row in rows]


def _as_ran(row: Sequence[Any]) -> Ran:
    (
        number,
        job,
        state,
        *moments,
        error,
        why,
        executing,
        held,
        jobfile,
        output,
        total,
        completed,
        discarded,
        notification,
        owes,
        rate,
        concurrency,
        routes,
        handed_over,
    ) = row
    hooks = orjson.loads(notification).get("results", []) if notification else []
    created, started, left, finished, due, deadline = moments
    return Ran(
        number,
        job,
        RunState(state),
        created,
        started,
        left,
        finished,
        due,
        deadline,
        error,
        why,
        bool(executing),
        bool(held),
        jobfile,
        output,
        total,
        completed,
        discarded,
        [NotificationResult(**hook) for hook in hooks],
        owes_notification=bool(owes),
        rate=rate,
        concurrency=concurrency,
        routes=orjson.loads(routes) if routes else {},
        handed_over=handed_over,
    )


def _as_window(row: Sequence[Any], users: Sequence[User]) -> AwakeWindow:
    endpoint, owed, price, billed_from, billed_to, closed_by, looked_at, seen, said, _, last_run, *billed = row
    return AwakeWindow(
        endpoint, bool(owed), price, billed_from, billed_to, closed_by, looked_at, seen, said, users, last_run, *billed
    )
