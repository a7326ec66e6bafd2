"""orchestrator queue, prioritize: list the queue, and change its order."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer
from rich.table import Table

from orchestrator.cli.command import print_json, with_app
from orchestrator.cli.options import AsJson, ThisRun, priority_of
from orchestrator.cli.terminal import STDERR, Terminal, say
from orchestrator.report.listings import moment, queue_json, stands

_WIDE = 160  # characters of a line if there is no terminal


def queue(context: typer.Context, json: AsJson = False) -> None:
    """List the queue: the runs being executed, then those that wait, in the order in which they will be taken."""
    now = time.time()
    found, served = with_app(context, lambda app: app.queue(), json=json)
    if json:
        print_json(queue_json(found, now, served=served))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("run", "job", "priority", "endpoints", "submitted", "stands"):
        table.add_column(column, justify="right" if column in {"run", "priority"} else "left", overflow="fold")
    for one in found:
        submitted = moment(one.submitted_at)
        table.add_row(str(one.id), one.job, str(one.priority), ", ".join(one.endpoints), submitted, stands(one, now))
    console = Terminal(width=None if sys.stdout.isatty() else _WIDE)
    console.print(table if found else "the queue is empty")
    if not served:
        STDERR.print("no daemon is running: start one with `orchestrator serve`", style="yellow")


prioritize = typer.Typer(add_completion=False)


@prioritize.command("prioritize", context_settings={"ignore_unknown_options": True})  # -5 is a number and not an option
def _prioritize(
    context: typer.Context,
    run: ThisRun,
    priority: Annotated[
        int,
        typer.Argument(
            help="The new priority; runs with a higher one go first. The default of runs is 0.",
            metavar="N",
            parser=priority_of,
        ),
    ],
) -> None:
    """Change the priority of a queued run."""
    found = with_app(context, lambda app: app.prioritize(run, priority))
    say(f"run {found.id} of {found.job} has priority {priority}")
