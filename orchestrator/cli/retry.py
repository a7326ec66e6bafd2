"""orchestrator retry: make discarded items available again, and run them."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from orchestrator.cli.command import reported, with_app
from orchestrator.cli.options import AsJson, Overwrite, Quiet, ThisRun
from orchestrator.cli.run import execute
from orchestrator.cli.terminal import STDERR
from orchestrator.engine.run.run_request import request_of


def retry(
    context: typer.Context,
    run: ThisRun,
    like: Annotated[
        str | None,
        typer.Option(help="Only items that failed for the same cause as the item with this id.", metavar="ID"),
    ] = None,
    overwrite: Overwrite = False,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Ask a run's discarded items again. They run, and are delivered, in the job's latest run without --limit."""
    found, by, forgivable = with_app(context, lambda app: app.retried(run, like), json=json)
    context.obj = context.obj.pinned()
    with reported(json=json):
        request = request_of(by, overwrite=overwrite)
    if not quiet:
        others = "" if by.id == found.id else f", and are asked where run {by.id} has them"
        STDERR.print(f"{forgivable:,} discarded items of run {found.id} are available again{others}", markup=False)
    execute(context, replace(request, retry=found.id, like=like), json=json, quiet=quiet)
