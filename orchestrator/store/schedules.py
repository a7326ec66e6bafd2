"""Transitions of schedules: put, paused, resumed, gone, fired. Each slot gets exactly one decision.

`next_slot` moves by compare-and-set, and never back behind `last_slot`, in the transaction that queues the run: so it
does not matter how many processes fire, when they die, or where their clocks stand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from anyio import to_thread

from orchestrator import exact_json
from orchestrator.domain.errors import UsageError
from orchestrator.domain.failpoints import reached
from orchestrator.domain.moment import deadline_at
from orchestrator.domain.queue import Submission
from orchestrator.domain.schedule import Cron, Decision, Due, Start, delay, next_after, overlap
from orchestrator.domain.timetable import BrokenFile, Declared, Fired, SaidBy, Schedule
from orchestrator.store.queue import insert_queued, latest_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.store.connection import AsyncConnection, LedgerRow
    from orchestrator.store.database import Database

_SCHEDULE = """
SELECT id, job, jobfile, about, endpoints, priority, deadline, after, source, cron, tz, overlap, catch_up,
       catch_up_window, jitter, paused, next_slot, last_slot, missed, gone, revision
FROM schedule
"""
_BY_JOB = f"{_SCHEDULE} WHERE job = :job"
_ALL = f"{_SCHEDULE} WHERE gone = 0 ORDER BY job"
_DUE = f"{_SCHEDULE} WHERE paused = 0 AND gone = 0 AND next_slot <= :now ORDER BY next_slot"
_INSERT = """
INSERT INTO schedule (job, jobfile, about, endpoints, priority, deadline, after, source, cron, tz, overlap, catch_up,
                      catch_up_window, jitter, next_slot)
VALUES (:job, :jobfile, :about, :endpoints, :priority, :deadline, :after, :source, :cron, :tz, :overlap, :catch_up,
        :window, :jitter, :next)
"""
_UPDATE = """
UPDATE schedule SET jobfile = :jobfile, about = :about, endpoints = :endpoints, priority = :priority,
    deadline = :deadline, after = :after, source = :source, cron = :cron, tz = :tz, overlap = :overlap,
    catch_up = :catch_up, catch_up_window = :window, jitter = :jitter, next_slot = :next, gone = 0,
    revision = revision + 1
WHERE job = :job
"""
_MOVE = """
UPDATE schedule SET last_slot = :last, next_slot = :following, missed = missed + :missed
WHERE id = :schedule AND next_slot = :first AND (last_slot IS NULL OR last_slot < :first)
  AND revision = :revision AND paused = 0 AND gone = 0
"""
_DECIDED = """
INSERT INTO slot (schedule_id, slot, outcome, run_id, at)
SELECT :schedule, value ->> 0, value ->> 1, value ->> 2, :now FROM json_each(:decided)
"""
# A silent process that has not been declared dead still executes its run.
_ACTIVE = """
SELECT r.id, r.holder IS NOT NULL AS executed FROM run r INDEXED BY ix_run_queued
WHERE r.due_at IS NOT NULL AND r.job_id = (SELECT id FROM job WHERE name = :job)
  AND r.state NOT IN ('finished', 'cancelled', 'superseded')
UNION ALL
SELECT r.id, 1 FROM run r INDEXED BY ix_run_holder CROSS JOIN process p ON p.id = r.holder
WHERE r.holder IS NOT NULL AND r.due_at IS NULL AND r.job_id = (SELECT id FROM job WHERE name = :job)
  AND p.state = 'live' AND r.state NOT IN ('finished', 'cancelled', 'superseded')
"""
_CANCEL = """
UPDATE run SET state = 'cancelled', due_at = NULL, rate = NULL,
    error = 'cancelled: the next slot of its schedule came',
    finished_at = coalesce(finished_at, :now), left_at = :now
WHERE id = :run AND state NOT IN ('finished', 'cancelled', 'superseded')
"""
_LATEST = """
SELECT s.id, s.job, t.slot, t.outcome, t.run_id FROM schedule s JOIN slot t ON t.schedule_id = s.id
AND t.slot = (SELECT max(l.slot) FROM slot l WHERE l.schedule_id = s.id)
"""
_BROKEN = """
INSERT INTO broken_file (path, error, at) VALUES (:path, :error, :now)
ON CONFLICT (path) DO UPDATE SET error = :error, at = :now
"""
_MENDED = "DELETE FROM broken_file WHERE path = :path"


class Schedules:
    """The transitions of schedules, and job files that could not be loaded."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- looking ------------------------------------------------------------------------------------------------------

    async def listed(self) -> list[Schedule]:
        """All schedules, ordered by job name."""
        async with self._database.read() as connection:
            return [_as_schedule(row) for row in await connection.execute(_ALL)]

    async def find(self, job: str) -> Schedule | None:
        """The schedule of a job, even if no job file declares it any more."""
        async with self._database.read() as connection:
            row = (await connection.execute(_BY_JOB, {"job": job})).one_or_none()
            return None if row is None else _as_schedule(row)

    async def due(self, now: float) -> list[Schedule]:
        """Schedules with an undecided slot, the oldest first."""
        async with self._database.read() as connection:
            return [_as_schedule(row) for row in await connection.execute(_DUE, {"now": now})]

    async def latest(self) -> dict[int, Fired]:
        """The decision on the latest slot of each schedule, by its id."""
        async with self._database.read() as connection:
            rows = await connection.execute(_LATEST)
            return {row.id: Fired(row.job, row.slot, Decision(row.outcome), row.run_id) for row in rows}

    # -- changing -----------------------------------------------------------------------------------------------------

    async def put(self, declared: Declared, source: SaidBy, now: float) -> bool:
        """Store what a job file or a person declares; True if it differs from what is stored.

        Changed times start now. Unchanged ones continue where they were, so that slots missed meanwhile are counted.
        """
        async with self._database.write() as connection:
            row = (await connection.execute(_BY_JOB, {"job": declared.job})).one_or_none()
            standing = None if row is None else _as_schedule(row)
            values = _values(declared, source)
            if standing is None:
                await connection.execute(_INSERT, values | {"next": next_after(declared.cron, now)})
                return True
            if not standing.gone and _kept(standing) == values:
                return False
            following = standing.next_slot
            times = (standing.expression, standing.tz)
            if standing.gone or following is None or times != (declared.cron.expression, declared.cron.tz):
                following = _following(declared.cron, standing, now)
            await connection.execute(_UPDATE, values | {"next": following})
            return True

    async def mark_gone(self, job: str, jobfile: str) -> bool:
        """The file no longer declares the schedule; True if it did before."""
        statement = (
            "UPDATE schedule SET gone = 1, revision = revision + 1 WHERE job = :job AND jobfile = :jobfile AND gone = 0"
        )
        async with self._database.write() as connection:
            return (await connection.execute(statement, {"job": job, "jobfile": jobfile})).rowcount == 1

    async def pause(self, job: str) -> Schedule:
        """Stop a schedule from firing until it is resumed. `UsageError` if there is none."""
        async with self._database.write() as connection:
            schedule = await _standing(connection, job)
            statement = "UPDATE schedule SET paused = 1, revision = revision + 1 WHERE id = :schedule"
            await connection.execute(statement, {"schedule": schedule.id})
            return schedule

    async def resume(self, job: str, now: float) -> Schedule:
        """Let a schedule fire again from now on; slots that passed meanwhile do not count as missed."""
        statement = "UPDATE schedule SET paused = 0, next_slot = :next, revision = revision + 1 WHERE id = :schedule"
        declared = await self.find(job)
        cron = None if declared is None else await to_thread.run_sync(_meant, declared)
        async with self._database.write() as connection:
            schedule = await _standing(connection, job)
            if schedule.paused and cron is not None:
                following = _following(cron, schedule, now)
                await connection.execute(statement, {"schedule": schedule.id, "next": following})
            return await _standing(connection, job)

    async def fire(self, schedule: Schedule, cron: Cron, due: Due, now: float) -> list[Fired] | None:
        """Decide on due slots, starting with the schedule's next slot, and queue their runs.

        None if another process was faster, or has changed the schedule meanwhile.
        """
        slots = [slot for slot, _ in due.slots]
        moved = {
            "schedule": schedule.id,
            "revision": schedule.revision,
            "first": slots[0],
            "last": slots[-1],
            "following": due.following,
            "missed": sum(not fires for _, fires in due.slots),
        }
        async with self._database.write() as connection:
            if (await connection.execute(_MOVE, moved)).rowcount == 0:
                return None
            fired = [
                await _start(connection, schedule, cron, slot, now)
                if fires
                else Fired(schedule.job, slot, Decision.MISSED)
                for slot, fires in due.slots
            ]
            rows = orjson.dumps([(one.slot, one.decision, one.run_id) for one in fired]).decode()
            await connection.execute(_DECIDED, {"schedule": schedule.id, "now": now, "decided": rows})
            reached("before slot")
        reached("after slot")
        return fired

    async def fire_now(self, job: str, now: float) -> int:
        """Queue a run by hand, independently of slots; return its id.

        `UsageError` if an earlier run is in the way, or if a job that it waits for has no run.
        """
        declared = await self.find(job)
        if declared is not None:
            await to_thread.run_sync(_meant, declared)  # reads the zone's file now, so that nothing below has to
        async with self._database.write() as connection:
            schedule = await _standing(connection, job)
            after, unknown = await _waits_for(connection, schedule)
            if unknown is not None:
                raise UsageError(f"{_no_run(unknown)}: run or submit that one first")
            if not await _make_way(connection, schedule, now):
                raise UsageError(
                    f"an earlier run of {job!r} is not over yet, and its schedule says overlap={schedule.overlap!r}; "
                    "see `orchestrator queue`, or submit its job file"
                )
            return await insert_queued(connection, _submission(schedule, now, now, after))

    async def spoil(self, schedule: Schedule, error: str, now: float) -> None:
        """Stop a schedule that cannot be understood until it is declared again, and report its file as broken."""
        statement = (
            "UPDATE schedule SET next_slot = NULL, revision = revision + 1 "
            "WHERE id = :schedule AND revision = :revision"
        )
        values = {"schedule": schedule.id, "revision": schedule.revision}
        async with self._database.write() as connection:
            if (await connection.execute(statement, values)).rowcount:
                await connection.execute(_BROKEN, {"path": schedule.jobfile, "error": error, "now": now})

    # -- job files ----------------------------------------------------------------------------------------------------

    async def broken(self) -> list[BrokenFile]:
        """Job files and folders that could not be used when they were last read."""
        async with self._database.read() as connection:
            rows = await connection.execute("SELECT path, error, at FROM broken_file ORDER BY path")
            return [BrokenFile(*row) for row in rows]

    async def report_broken(self, path: str, error: str, now: float) -> None:
        """Record that a file cannot be used."""
        async with self._database.write() as connection:
            await connection.execute(_BROKEN, {"path": path, "error": error, "now": now})

    async def mended(self, path: str) -> None:
        """Record that a file can be used, or is gone."""
        async with self._database.write() as connection:
            await connection.execute(_MENDED, {"path": path})


def _meant(schedule: Schedule) -> Cron:
    """The schedule's cron expression. Reads the time zone's file, so it blocks."""
    try:
        return schedule.meant(0.0)
    except ValueError as error:
        raise UsageError(f"the schedule of job {schedule.job!r} cannot be understood: {error}") from error


async def _standing(connection: AsyncConnection, job: str) -> Schedule:
    row = (await connection.execute(_BY_JOB, {"job": job})).one_or_none()
    if row is None or row.gone:
        raise UsageError(f"there is no schedule of a job {job!r}; see `orchestrator schedule list`")
    return _as_schedule(row)


async def _start(connection: AsyncConnection, schedule: Schedule, cron: Cron, slot: float, now: float) -> Fired:
    after, unknown = await _waits_for(connection, schedule)
    if unknown is not None:
        return Fired(schedule.job, slot, Decision.SKIPPED, why=_no_run(unknown))
    if not await _make_way(connection, schedule, now):
        return Fired(schedule.job, slot, Decision.SKIPPED, why="an earlier run is not over")
    due_at = slot + delay(cron, schedule.job, slot)
    run_id = await insert_queued(connection, _submission(schedule, slot, due_at, after))
    return Fired(schedule.job, slot, Decision.FIRED, run_id)


async def _waits_for(connection: AsyncConnection, schedule: Schedule) -> tuple[list[tuple[int, bool]], str | None]:
    """The runs that one that is queued now waits for, and the name of a job that has none."""
    latest = [(name, await latest_run(connection, name), any_end) for name, any_end in schedule.after]
    unknown = next((name for name, run_id, _ in latest if run_id is None), None)
    return [(run_id, any_end) for _, run_id, any_end in latest if run_id is not None], unknown


def _no_run(job: str) -> str:
    return f"job {job!r}, for which it waits, has no run yet"


async def _make_way(connection: AsyncConnection, schedule: Schedule, now: float) -> bool:
    """Whether a run may be queued now; runs that it replaces are cancelled, and whoever executes one stops soon."""
    active = (await connection.execute(_ACTIVE, {"job": schedule.job})).all()
    executed = sum(row.executed for row in active)
    start = overlap(schedule.overlap, executed, len(active) - executed)
    if start is Start.REPLACE:
        for row in active:
            await connection.execute(_CANCEL, {"run": row.id, "now": now})
    return start is not Start.SKIP


def _submission(schedule: Schedule, slot: float, due_at: float, after: Sequence[tuple[int, bool]]) -> Submission:
    it = schedule
    deadline = None if it.deadline is None else deadline_at(it.deadline, slot)
    return Submission(it.job, it.about, it.endpoints, due_at, it.priority, deadline, after=after)


def _following(cron: Cron, schedule: Schedule, now: float) -> float | None:
    """The first slot from now on that nobody has decided about, also where the clock was requeued since."""
    return next_after(cron, now if schedule.last_slot is None else max(now, schedule.last_slot))


def _values(declared: Declared, source: SaidBy) -> dict[str, object]:
    cron = declared.cron
    return {
        "job": declared.job,
        "jobfile": declared.jobfile,
        "about": exact_json.dumps(declared.about).decode(),
        "endpoints": orjson.dumps(sorted(declared.endpoints)).decode(),
        "priority": declared.priority,
        "deadline": declared.deadline,
        "after": orjson.dumps(declared.after).decode(),
        "source": source,
        "cron": cron.expression,
        "tz": cron.tz,
        "overlap": cron.overlap,
        "catch_up": cron.catch_up,
        "window": cron.window,
        "jitter": cron.spread,
    }


def _kept(schedule: Schedule) -> dict[str, object]:
    """As `_values` has it; the words of a schedule that nobody understands can be compared, too."""
    it = schedule
    return {
        "job": it.job,
        "jobfile": it.jobfile,
        "about": exact_json.dumps(it.about).decode(),
        "endpoints": orjson.dumps(it.endpoints).decode(),
        "priority": it.priority,
        "deadline": it.deadline,
        "after": orjson.dumps(it.after).decode(),
        "source": it.source,
        "cron": it.expression,
        "tz": it.tz,
        "overlap": it.overlap,
        "catch_up": it.catch_up,
        "window": it.catch_up_window,
        "jitter": it.jitter,
    }


def _as_schedule(row: LedgerRow) -> Schedule:
    return Schedule(
        id=row.id,
        job=row.job,
        jobfile=row.jobfile,
        about=exact_json.loads(row.about),
        endpoints=orjson.loads(row.endpoints),
        priority=row.priority,
        deadline=row.deadline,
        after=tuple((name, any_end) for name, any_end in orjson.loads(row.after)),
        source=row.source,
        expression=row.cron,
        tz=row.tz,
        overlap=row.overlap,
        catch_up=row.catch_up,
        catch_up_window=row.catch_up_window,
        jitter=row.jitter,
        paused=bool(row.paused),
        next_slot=row.next_slot,
        last_slot=row.last_slot,
        missed=row.missed,
        gone=bool(row.gone),
        revision=row.revision,
    )
