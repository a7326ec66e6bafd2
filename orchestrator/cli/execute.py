"""orchestrator execute: what a daemon's child process does. Not for people."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.command import with_store
from orchestrator.cli.notify import failure_hooks
from orchestrator.cli.run import execute as run_and_report
from orchestrator.cli.run import request_of
from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.queue import Claim
from orchestrator.engine.loading import limited
from orchestrator.parent import outlive

if TYPE_CHECKING:
    from orchestrator.domain.run import Run
    from orchestrator.store import Store


def execute(
    context: typer.Context,
    run: Annotated[int, typer.Argument(metavar="RUN")],
    claimed_by: Annotated[int, typer.Option(help="The process that claimed the run.", metavar="PROCESS")],
    parent: Annotated[int, typer.Option(help="The daemon's process id.", metavar="PID")],
) -> None:
    """Execute a run that a daemon has claimed, and stop when the daemon is gone."""
    threading.Thread(target=_stop_after, args=(parent,), daemon=True).start()
    claim = Claim(run, claimed_by)
    found = with_store(context, partial(_found, run))
    try:
        with limited():
            request = request_of(found, claim)
    except OrchestratorError as error:
        with_store(context, partial(_fail, claim, error))
        return
    if not request.job.failure_hooks and (hooks := failure_hooks(context.obj.settings())):
        request = replace(request, job=replace(request.job, on_failure=hooks))
    run_and_report(context, request, json=False, quiet=False)


def _stop_after(daemon: int) -> None:
    """When the daemon is dead, we stop as if it had told us to."""
    outlive(daemon)
    os.kill(os.getpid(), signal.SIGTERM)


async def _found(run_id: int, store: Store) -> Run:
    return await store.runs.find(str(run_id))


async def _fail(claim: Claim, error: OrchestratorError, store: Store) -> None:
    await store.queue.fail(claim, str(error), owed=True)
    raise error
