"""Which run a process takes: one that goes on, a queued one that begins, or a new one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from orchestrator import exact_json
from orchestrator.domain.errors import Busy, GaveWay, UsageError
from orchestrator.domain.run import RunState
from orchestrator.store.queue import asked_by_another
from orchestrator.store.run_rows import EXECUTED, LATEST_ALIKE, LATEST_BEGUN, find_run, run_by_id

if TYPE_CHECKING:
    from orchestrator.domain.queue import Claim
    from orchestrator.domain.run import Run, Spec
    from orchestrator.store.connection import AsyncConnection


async def goes_on(connection: AsyncConnection, run: Run, spec: Spec, retry: int | None) -> bool:
    """Whether this run is continued for this spec. An incremental job's run can be retried even if rows were added.

    Runs of older versions do not say how their source was read.
    """
    complete = run.state not in {RunState.INGESTING, RunState.CANCELLED}
    if not complete or run.spec.fingerprint != spec.fingerprint:
        return False
    if run.id == retry and run.spec.about.get("incremental"):
        return True
    same_source = spec.input_sha256 is not None and run.spec.input_sha256 == spec.input_sha256
    reads_as = spec.about.get("reads_as")
    same_rows = same_source and run.spec.about.get("reads_as", reads_as) == reads_as
    return same_rows and not await _is_over(connection, run)


async def _is_over(connection: AsyncConnection, run: Run) -> bool:
    """Whether it is a delivered run of an incremental job, so that new rows belong to another run.

    It is not over while some of its items are to be asked again.
    """
    if not run.spec.about.get("incremental") or run.delivered_at is None:
        return False
    left = "SELECT 1 FROM chunk WHERE run_id = :run AND state <> 'done' LIMIT 1"
    return (await connection.execute(left, {"run": run.id})).one_or_none() is None


async def refuse_while_executed(connection: AsyncConnection, job: str) -> None:
    """Raise `Busy` if a process is executing a run of the job."""
    executed = await find_run(connection, EXECUTED, job=job)
    if executed is not None:
        raise Busy(await _who_holds(connection, executed))


def refuse_while_held(run: Run) -> None:
    """Raise `Busy` if a process holds the run, which may have delivered and keep its endpoint awake for the next."""
    if run.holder is not None:
        raise Busy(f"a process still holds run {run.id} of job {run.job!r}; wait for it, see `orchestrator runs`")


async def retried_by(connection: AsyncConnection, run: Run) -> Run:
    """The run that asks a run's discarded items again: the job's latest run without a limit, if there is one.

    A run of an incremental job asks them itself, because no other run has its rows.
    """
    whole = await find_run(connection, LATEST_ALIKE, job=run.job, limit=None)
    if whole is None or whole.state is RunState.CANCELLED or run.spec.about.get("incremental"):
        return run
    return whole


async def standing(connection: AsyncConnection, spec: Spec, claim: Claim | None, retry: int | None) -> Run | None:
    """The run that may be continued. `Busy` if another process holds it or executes another run of the job.

    A claim ends when its run leaves the queue: if it is cancelled, or if another run has taken its place.
    """
    if claim is None:
        await refuse_while_executed(connection, spec.job)
        if retry is not None:
            return await _retried(connection, spec, retry)
        return await find_run(connection, LATEST_BEGUN, job=spec.job)
    claimed = await run_by_id(connection, claim.run_id)
    if claimed.holder != claim.process_id or claimed.due_at is None:
        why = "it has left the queue, or another process has it"
        raise Busy(f"run {claimed.id} of job {claimed.job!r} is no longer claimed; {why}")
    _check_job(claimed, spec)
    if await asked_by_another(connection, claimed.id):
        raise GaveWay("another run asks its endpoint; it goes on after that")
    return claimed


async def _retried(connection: AsyncConnection, spec: Spec, retry: int) -> Run | None:
    asked = await run_by_id(connection, retry)
    _check_job(asked, spec)
    if asked.spec.about.get("incremental") and asked.state is not RunState.SUPERSEDED:
        return asked
    return await find_run(connection, LATEST_ALIKE, job=spec.job, limit=spec.about.get("limit"))


def _check_job(run: Run, spec: Spec) -> None:
    if run.job != spec.job:
        raise UsageError(f"run {run.id} is of job {run.job!r}, but its job file now declares {spec.job!r}")


async def begin(connection: AsyncConnection, run: Run, spec: Spec) -> int:
    """A queued run is executed for the first time: store what it is made from."""
    values = {"run": run.id, "fingerprint": spec.fingerprint, "spec": exact_json.dumps(spec.about).decode()}
    statement = "UPDATE run SET fingerprint = :fingerprint, spec = :spec WHERE id = :run"
    await connection.execute(statement, values)
    return run.id


async def supersede_others(connection: AsyncConnection, run_id: int) -> None:
    """Supersede earlier unfinished runs of the job that no process holds: this run does their work."""
    statement = (
        "UPDATE run SET state = 'superseded', rate = NULL, finished_at = :now WHERE holder IS NULL AND due_at IS NULL "
        "AND job_id = (SELECT job_id FROM run WHERE id = :run) AND id < :run "
        "AND state NOT IN ('finished', 'cancelled', 'superseded')"
    )
    await connection.execute(statement, {"run": run_id, "now": time.time()})


async def create(connection: AsyncConnection, spec: Spec) -> int:
    """Create a run without a snapshot; return its id."""
    name = {"name": spec.job}
    await connection.execute("INSERT INTO job (name) VALUES (:name) ON CONFLICT DO NOTHING", name)
    values = name | {"fingerprint": spec.fingerprint, "spec": exact_json.dumps(spec.about).decode(), "now": time.time()}
    statement = (
        "INSERT INTO run (job_id, state, fingerprint, spec, created_at) "
        "SELECT id, 'ingesting', :fingerprint, :spec, :now FROM job WHERE name = :name RETURNING id"
    )
    return int((await connection.execute(statement, values)).scalar_one())


async def _who_holds(connection: AsyncConnection, run: Run) -> str:
    holder = "SELECT pid, host FROM process WHERE id = :holder"
    pid, host = (await connection.execute(holder, {"holder": run.holder})).one()
    machine = host.split("/", maxsplit=1)[0]
    return (
        f"run {run.id} of job {run.job!r} is being executed by process {pid} on {machine}; "
        f"wait for it, or watch it with `orchestrator status {run.id}`"
    )
