"""orchestrator cancel: stop a run and mark it cancelled."""

from __future__ import annotations

import typer

from orchestrator.cli.command import with_app
from orchestrator.cli.options import ThisRun
from orchestrator.cli.terminal import say


def cancel(context: typer.Context, run: ThisRun) -> None:
    """Stop a run and mark it cancelled. Completed items are kept, and the job's next run reuses them."""
    found, was = with_app(context, lambda app: app.stop(run))
    if was.ended:
        say(f"run {found.id} of {found.job} had already ended: {was}")
    else:
        say(f"run {found.id} of {found.job} is cancelled")
