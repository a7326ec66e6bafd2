"""Checks that a job's output files can be written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import to_thread

from orchestrator.app.doctor.finding import Finding
from orchestrator.domain.errors import UsageError
from orchestrator.engine.run.files import check_files

if TYPE_CHECKING:
    from orchestrator.app.doctor.finding import Findings, Patient


async def outputs(patient: Patient) -> Findings:
    """Check that the output can be written, and would not overwrite the job's input or files of others."""
    if patient.job is None:
        return []
    jobfile, job = patient.job
    try:
        await to_thread.run_sync(check_files, job, patient.ledger, str(jobfile))
    except UsageError as failure:
        seen, _, remedy = str(failure).rpartition(": ")
        return [Finding("output", "fail", seen, remedy)]
    kept = "the answers stay in the ledger: the job has no sink"
    return [Finding("output", "ok", kept if job.output is None else f"{job.output} can be written")]
