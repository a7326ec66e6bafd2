"""orchestrator queue, prioritize: list the queue, and change its order."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer
from rich.table import Table

from orchestrator.cli.command import print_json, with_app
from orchestrator.cli.items import ThisRun
from orchestrator.cli.run import AsJson
from orchestrator.cli.terminal import STDERR, Terminal, say
from orchestrator.report.listings import moment, queue_json, stands

_MOST = 2**63  # SQLite's whole numbers are smaller
_WIDE = 160  # characters of a line if there is no terminal


def priority_of(text: str) -> int:
    """Parse a priority that fits in the ledger. typer's `min` and `max` would do, but would appear in the help."""
    try:
        number = int(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a whole number") from error
    if not -_MOST <= number < _MOST:
        raise typer.BadParameter(f"{text} does not fit in 64 bits")
    return number


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


def prioritize(
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
