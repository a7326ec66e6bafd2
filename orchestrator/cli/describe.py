"""orchestrator describe: what a job file declares, for a daemon that must not load it itself. Hidden from users."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from orchestrator import exact_json
from orchestrator.cli.run import AsJson, JobFile
from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.exit_code import ExitCode
from orchestrator.engine.daemon.loading import limited
from orchestrator.job_file import NoJob, load_job
from orchestrator.spec import stored_spec

if TYPE_CHECKING:
    from orchestrator.job import Job


def describe(jobfile: JobFile, _json: AsJson = False) -> None:
    """Print what a job file declares, or why it cannot be loaded, as one line of JSON."""
    try:
        with limited(), redirect_stdout(sys.stderr):  # the file itself may print
            job = load_job(jobfile)
            description = _description(job)
    except NoJob:
        description = {"job": None, "schedule": None}
    except OrchestratorError as error:
        description = {"error": str(error)}
    sys.stdout.write(exact_json.dumps(description).decode() + "\n")
    raise typer.Exit(ExitCode.USAGE if "error" in description else ExitCode.COMPLETED)


def _description(job: Job) -> dict[str, object]:
    return {
        "job": job.name,
        "schedule": None if job.schedule is None else asdict(job.schedule),
        "endpoints": sorted(job.endpoint_names),
        "priority": 0,
        "deadline": job.policy.deadline,
        "after": job.waits_for,
        "fingerprint": _fingerprint(job),
    } | stored_spec(job)


def _fingerprint(job: Job) -> str | None:
    """Return the job's fingerprint; None if an input to it, such as a model's folder, is not on this machine."""
    try:
        return job.fingerprint(job.identity(), None)
    except (OrchestratorError, OSError):
        return None
