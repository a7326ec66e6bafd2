"""orchestrator costs: what endpoints cost, according to the ledger's receipts."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from orchestrator.cli.command import print_json, with_store
from orchestrator.cli.options import AsJson
from orchestrator.cli.terminal import Terminal
from orchestrator.domain.costs import By, bill
from orchestrator.domain.phrases import duration, money
from orchestrator.report.listings import costs_json

if TYPE_CHECKING:
    from orchestrator.domain.costs import Receipt
    from orchestrator.store import Store

Group = Annotated[By, typer.Option("--by", help="Group by job, endpoint or day.", metavar="job|endpoint|day")]
Days = Annotated[int | None, typer.Option("--days", min=1, help="Only the last N days.", metavar="N")]
_DAY = 86_400.0


def costs(context: typer.Context, by: Group = "job", days: Days = None, json: AsJson = False) -> None:
    """Show what endpoints cost: seconds awake according to this ledger's receipts, times the price per hour."""
    now = time.time()
    receipts = with_store(context, partial(_receipts, now - days * _DAY if days else 0.0), json=json)
    lines = bill(receipts, by, now)
    if json:
        print_json(costs_json(by, lines))
        return
    table = Table(by, "awake", "cost", box=None, pad_edge=False)
    for line in lines:
        table.add_row(line.what, duration(line.seconds), money(line.dollars))
    Terminal(soft_wrap=True).print(table)


async def _receipts(since: float, store: Store) -> list[Receipt]:
    return await store.receipts.since(since)
