"""orchestrator compact: the ledger's file as small as its content, while nobody uses it."""

from __future__ import annotations

import typer

from orchestrator.app import compact as compact_ledger
from orchestrator.cli.backup import megabytes
from orchestrator.cli.command import print_json, reported, without_store
from orchestrator.cli.run import AsJson
from orchestrator.cli.terminal import say


def compact(context: typer.Context, json: AsJson = False) -> None:
    """Write the ledger anew without the space that deleted rows left. Refuses while anybody uses it."""
    with reported(json=json):
        settings = context.obj.settings()
    copied = without_store(context, lambda: compact_ledger(settings), json=json)
    if json:
        print_json({"ledger": str(copied.path), "bytes_before": copied.before, "bytes": copied.after})
    else:
        say(f"{copied.path}: {megabytes(copied.before)} before, {megabytes(copied.after)} now")
