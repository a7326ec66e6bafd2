"""orchestrator execute: the command of a daemon's child process. Hidden from users."""

from __future__ import annotations

import os
import signal
import threading
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.command import with_app
from orchestrator.cli.run import execute as run_and_report
from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.queue import Claim
from orchestrator.engine.daemon.loading import limited
from orchestrator.engine.run.run_request import request_of
from orchestrator.parent import outlive

if TYPE_CHECKING:
    from orchestrator.app import App


def execute(
    context: typer.Context,
    run: Annotated[int, typer.Argument(metavar="RUN")],
    claimed_by: Annotated[int, typer.Option(help="The process that claimed the run.", metavar="PROCESS")],
    parent: Annotated[int, typer.Option(help="The daemon's process id.", metavar="PID")],
) -> None:
    """Execute a run that a daemon has claimed, and stop if the daemon dies."""
    threading.Thread(target=_stop_after, args=(parent,), daemon=True).start()
    claim = Claim(run, claimed_by)
    found = with_app(context, lambda app: app.find(str(run)))
    try:
        with limited():
            request = request_of(found, claim)
    except OrchestratorError as error:
        with_app(context, partial(_fail, claim, error))
        return
    run_and_report(context, request, json=False, quiet=False)


def _stop_after(daemon: int) -> None:
    """Wait until the daemon has died, then stop as if it had sent SIGTERM."""
    outlive(daemon)
    os.kill(os.getpid(), signal.SIGTERM)


async def _fail(claim: Claim, error: OrchestratorError, app: App) -> None:
    await app.fail_claim(claim, str(error))
    raise error
