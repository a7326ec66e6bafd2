"""orchestrator describe: what a job file declares, for a daemon that must not load it itself. Hidden from users."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout

import typer

from orchestrator import exact_json
from orchestrator.cli.options import AsJson, JobFile
from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.exit_code import ExitCode
from orchestrator.engine.daemon.loading import description_of, limited
from orchestrator.job_file import NoJob, load_job


def describe(jobfile: JobFile, _json: AsJson = False) -> None:
    """Print what a job file declares, or why it cannot be loaded, as one line of JSON."""
    try:
        with limited(), redirect_stdout(sys.stderr):  # the file itself may print
            description = description_of(load_job(jobfile))
    except NoJob:
        description = {"job": None, "schedule": None}
    except OrchestratorError as error:
        description = {"error": str(error)}
    sys.stdout.write(exact_json.dumps(description).decode() + "\n")
    raise typer.Exit(ExitCode.USAGE if "error" in description else ExitCode.COMPLETED)
