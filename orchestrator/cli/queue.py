"""orchestrator queue, prioritize: what is to be executed, and what first."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from orchestrator.cli.command import print_json, with_app
from orchestrator.cli.items import ThisRun
from orchestrator.cli.run import AsJson
from orchestrator.cli.terminal import STDERR, Terminal, say
from orchestrator.domain.wall_clock import dated

if TYPE_CHECKING:
    from orchestrator.domain.queue import Queued

_MOST = 2**63  # SQLite's whole numbers are smaller
_WIDE = 160  # characters of a line where no terminal says how many


def priority_of(text: str) -> int:
    """A number that a ledger can hold; not typer's `min` and `max`, which the help would show."""
    try:
        number = int(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no whole number") from error
    if not -_MOST <= number < _MOST:
        raise typer.BadParameter(f"{text} is beyond 64 bits")
    return number


def queue(context: typer.Context, json: AsJson = False) -> None:
    """List the queue: what is being executed, then what waits, in the order in which it is taken."""
    now = time.time()
    found, served = with_app(context, lambda app: app.queue(), json=json)
    if json:
        print_json({"served": served, "queue": [asdict(one) | {"stands": stands(one, now)} for one in found]})
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
        typer.Argument(help="0 is what runs have by themselves; higher is sooner.", metavar="N", parser=priority_of),
    ],
) -> None:
    """Have a queued run taken before or after others."""
    found = with_app(context, lambda app: app.prioritize(run, priority))
    say(f"run {found.id} of {found.job} has priority {priority}")


def stands(one: Queued, now: float) -> str:
    """How a queued run stands, in words."""
    if one.executing:
        return "running" if one.state != "finished" else "delivering"
    why = f" ({one.why})" if one.why else ""
    if one.held:
        return f"held; `orchestrator go {one.id}` lets it go on"
    if one.waits_for:
        return f"waits for run {', '.join(map(str, one.waits_for))}{why}"
    if one.due_at > now:
        return f"due {moment(one.due_at)}{why}"
    late = f", wanted by {moment(one.deadline)}" if one.deadline is not None else ""
    return f"due now{late}{why}"


def moment(at: float) -> str:
    """A moment in this machine's time zone."""
    return f"{dated(at, None):%Y-%m-%d %H:%M:%S}"
