"""orchestrator compact: shrink the ledger's file to the size of its content, while it is not in use."""

from __future__ import annotations

import typer

from orchestrator.app import compact as compact_ledger
from orchestrator.cli.command import print_json, reported, without_store
from orchestrator.cli.options import AsJson
from orchestrator.cli.terminal import say
from orchestrator.domain.phrases import megabytes


def compact(context: typer.Context, json: AsJson = False) -> None:
    """Rewrite the ledger without the space left by deleted rows. Refuses while the ledger is in use."""
    with reported(json=json):
        settings = context.obj.settings()
    copied = without_store(context, lambda: compact_ledger(settings), json=json)
    if json:
        print_json({"ledger": str(copied.path), "bytes_before": copied.before, "bytes": copied.after})
    else:
        say(f"{copied.path}: {megabytes(copied.before)} before, {megabytes(copied.after)} now")
