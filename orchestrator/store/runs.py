"""Transitions of processes and runs: who is alive, who executes what, how it ended."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import orjson

from orchestrator import exact_json
from orchestrator.domain.errors import Fenced, UsageError
from orchestrator.domain.failpoints import reached
from orchestrator.domain.run import RunState
from orchestrator.store.forgive import forgivable, forgive
from orchestrator.store.processes import LIVE, Process
from orchestrator.store.queue import inherit_queued, stand_in
from orchestrator.store.run_rows import BY_ID, CURRENT, LATEST, NEWEST, PAGE, as_run, find_run, run_by_id
from orchestrator.store.taking import (
    begin,
    create,
    goes_on,
    refuse_while_executed,
    retried_by,
    standing,
    supersede_others,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from orchestrator.domain.queue import Claim
    from orchestrator.domain.run import Plan, Run, Spec
    from orchestrator.store.connection import AsyncConnection
    from orchestrator.store.database import Database


@dataclass(frozen=True, slots=True)
class Tuned:
    """The best values found for one shape of work: requests in flight and items per request. None if not found yet."""

    concurrency: int | None = None
    batch_size: int | None = None


_REOPEN = (
    "UPDATE run SET state = 'open', error = NULL, finished_at = NULL, delivered_at = NULL "
    "WHERE id = :run AND state IN ('finished', 'failed', 'stopped')"
)
_IDENTITIES = """
SELECT r.spec -> '$.identity' FROM job j JOIN run r ON r.job_id = j.id
WHERE j.name = :job AND r.spec -> '$.identity' IS NOT NULL GROUP BY 1 ORDER BY max(r.id) DESC
"""
_COMPUTED_WITH = """
UPDATE run SET spec = json_insert(spec, '$.computed_with[#]', json(:how))
WHERE id = :run AND NOT EXISTS (SELECT 1 FROM json_each(spec, '$.computed_with') WHERE value = json(:how))
"""
_COMPUTERS = """
SELECT how.value FROM run one JOIN run r ON r.job_id = one.job_id AND r.spec -> '$.identity' = one.spec -> '$.identity'
JOIN json_each(r.spec, '$.computed_with') how
WHERE one.id = :run AND r.id <= one.id GROUP BY 1 ORDER BY min(r.id), min(how.key)
"""


class Runs:
    """Every way a process's or a run's state changes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- processes ----------------------------------------------------------------------------------------------------

    async def register(self, *, host: str, pid: int, pid_started: float, lease: float, serves: bool = False) -> int:
        """Register this process start, with a lease of `lease` seconds; return its id.

        `serves`: it is a daemon that takes runs from the queue.
        """
        values = {"host": host, "pid": pid, "started": pid_started, "lease": lease, "serves": serves}
        statement = (
            "INSERT INTO process (host, pid, pid_started, started_at, lease_until, state, serves) "
            "VALUES (:host, :pid, :started, :now, :now + :lease, 'live', :serves) RETURNING id"
        )
        async with self._database.write() as connection:  # the lease begins now, however long the lock took
            return int((await connection.execute(statement, values | {"now": time.time()})).scalar_one())

    async def beat(
        self, process_id: int, lease: float, *, run_id: int, rate: float | None, why: str | None = None
    ) -> None:
        """Renew this process's lease, and note the run's rate and why nothing is asked.

        `Fenced` if another process has declared this one dead.
        """
        alive = "UPDATE process SET lease_until = :until WHERE id = :process AND state = 'live'"
        noted = "UPDATE run SET rate = :rate, why = :why WHERE id = :run AND holder = :process"
        values = {"process": process_id, "run": run_id, "rate": rate, "why": why}
        async with self._database.write() as connection:
            if (await connection.execute(alive, values | {"until": time.time() + lease})).rowcount == 0:
                raise Fenced(
                    "this process was silent for too long and another one has taken over its work; "
                    "run the same command again to continue"
                )
            await connection.execute(noted, values)

    async def controls(self, run_id: int) -> tuple[RunState, bool, int | None]:
        """The run's state, whether it is held, and how many requests a person wants in flight, if any was set."""
        async with self._database.read() as connection:
            statement = "SELECT state, held, concurrency FROM run WHERE id = :run"
            row = (await connection.execute(statement, {"run": run_id})).one()
        return RunState(row.state), bool(row.held), row.concurrency

    async def order(self, run_id: int, orders: Mapping[str, int | None]) -> None:
        """Set what a person wants of a run: `held`, `concurrency`. Its process looks at them twice a second."""
        changes = ", ".join(f"{name} = :{name}" for name in ("held", "concurrency") if name in orders)
        async with self._database.write() as connection:
            await connection.execute(f"UPDATE run SET {changes} WHERE id = :run", {"run": run_id, **orders})

    async def tuned(self, shape: str) -> Tuned:
        """The best values found for this shape of work so far."""
        statement = "SELECT concurrency, batch_size FROM tuning WHERE shape = :shape"
        async with self._database.read() as connection:
            row = (await connection.execute(statement, {"shape": shape})).one_or_none()
            return Tuned() if row is None else Tuned(*row)

    async def remember(self, shape: str, tuned: Tuned) -> None:
        """Store the best values found; those that are None stay unchanged."""
        if tuned == Tuned():
            return
        statement = (
            "INSERT INTO tuning (shape, concurrency, batch_size, at) VALUES (:shape, :concurrency, :batch_size, :now) "
            "ON CONFLICT (shape) DO UPDATE SET concurrency = coalesce(:concurrency, concurrency), "
            "batch_size = coalesce(:batch_size, batch_size), at = :now"
        )
        async with self._database.write() as connection:
            await connection.execute(statement, {"shape": shape, "now": time.time(), **asdict(tuned)})

    async def prolong(self, process_id: int, lease: float) -> bool:
        """Renew this process's lease; False if another process has declared this one dead."""
        alive = "UPDATE process SET lease_until = :until WHERE id = :process AND state = 'live'"
        async with self._database.write() as connection:
            done = await connection.execute(alive, {"until": time.time() + lease, "process": process_id})
            return done.rowcount == 1

    async def living(self) -> list[Process]:
        """Processes that have neither ended nor been declared dead."""
        async with self._database.read() as connection:
            rows = await connection.execute(LIVE)
            return [Process(*row) for row in rows]

    async def bury(self, process: Process) -> bool:
        """Declare a process dead and free its runs; do nothing if it has renewed its lease meanwhile."""
        dead = "UPDATE process SET state = 'dead' WHERE id = :process AND state = 'live' AND lease_until = :lease_until"
        freed = "UPDATE run SET holder = NULL, rate = NULL WHERE holder = :process"
        let_go = "UPDATE hold SET until = :now WHERE process_id = :process AND until IS NULL AND kept_by IS NULL"
        values = {"process": process.id, "lease_until": process.lease_until, "now": time.time()}
        async with self._database.write() as connection:
            if (await connection.execute(dead, values)).rowcount == 0:
                return False
            await connection.execute(freed, values)
            await connection.execute(let_go, values)
            return True

    async def leave(self, process_id: int) -> None:
        """This process ends normally and holds nothing any more."""
        values = {"process": process_id}
        async with self._database.write() as connection:
            await connection.execute("UPDATE process SET state = 'ended' WHERE id = :process", values)
            await connection.execute("UPDATE run SET holder = NULL WHERE holder = :process", values)

    # -- runs ---------------------------------------------------------------------------------------------------------

    async def job_id(self, name: str) -> int | None:
        """The id of a job, if it is in the ledger."""
        async with self._database.read() as connection:
            numbers = await connection.execute("SELECT id FROM job WHERE name = :name", {"name": name})
            number: int | None = numbers.scalar_one_or_none()
            return number

    async def identities(self, job: str) -> list[dict[str, object]]:
        """The different identities of endpoints in the job's runs, the latest first."""
        async with self._database.read() as connection:
            return [orjson.loads(stored) for (stored,) in await connection.execute(_IDENTITIES, {"job": job})]

    async def refuse_while_executed(self, job: str) -> None:
        """Raise `Busy` if a process is executing a run of the job."""
        async with self._database.read() as connection:
            await refuse_while_executed(connection, job)

    async def retried_by(self, run: Run) -> Run:
        """The run that asks a run's discarded items again."""
        async with self._database.read() as connection:
            return await retried_by(connection, run)

    async def take(
        self,
        spec: Spec,
        process_id: int,
        claim: Claim | None = None,
        retry: int | None = None,
        like: str | None = None,
    ) -> Run:
        """Hold the job's run for this spec: its latest run if that still fits, otherwise a new one.

        A run fits if its snapshot is complete and neither the job nor the source has changed since. If the source
        cannot tell whether it has changed, no run fits. An unfinished run that no longer fits is superseded; nothing
        is lost, because answers belong to items, not to runs. With `claim`, take that queued run. With `retry`, ask
        that run's discarded items again: by the latest run with this limit, or by that run itself if the job is
        incremental; with `like`, only those that failed for the same cause as the item with that id. `Busy` if another
        live process is executing the job.
        """
        async with self._database.write() as connection:
            latest = await standing(connection, spec, claim, retry)
            if latest is not None and await goes_on(connection, latest, spec, retry):
                number = latest.id
            elif latest is not None and latest.spec.fingerprint == "":
                number = await begin(connection, latest, spec)
            else:
                number = await create(connection, spec)
                if latest is not None and latest.due_at is not None:
                    await inherit_queued(connection, latest.id, number)
                if latest is not None and not latest.state.ended:
                    await _end(connection, latest.id, RunState.SUPERSEDED, None)
            await supersede_others(connection, number)
            keys = [] if retry is None else await forgivable(connection, retry, like)
            if retry is not None and await forgive(connection, keys, asked_by=number):
                await connection.execute(_REOPEN, {"run": number})
            await stand_in(connection, number)
            hold = (
                "UPDATE run SET holder = :process, started_at = coalesce(started_at, :now), why = NULL WHERE id = :run"
            )
            await connection.execute(hold, {"process": process_id, "now": time.time(), "run": number})
            run = await run_by_id(connection, number)
            reached("before take")
        reached("after take")
        return run

    async def ingested(
        self, run_id: int, *, total: int, plan: Plan, input_sha256: str, made_as: str | None = None
    ) -> None:
        """Ingesting -> open: the run's snapshot is complete."""
        values = {
            "run": run_id,
            "total": total,
            "plan": exact_json.dumps(asdict(plan)).decode(),
            "sha256": input_sha256,
            "made_as": made_as,
        }
        statement = (
            "UPDATE run SET state = 'open', total = :total, plan = :plan, input_sha256 = :sha256, made_as = :made_as "
            "WHERE id = :run AND state = 'ingesting'"
        )
        async with self._database.write() as connection:
            await connection.execute(statement, values)

    async def delivers_to(self, run_id: int, output: str | None) -> None:
        """Set the run's output path, which may contain placeholders; None if it does not deliver."""
        statement = "UPDATE run SET spec = json_set(spec, '$.output', :output) WHERE id = :run"
        async with self._database.write() as connection:
            await connection.execute(statement, {"run": run_id, "output": output})

    async def handed_over(self, run_id: int, why: str) -> None:
        """Store what was left to the fallback for its price, in words, for the report."""
        statement = "UPDATE run SET spec = json_set(spec, '$.handed_over', :why) WHERE id = :run"
        async with self._database.write() as connection:
            await connection.execute(statement, {"run": run_id, "why": why})

    async def computed_with(self, run_id: int, how: Mapping[str, object]) -> None:
        """Store what computes answers of this run, unless it is stored already, for the manifest."""
        async with self._database.write() as connection:
            await connection.execute(_COMPUTED_WITH, {"run": run_id, "how": exact_json.dumps(how).decode()})

    async def computers(self, run_id: int) -> list[dict[str, object]]:
        """Return what has computed answers of this run, or of earlier ones of its job with the same identity."""
        async with self._database.read() as connection:
            return [exact_json.loads(how) for how in (await connection.execute(_COMPUTERS, {"run": run_id})).scalars()]

    async def reopen(self, run_id: int) -> None:
        """Finished, failed or stopped -> open: there are unsettled items again."""
        async with self._database.write() as connection:
            await connection.execute(_REOPEN, {"run": run_id})

    async def end(self, run_id: int, process_id: int, state: RunState, error: str | None = None) -> None:
        """Open -> finished, failed or stopped, by its holder. A run cancelled or taken over meanwhile is unchanged.

        So is a delivered run that is stopped while it keeps its endpoint awake for the next run. A run whose snapshot
        is incomplete does not become finished.
        """
        async with self._database.write() as connection:
            await _end(connection, run_id, state, error, holder=process_id)

    async def not_begun(self, run_id: int, process_id: int) -> None:
        """Undo the start of a run whose holder found only that its own arguments were wrong."""
        statement = (
            "UPDATE run SET started_at = NULL WHERE id = :run AND holder = :process "
            "AND started_at >= (SELECT started_at FROM process WHERE id = :process)"
        )
        async with self._database.write() as connection:
            await connection.execute(statement, {"run": run_id, "process": process_id})

    async def delivered(self, run_id: int, process_id: int, stamp: str | None = None) -> None:
        """Everything settled is delivered, so the run leaves the queue; do nothing if another process holds it.

        `stamp`: of the delivery, if the sink has one (`SeesItsDelivery`).
        """
        statement = (
            "UPDATE run SET delivered_at = :now, due_at = NULL, "
            "spec = iif(:stamp IS NULL, json_remove(spec, '$.delivery'), json_set(spec, '$.delivery', :stamp)) "
            "WHERE id = :run AND holder = :process"
        )
        values = {"run": run_id, "process": process_id, "now": time.time(), "stamp": stamp}
        async with self._database.write() as connection:
            await connection.execute(statement, values)

    async def cancel(self, run_id: int, why: str = "cancelled by hand") -> RunState:
        """Cancel a run unless it has ended; return the state it had. A process that executes it stops soon."""
        async with self._database.write() as connection:
            run = await run_by_id(connection, run_id)
            if not run.state.ended:
                await _end(connection, run_id, RunState.CANCELLED, why)
            return run.state

    async def find(self, name: str | None) -> Run:
        """A run by its number, by its job's name (the latest one), or None for the latest of all."""
        async with self._database.read() as connection:
            if name is None:
                run = await find_run(connection, NEWEST)
            elif name.isdecimal() and len(name) < 20 and int(name) < 2**63:
                run = await find_run(connection, BY_ID, run=int(name))
            else:
                run = await find_run(connection, LATEST, job=name)
        if run is None:
            asked = "no run yet" if name is None else f"no run {name!r}"
            raise UsageError(f"{asked} in ledger {self._database.path}; see `orchestrator runs`")
        return run

    async def latest(self, job: str) -> Run | None:
        """A job's latest run, unless it was superseded; None if there is none."""
        async with self._database.read() as connection:
            return await find_run(connection, LATEST, job=job)

    async def newest(
        self, limit: int, *, before: int | None = None, job: str | None = None, state: str | None = None
    ) -> list[Run]:
        """The latest runs, newest first: before a run, of one job, and in one state, as `state_word` calls it."""
        values = {"limit": limit, "before": 2**63 - 1 if before is None else before, "job": job, "state": state}
        async with self._database.read() as connection:
            return [as_run(row) for row in await connection.execute(PAGE, values)]

    async def current(self, also: Collection[int], newest: int, limit: int) -> list[Run]:
        """The runs that are being executed, those with these numbers, and those made after `newest`, by number."""
        values = {"also": orjson.dumps(list(also)).decode(), "newest": newest, "limit": limit}
        async with self._database.read() as connection:
            return [as_run(row) for row in await connection.execute(CURRENT, values)]

    async def latest_with_rows(self, job_id: int) -> tuple[int, int] | None:
        """The id and the number of rows of the job's latest finished run that had any; None if there is none."""
        statement = (
            "SELECT id, total FROM run WHERE job_id = :job AND state = 'finished' AND total > 0 "
            "ORDER BY id DESC LIMIT 1"
        )
        async with self._database.read() as connection:
            run = (await connection.execute(statement, {"job": job_id})).one_or_none()
            return None if run is None else (run.id, run.total)

    async def parse_of(self, job_id: int) -> str | None:
        """The fingerprint of the `parse` that made this job's outputs."""
        async with self._database.read() as connection:
            fingerprints = await connection.execute("SELECT parse FROM job WHERE id = :job", {"job": job_id})
            fingerprint: str | None = fingerprints.scalar_one()
            return fingerprint

    async def parsed_with(self, job_id: int, fingerprint: str) -> None:
        """All outputs of this job are now made by that `parse`."""
        values = {"job": job_id, "parse": fingerprint}
        async with self._database.write() as connection:
            await connection.execute("UPDATE job SET parse = :parse WHERE id = :job", values)


async def _end(
    connection: AsyncConnection, run_id: int, state: RunState, error: str | None, holder: int | None = None
) -> None:
    at = time.time() if state.ended else None
    values = {"run": run_id, "state": state, "error": error, "at": at, "holder": holder, "now": time.time()}
    statement = (
        "UPDATE run SET state = :state, error = :error, rate = NULL, left_at = :now, "
        "finished_at = CASE WHEN :at IS NULL THEN NULL ELSE coalesce(finished_at, :at) END, "
        "due_at = CASE WHEN :at IS NULL OR :state = 'finished' THEN due_at ELSE NULL END "
        "WHERE id = :run AND state NOT IN ('cancelled', 'superseded') AND (:holder IS NULL OR holder = :holder) "
        "AND NOT (:state = 'stopped' AND state = 'finished' AND delivered_at IS NOT NULL) "
        "AND NOT (:state = 'finished' AND state = 'ingesting')"
    )
    await connection.execute(statement, values)
