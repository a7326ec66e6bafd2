"""orchestrator retry: discarded items become available again, and are run."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import typer

from orchestrator.cli.command import STDERR, fail, with_store
from orchestrator.cli.items import ThisRun
from orchestrator.cli.run import AsJson, Quiet, execute, request_of
from orchestrator.domain.errors import OrchestratorError, RunStopped, UsageError
from orchestrator.engine.reaper import reap

if TYPE_CHECKING:
    from orchestrator.domain.run import Run
    from orchestrator.store import Store


def retry(
    context: typer.Context,
    run: ThisRun,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Make a run's discarded items available again, only those, and run them."""
    found, forgiven = with_store(context, partial(_forgive, run), json=json)
    if not quiet:
        STDERR.print(f"{forgiven:,} discarded items of run {found.id} are available again", markup=False)
    try:
        request = request_of(found)
    except OrchestratorError as error:
        fail(error, json=json)
    execute(context, request, json=json, quiet=quiet)


async def _forgive(name: str, store: Store) -> tuple[Run, int]:
    await reap(store)
    run = await store.runs.find(name)
    if run.holder is not None:
        raise RunStopped(f"run {run.id} of {run.job} is being executed; retry when it has ended")
    if not run.spec.about.get("jobfile"):
        raise UsageError(f"run {run.id} was not made from a job file; run its job again instead")
    return run, await store.items.forgive(run.id)
