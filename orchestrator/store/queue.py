"""Transitions of queued runs: submitted, claimed, requeued, over. A queued run is a run with `due_at`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import orjson

from orchestrator import exact_json
from orchestrator.domain.errors import UsageError
from orchestrator.domain.failpoints import reached
from orchestrator.domain.queue import LOADS_FOR, MOST_TRIES, TURN_AFTER, Queued, left_alone, next_try
from orchestrator.store.notifications import OWING, new_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.domain.queue import Claim, Submission
    from orchestrator.store.connection import AsyncConnection
    from orchestrator.store.database import Database

_ENDED = "('finished', 'cancelled', 'superseded')"
_GONE = "('cancelled', 'superseded')"  # a finished run stays in the queue until it is delivered
# Run `p` holds up a run that waits for it: it has not succeeded (or, if any end will do, not ended), or must deliver.
_STANDS_IN_THE_WAY = f"""
(p.state <> 'finished' AND NOT w.any_end
 OR p.state NOT IN {_GONE} AND p.delivered_at IS NULL AND (p.due_at IS NOT NULL OR p.holder IS NOT NULL))
"""
# One queued run at a time asks an endpoint. A run that has settled everything only delivers and pauses.
_FREE = f"""
r.due_at <= :now AND r.holder IS NULL AND r.held = 0 AND r.state NOT IN {_GONE}
AND NOT EXISTS (SELECT 1 FROM wait w JOIN run p ON p.id = w.for_run
                WHERE w.run_id = r.id AND p.id <> :run AND {_STANDS_IN_THE_WAY})
AND NOT EXISTS (SELECT 1 FROM run o WHERE o.holder IS NOT NULL AND o.job_id = r.job_id AND o.delivered_at IS NULL
                AND o.id <> :run)
"""
# A claimed run is held by the daemon until it has begun; from then on its own process holds it.
_BEGUN = "NOT EXISTS (SELECT 1 FROM process d WHERE d.id = o.holder AND d.serves = 1)"
_TAKES_ROOM = f"o.state NOT IN {_ENDED} AND (o.due_at > :now - {LOADS_FOR} OR {_BEGUN})"
_USES_ITS_ENDPOINT = """
EXISTS (SELECT 1 FROM uses u CROSS JOIN run o CROSS JOIN uses v
        WHERE u.run_id = r.id AND o.id <> r.id AND o.holder IS NOT NULL AND o.due_at IS NOT NULL
        AND v.run_id = o.id AND v.endpoint = u.endpoint AND {and_it})
"""
_ASKED = _USES_ITS_ENDPOINT.format(and_it=_TAKES_ROOM)
_ASKED_BY_ANOTHER = (
    f"SELECT 1 FROM run r WHERE r.id = :run AND "
    f"{_USES_ITS_ENDPOINT.format(and_it=f'o.state NOT IN {_ENDED} AND {_BEGUN}')}"
)
_AWAKE = """
EXISTS (SELECT 1 FROM uses u JOIN awake_window w ON w.endpoint = u.endpoint AND w.state <> 'closed'
        WHERE u.run_id = r.id)
"""
_NEXT = f"""
SELECT r.id, r.tries, r.settled_at_claim, r.why,
       (SELECT coalesce(sum(c.completed + c.discarded), 0) FROM chunk c WHERE c.run_id = r.id) AS settled
FROM run r INDEXED BY ix_run_queued
WHERE {_FREE} AND NOT {_ASKED}
ORDER BY r.priority DESC, (r.due_at < :now - {TURN_AFTER} OR {_AWAKE}) DESC, r.deadline IS NULL, r.deadline, r.id
LIMIT 1
"""
_WITH_KEY = f"""
SELECT id, key_hash, due_at IS NULL AND (
    state IN {_GONE} OR holder IS NULL AND (state <> 'finished' OR delivered_at IS NULL)
) AS over FROM run WHERE key = :key
"""
_COMING = f"""
SELECT 1 FROM run r INDEXED BY ix_run_queued JOIN uses u ON u.run_id = r.id AND u.endpoint = :endpoint
WHERE r.due_at IS NOT NULL AND r.id <> :run AND (
    (r.holder IS NOT NULL AND r.state NOT IN {_ENDED} AND NOT EXISTS (
        SELECT 1 FROM awake_window w JOIN hold h ON h.window_id = w.id
        WHERE w.endpoint = u.endpoint AND w.state <> 'closed' AND h.run_id = r.id AND h.until IS NULL))
    OR (:free AND {_FREE} AND EXISTS (SELECT 1 FROM process d WHERE d.state = 'live' AND d.serves = 1))
) LIMIT 1
"""
_QUEUED = """
SELECT r.id, j.name, r.state, r.due_at, r.priority, r.deadline, r.held, r.holder IS NOT NULL, r.created_at, r.tries,
       r.why
FROM run r INDEXED BY ix_run_queued JOIN job j ON j.id = r.job_id WHERE r.due_at IS NOT NULL
ORDER BY r.holder IS NULL, r.due_at > :now, r.priority DESC, r.deadline IS NULL, r.deadline, r.id
"""
_WAITS = f"""
SELECT w.run_id, w.for_run FROM run r INDEXED BY ix_run_queued
JOIN wait w ON w.run_id = r.id JOIN run p ON p.id = w.for_run
WHERE r.due_at IS NOT NULL AND {_STANDS_IN_THE_WAY} ORDER BY w.for_run
"""
_LATEST = """
SELECT r.id FROM run r JOIN job j ON j.id = r.job_id WHERE j.name = :job AND r.state <> 'superseded'
ORDER BY r.id DESC LIMIT 1
"""
_STAND_IN = (
    f"""
UPDATE OR REPLACE wait SET for_run = :run
WHERE any_end = 0 AND run_id IN (SELECT id FROM run INDEXED BY ix_run_queued WHERE due_at IS NOT NULL)
  AND EXISTS (SELECT 1 FROM run p JOIN run r ON r.id = :run AND r.job_id = p.job_id
              WHERE p.id = wait.for_run AND p.id < :run AND p.state IN {_GONE})
""",
    "DELETE FROM wait WHERE run_id = :run AND for_run = :run",
)
# A finished run that could not be delivered stays finished.
_FAIL = f"""
UPDATE run SET state = iif(state = 'finished', state, 'failed'), error = :why, due_at = NULL, left_at = :now,
    notification = iif(:owed, {OWING}, notification)
WHERE id = :run AND holder IS :holder AND state NOT IN {_GONE}
"""


class Queue:
    """The transitions of queued runs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def submit(self, submission: Submission) -> tuple[int, bool]:
        """Queue a run; return its id and whether it is new.

        If the key is in use, return the run that has it. If that run is over, the key passes to the new run.
        `UsageError` if something else was submitted with the key.
        """
        async with self._database.write() as connection:
            standing = await _with_key(connection, submission)
            if standing is not None:
                return standing, False
            run_id = await insert_queued(connection, submission)
            reached("before submit")
        reached("after submit")
        return run_id, True

    async def claim(self, process_id: int, now: float) -> int | None:
        """Claim the next run for this process, which has it executed; None if no run is ready.

        If the process dies, the run is due again, later each time it made no progress.
        """
        async with self._database.write() as connection:
            run_id = await _claim(connection, process_id, now)
            if run_id is not None:
                reached("before claim")
        if run_id is not None:
            reached("after claim")
        return run_id

    async def requeue(self, claim: Claim, at: float, why: str, *, fruitless: bool) -> None:
        """Make a stopped run due again at `at`; do nothing if it is over, not queued, or held by another process."""
        statement = (
            "UPDATE run SET due_at = :at, why = :why, tries = iif(:fruitless, tries, 0) "
            f"WHERE id = :run AND holder = :process AND due_at IS NOT NULL AND state NOT IN {_GONE}"
        )
        values: dict[str, object] = {"run": claim.run_id, "process": claim.process_id, "at": at, "why": why}
        async with self._database.write() as connection:
            await connection.execute(statement, values | {"fruitless": fruitless})
            reached("before put back")
        reached("after put back")

    async def leave(self, claim: Claim) -> None:
        """Remove a run from the queue, so that no daemon takes it; do nothing if another process holds it."""
        statement = "UPDATE run SET due_at = NULL WHERE id = :run AND holder = :process"
        async with self._database.write() as connection:
            await connection.execute(statement, {"run": claim.run_id, "process": claim.process_id})
            reached("before leave")
        reached("after leave")

    async def fail(self, claim: Claim, why: str, *, owed: bool) -> None:
        """Fail a run that cannot begin because its job file is broken; do nothing if another process holds it.

        `owed`: another process has to notify.
        """
        async with self._database.write() as connection:
            await _fail(connection, claim.run_id, claim.process_id, why, owed=owed)

    async def postpone(self, claim: Claim, why: str, now: float) -> None:
        """Requeue a run for which no process could be started, for longer each time."""
        tries = "SELECT tries FROM run WHERE id = :run"
        statement = (
            "UPDATE run SET due_at = :at, why = :why "
            f"WHERE id = :run AND holder = :process AND due_at IS NOT NULL AND state NOT IN {_GONE}"
        )
        values: dict[str, object] = {"run": claim.run_id, "process": claim.process_id, "why": why}
        async with self._database.write() as connection:
            tried = (await connection.execute(tries, values)).scalar_one()
            await connection.execute(statement, values | {"at": now + left_alone(tried)})

    async def unclaim(self, claim: Claim) -> None:
        """Free a run whose process ended without an exit report, or never began."""
        statement = "UPDATE run SET holder = NULL WHERE id = :run AND holder = :process"
        async with self._database.write() as connection:
            await connection.execute(statement, {"run": claim.run_id, "process": claim.process_id})

    async def explain(self, run_id: int, why: str, *, killed: bool) -> None:
        """Note why a free run is queued again; a reason that its process gave stays, unless the process was killed."""
        statement = (
            "UPDATE run SET why = iif(:killed, :why, coalesce(why, :why)) "
            f"WHERE id = :run AND holder IS NULL AND due_at IS NOT NULL AND state NOT IN {_GONE}"
        )
        async with self._database.write() as connection:
            await connection.execute(statement, {"run": run_id, "why": why, "killed": killed})

    async def prioritize(self, run_id: int, priority: int) -> None:
        """Set a run's priority. Runs of a higher priority are taken first; the default is 0."""
        statement = "UPDATE run SET priority = :priority WHERE id = :run"
        async with self._database.write() as connection:
            await connection.execute(statement, {"run": run_id, "priority": priority})

    async def coming(self, endpoint: str, run_id: int, now: float, *, free: bool) -> bool:
        """Whether a queued run other than this one is about to use the endpoint.

        It may be executing without holding the endpoint yet or, with `free`, be ready for a daemon to take.
        """
        values = {"endpoint": endpoint, "run": run_id, "now": now, "free": free}
        async with self._database.read() as connection:
            return (await connection.execute(_COMING, values)).one_or_none() is not None

    async def listed(self, now: float) -> list[Queued]:
        """All queued runs: first those that are executing, then the others in the order in which they are taken."""
        async with self._database.read() as connection:
            rows = (await connection.execute(_QUEUED, {"now": now})).all()
            waits = (await connection.execute(_WAITS)).all()
            endpoints = (
                await connection.execute(
                    "SELECT run_id, endpoint FROM uses WHERE run_id IN (SELECT value FROM json_each(:runs))",
                    {"runs": orjson.dumps([row[0] for row in rows]).decode()},
                )
            ).all()
        return [_as_queued(row, _of(endpoints, row[0]), _of(waits, row[0])) for row in rows]

    async def served(self) -> bool:
        """Whether a daemon that takes runs from the queue is alive."""
        statement = "SELECT 1 FROM process WHERE state = 'live' AND serves = 1 LIMIT 1"
        async with self._database.read() as connection:
            return (await connection.execute(statement)).one_or_none() is not None

    async def in_the_way(self, run_ids: Sequence[int], now: float) -> int:
        """How many of these executing runs keep others waiting.

        Runs that only deliver and pause do not, nor do runs whose job file takes long to load.
        """
        statement = f"SELECT count(*) FROM run o WHERE o.id IN (SELECT value FROM json_each(:runs)) AND {_TAKES_ROOM}"
        async with self._database.read() as connection:
            count = await connection.execute(statement, {"runs": orjson.dumps(list(run_ids)).decode(), "now": now})
            return int(count.scalar_one())

    async def cancelled(self, run_ids: Sequence[int]) -> set[int]:
        """Those of these runs that have been cancelled."""
        statement = "SELECT id FROM run WHERE id IN (SELECT value FROM json_each(:runs)) AND state = 'cancelled'"
        async with self._database.read() as connection:
            return set((await connection.execute(statement, {"runs": orjson.dumps(list(run_ids)).decode()})).scalars())


async def _with_key(connection: AsyncConnection, submission: Submission) -> int | None:
    """The run with that key, if it is queued, executing, or finished and delivered; otherwise free the key."""
    key = {"key": submission.key}
    holder = (await connection.execute(_WITH_KEY, key)).one_or_none()
    if holder is None:
        return None
    if holder.over:
        await connection.execute("UPDATE run SET key = NULL, key_hash = NULL WHERE key = :key", key)
        return None
    if holder.key_hash != submission.key_hash:
        raise UsageError(
            f"key {submission.key!r} belongs to run {holder.id}, which was submitted with another "
            "job file or other options; use another key, or submit exactly the same"
        )
    return int(holder.id)


async def _claim(connection: AsyncConnection, process_id: int, now: float) -> int | None:
    claimed = (
        "UPDATE run SET holder = :process, tries = :tries, settled_at_claim = :settled, due_at = :again, why = NULL "
        "WHERE id = :run AND holder IS NULL"
    )
    while (row := (await connection.execute(_NEXT, {"now": now, "run": 0})).one_or_none()) is not None:
        tries = 1 if row.settled > row.settled_at_claim else row.tries + 1
        wait = next_try(tries)
        if wait is None:
            await _give_up(connection, row.id, tries - 1, row.why)
            continue
        values = {"run": row.id, "process": process_id, "tries": tries, "settled": row.settled, "again": now + wait}
        await connection.execute(claimed, values)
        return int(row.id)
    return None


async def insert_queued(connection: AsyncConnection, submission: Submission) -> int:
    """Insert a queued run; return its id. Its snapshot is made when it is executed."""
    await connection.execute("INSERT INTO job (name) VALUES (:job) ON CONFLICT DO NOTHING", {"job": submission.job})
    values: Mapping[str, object] = {
        "job": submission.job,
        "spec": exact_json.dumps(submission.about).decode(),
        "now": time.time(),
        "due": submission.due_at,
        "priority": submission.priority,
        "deadline": submission.deadline,
        "key": submission.key,
        "key_hash": submission.key_hash,
    }
    statement = (
        "INSERT INTO run (job_id, state, fingerprint, spec, created_at, due_at, priority, deadline, key, key_hash) "
        "SELECT id, 'ingesting', '', :spec, :now, :due, :priority, :deadline, :key, :key_hash FROM job "
        "WHERE name = :job RETURNING id"
    )
    run_id = int((await connection.execute(statement, values)).scalar_one())
    for endpoint in sorted(set(submission.endpoints)):
        await connection.execute(
            "INSERT INTO uses (run_id, endpoint) VALUES (:run, :endpoint)", {"run": run_id, "endpoint": endpoint}
        )
    for other, any_end in submission.after:
        await connection.execute(
            (
                "INSERT INTO wait (run_id, for_run, any_end) VALUES (:run, :other, :any_end) "
                "ON CONFLICT (run_id, for_run) DO UPDATE SET any_end = min(any_end, excluded.any_end)"
            ),
            {"run": run_id, "other": other, "any_end": any_end},
        )
    return run_id


async def inherit_queued(connection: AsyncConnection, old: int, new: int) -> None:
    """Run `new` replaces run `old` in the queue, and for the runs that wait for it."""
    moved = (
        "UPDATE run SET (due_at, priority, deadline, key, key_hash, tries, settled_at_claim, held, concurrency) = "
        "(SELECT due_at, priority, deadline, :key, key_hash, tries, 0, held, concurrency FROM run WHERE id = :old) "
        "WHERE id = :new"
    )
    values: dict[str, object] = {"old": old, "new": new}
    key = (await connection.execute("SELECT key FROM run WHERE id = :old", values)).scalar_one()
    await connection.execute("UPDATE run SET key = NULL WHERE id = :old", values)
    await connection.execute(moved, values | {"key": key})
    for statement in (
        "UPDATE uses SET run_id = :new WHERE run_id = :old",
        "UPDATE wait SET run_id = :new WHERE run_id = :old",
        "UPDATE wait SET for_run = :new WHERE for_run = :old",
        "UPDATE run SET due_at = NULL WHERE id = :old",
    ):
        await connection.execute(statement, values)


async def stand_in(connection: AsyncConnection, run_id: int) -> None:
    """Runs that wait for cancelled or superseded runs of this run's job now wait for this run."""
    for statement in _STAND_IN:
        await connection.execute(statement, {"run": run_id})


async def latest_run(connection: AsyncConnection, job: str) -> int | None:
    """The id of a job's latest run; None if it has none."""
    run_id: int | None = (await connection.execute(_LATEST, {"job": job})).scalar_one_or_none()
    return run_id


async def _give_up(connection: AsyncConnection, run_id: int, tries: int, last: str | None) -> None:
    """Fail a run whose processes keep dying without progress; a person has to look."""
    why = f"its process died {tries} times without any progress (at most {MOST_TRIES - 1} times)"
    await _fail(connection, run_id, None, f"{why}, at last: {last}" if last else f"{why}; see its log", owed=True)


async def _fail(connection: AsyncConnection, run_id: int, holder: int | None, why: str, *, owed: bool) -> None:
    values = {"run": run_id, "holder": holder, "why": why, "owed": owed, "id": new_id(), "now": time.time()}
    await connection.execute(_FAIL, values)


async def asked_by_another(connection: AsyncConnection, run_id: int) -> bool:
    """Whether another queued run is asking an endpoint of this run, which took so long to load that it was passed."""
    return (await connection.execute(_ASKED_BY_ANOTHER, {"run": run_id})).one_or_none() is not None


def _of(pairs: Sequence[Sequence[Any]], run_id: int) -> list[Any]:
    return [other for owner, other in pairs if owner == run_id]


def _as_queued(row: Sequence[Any], endpoints: Sequence[str], waits_for: Sequence[int]) -> Queued:
    number, job, state, due, priority, deadline, held, executing, submitted, tries, why = row
    return Queued(
        number,
        job,
        state,
        due,
        priority,
        deadline,
        bool(held),
        bool(executing),
        endpoints,
        submitted,
        tries,
        why,
        waits_for,
    )
