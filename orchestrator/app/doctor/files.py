"""Checks that a job's first row makes a request, and that its output files can be written."""

from __future__ import annotations

from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

from anyio import to_thread

from orchestrator.app.doctor.finding import Finding
from orchestrator.domain.errors import OrchestratorError, UsageError, described
from orchestrator.domain.request import MissingColumn
from orchestrator.engine.asking.request_json import stored_request
from orchestrator.engine.run.files import check_files
from orchestrator.ports import ReadsResults

if TYPE_CHECKING:
    from orchestrator.app.doctor.finding import Findings, Patient
    from orchestrator.domain.item import Row
    from orchestrator.job import Job

_FIRST_ROW_WITHIN = 10.0  # seconds for the first row


async def inputs(patient: Patient) -> Findings:
    """Read the first row of the job's source, and make its request. What reads the ledger is left to `plan`."""
    if patient.job is None or isinstance(patient.job[1].source, ReadsResults):
        return []
    job = patient.job[1]
    if patient.offline:
        return [Finding("source", "ok", "not checked (--offline)")]
    found = SimpleQueue[Finding]()  # a thread of its own, which a source that hangs cannot make this process wait for
    Thread(target=lambda: found.put(_first_row(job)), name="first row", daemon=True).start()
    try:
        return [await to_thread.run_sync(partial(found.get, timeout=_FIRST_ROW_WITHIN))]
    except Empty:
        seen = f"{job.source.describe()}: no row within {_FIRST_ROW_WITHIN:.0f} s"
        return [Finding("source", "warn", seen, "look at what it reads from")]


def _first_row(job: Job) -> Finding:
    name = job.source.describe()
    try:
        with job.source.rows() as rows:
            row = next(rows, None)
    except OrchestratorError as failure:
        return _failed("source", str(failure))
    except Exception as failure:  # noqa: BLE001 - the user's own code, or anything that a library raises over a file
        return Finding("source", "fail", described(failure), "correct the source in the job file")
    if row is None:
        return Finding("source", "ok" if job.allow_empty else "warn", f"{name} has no rows", "check its path")
    if row.unreadable is not None:
        remedy = "check that it is the right file; such rows are discarded"
        return Finding("source", "warn", f"{name}: {row.unreadable}", remedy)
    if (why := _why_no_request(job, row)) is not None:
        remedy = "correct `request` in the job file" if job.rollout is None else "change or leave out such columns"
        return Finding("request", "fail", f"the first row: {why}", remedy)
    makes = "makes a request" if job.rollout is None else "can be given to the rollout"
    return Finding("source", "ok", f"{name}: the first row {makes}")


def _why_no_request(job: Job, row: Row) -> str | None:
    try:
        stored_request(job.renderer()(row.columns))
    except MissingColumn as failure:
        return str(failure)
    except Exception as failure:  # noqa: BLE001 - the user's own function
        return described(failure)
    return None


async def outputs(patient: Patient) -> Findings:
    """Check that the output can be written, and would not overwrite the job's input or files of others."""
    if patient.job is None:
        return []
    jobfile, job = patient.job
    try:
        await to_thread.run_sync(check_files, job, patient.ledger, str(jobfile))
    except UsageError as failure:
        return [_failed("output", str(failure))]
    kept = "the answers stay in the ledger: the job has no sink"
    return [Finding("output", "ok", kept if job.output is None else f"{job.output} can be written")]


def _failed(name: str, failure: str) -> Finding:
    seen, mark, remedy = failure.rpartition(": ")
    return Finding(name, "fail", seen, remedy) if mark else Finding(name, "fail", failure, "correct it in the job file")
