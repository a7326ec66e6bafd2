"""orchestrator runs: list the latest runs of the ledger."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from orchestrator.cli.command import print_json, with_app
from orchestrator.cli.options import AsJson
from orchestrator.cli.terminal import Terminal
from orchestrator.engine.status import state_word
from orchestrator.report.listings import moment, run_json


def runs(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, newest first.")] = 20,
    json: AsJson = False,
) -> None:
    """List the latest runs."""
    found = with_app(context, lambda app: app.runs(limit), json=json)
    if json:
        print_json({"runs": [run_json(run, counts) for run, counts in found]})
        return
    table = Table(box=None, pad_edge=False)
    for column in ("run", "job", "state", "items", "completed", "discarded", "begun"):
        table.add_column(column, justify="left" if column in {"job", "state", "begun"} else "right")
    for run, counts in found:
        begun = "" if run.started_at is None else moment(run.started_at)
        numbers = (f"{counts.total:,}", f"{counts.completed:,}", f"{counts.discarded:,}")
        table.add_row(str(run.id), run.job, state_word(run), *numbers, begun)
    Terminal().print(table)
