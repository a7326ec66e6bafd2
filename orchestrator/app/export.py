"""Export: a run's current results, written to a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from anyio import to_thread

from orchestrator.domain.errors import UsageError
from orchestrator.domain.location import Location, is_location
from orchestrator.engine.run.deliver import deliver
from orchestrator.engine.run.files import SOME_RUNS, check_needed, check_unread, divided_by_place
from orchestrator.sinks import sink_for
from orchestrator.sinks.existing_output import standing
from orchestrator.sources.pattern import read_by

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.domain.run import Run
    from orchestrator.sinks.delivery import FileSink
    from orchestrator.store import Store


async def export(run: Run, store: Store, output: str | Path, *, overwrite: bool) -> Mapping[str, object]:
    """Write a run's current results to a file, even while it runs, and return the manifest."""
    if not run.is_read:
        raise UsageError(
            f"run {run.id} of {run.job} has not read its source, so it has no results: name another run, "
            "see `orchestrator runs`"
        )
    keep = run.spec.about.get("keep")
    sink = sink_for(output, tuple(keep) if isinstance(keep, list) else (), overwrite=overwrite)
    await to_thread.run_sync(_check_output, run, sink, store.database.path)
    if not overwrite:
        counts = await store.views.counts(run.id, run.total)
        await to_thread.run_sync(_check_rows, run, sink.for_run(run.names), counts.completed)
    return await deliver(run, store, sink)


def _check_output(run: Run, sink: FileSink, ledger: Path) -> None:
    """Raise `UsageError` if the sink would overwrite the ledger, the job file, or files that the run's source reads."""
    about = run.spec.about
    paths, locations = divided_by_place(sink.for_run(run.names).writes(SOME_RUNS))
    check_needed(paths, ledger, about.get("jobfile"))
    given = str(about.get("source"))
    if is_location(given):
        check_unread(given, [one for one in locations if Location(given).covers(one)])
    elif (source := Path(given)).is_absolute():
        check_unread(given, read_by(source, paths))


def _check_rows(run: Run, sink: FileSink, rows: int) -> None:
    """Raise `UsageError` if more rows of another run of the job are in the output."""
    output, _, manifest = sink.writes()[:3]
    before = standing(manifest)
    if before.job == run.job and before.run != run.id and (more := before.records(output.name)) > rows:
        raise UsageError(
            f"{output} has {more:,} rows of run {before.made_by}, and run {run.id} has only {rows:,}: name that run, "
            "choose another path, or replace it with `--overwrite`"
        )
