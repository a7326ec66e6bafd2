"""orchestrator export: deliver what is there now."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.command import print_json, with_store
from orchestrator.cli.items import ThisRun
from orchestrator.cli.run import AsJson
from orchestrator.engine.deliver import deliver
from orchestrator.sinks import sink_for

if TYPE_CHECKING:
    from orchestrator.store import Store


def export(
    context: typer.Context,
    run: ThisRun,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The file to write: .jsonl, .csv or .parquet.", metavar="FILE")
    ],
    json: AsJson = False,
) -> None:
    """Deliver what is there now, also in the middle of a run."""
    manifest = with_store(context, partial(_export, run, output), json=json)
    if json:
        print_json(manifest)
    else:
        typer.echo(f"{output}: {manifest['counts']}")


async def _export(name: str, output: Path, store: Store) -> dict[str, object]:
    run = await store.runs.find(name)
    keep = run.spec.about.get("keep")
    return await deliver(run, store, sink_for(output, tuple(keep) if isinstance(keep, list) else ()))
