"""Export: a run's current results, written to a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from anyio import to_thread

from orchestrator.domain.location import Location, is_location
from orchestrator.engine.run.deliver import deliver
from orchestrator.engine.run.files import SOME_RUNS, check_needed, check_unread, divided_by_place
from orchestrator.sinks import sink_for
from orchestrator.sources.pattern import read_by

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.domain.run import Run
    from orchestrator.sinks.delivery import FileSink
    from orchestrator.store import Store


async def export(run: Run, store: Store, output: str | Path, *, overwrite: bool) -> Mapping[str, object]:
    """Write a run's current results to a file, even while it runs, and return the manifest."""
    keep = run.spec.about.get("keep")
    sink = sink_for(output, tuple(keep) if isinstance(keep, list) else (), overwrite=overwrite)
    await to_thread.run_sync(_check_output, run, sink, store.database.path)
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
