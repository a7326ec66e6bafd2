"""orchestrator export: deliver what is there now."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from anyio import to_thread

from orchestrator.cli.command import print_json, with_store
from orchestrator.cli.items import ThisRun
from orchestrator.cli.run import AsJson, Overwrite
from orchestrator.cli.show import kept_words
from orchestrator.cli.terminal import say
from orchestrator.domain.phrases import count
from orchestrator.engine.deliver import deliver
from orchestrator.engine.files import SOME_RUNS, check_needed, check_unread
from orchestrator.sinks import sink_for
from orchestrator.sources.pattern import read_by

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.domain.run import Run
    from orchestrator.sinks.delivery import FileSink
    from orchestrator.store import Store


def export(
    context: typer.Context,
    run: ThisRun,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The file to write: .jsonl, .csv or .parquet.", metavar="FILE")
    ],
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Deliver what is there now, also in the middle of a run."""
    manifest = with_store(context, partial(_export, run, output, overwrite=overwrite), json=json)
    if json:
        print_json(manifest)
    else:
        counts = manifest["counts"]
        assert isinstance(counts, dict)  # noqa: S101 - as `deliver` writes it
        for line in [f"{output}: {_counted(counts)}", *kept_words(manifest)]:
            say(line)


def _counted(counts: Mapping[str, int]) -> str:
    """`600 items: 512 completed, 3 discarded, 85 not settled yet`."""
    said = f"{count(counts['inputs'], 'item')}: {counts['completed']:,} completed, {counts['discarded']:,} discarded"
    return f"{said}, {counts['skipped']:,} not settled yet" if counts["skipped"] else said


async def _export(name: str, output: Path, store: Store, *, overwrite: bool) -> Mapping[str, object]:
    run = await store.runs.find(name)
    keep = run.spec.about.get("keep")
    sink = sink_for(output, tuple(keep) if isinstance(keep, list) else (), overwrite=overwrite)
    await to_thread.run_sync(_check, run, sink, store.database.path)
    return await deliver(run, store, sink)


def _check(run: Run, sink: FileSink, ledger: Path) -> None:
    """Neither the ledger nor the job file is written over, nor what the run's source reads, as far as it is a file."""
    about, paths = run.spec.about, sink.for_run(run.names).writes(SOME_RUNS)
    check_needed(paths, ledger, about.get("jobfile"))
    source = Path(str(about.get("source")))
    if source.is_absolute():
        check_unread(str(source), read_by(source, paths))
