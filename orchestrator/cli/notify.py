"""orchestrator notify: notify hooks how a run ended, if the run's own process could not. Hidden from users."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.command import with_app
from orchestrator.cli.terminal import STDERR
from orchestrator.domain.errors import OrchestratorError
from orchestrator.engine.daemon.loading import limited
from orchestrator.engine.run.run_request import request_of

if TYPE_CHECKING:
    from orchestrator.domain.run import Run
    from orchestrator.job import Job


def notify(
    context: typer.Context,
    run: Annotated[int, typer.Argument(metavar="RUN")],
    without_job: Annotated[
        bool, typer.Option("--without-job", help="Its job file cannot be loaded: use the hooks of the settings.")
    ] = False,
) -> None:
    """Notify the hooks of a run's job how it ended, or those of the settings if the job is not known."""
    job = None if without_job else _job(with_app(context, lambda app: app.find(str(run))))
    for trouble in with_app(context, lambda app: app.notify(run, job)):
        STDERR.print(trouble)


def _job(run: Run) -> Job | None:
    try:
        with limited():
            return request_of(run).job
    except OrchestratorError:
        return None
