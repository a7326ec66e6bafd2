"""orchestrator retry: discarded items become available again, and are run."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import typer

from orchestrator.cli.command import fail, with_store
from orchestrator.cli.items import ThisRun
from orchestrator.cli.run import AsJson, Overwrite, Quiet, execute, request_of
from orchestrator.cli.terminal import STDERR
from orchestrator.domain.errors import OrchestratorError
from orchestrator.engine.reaper import reap

if TYPE_CHECKING:
    from orchestrator.domain.run import Run
    from orchestrator.store import Store


def retry(
    context: typer.Context,
    run: ThisRun,
    overwrite: Overwrite = False,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Ask a run's discarded items again. The job's latest run without --limit goes on, in its folder, and delivers."""
    found, by, forgivable = with_store(context, partial(_found, run), json=json)
    context.obj = context.obj.pinned()
    try:
        request = request_of(by, overwrite=overwrite)
    except OrchestratorError as error:
        fail(error, json=json)
    if not quiet:
        others = "" if by.id == found.id else f", and are asked where run {by.id} has them"
        STDERR.print(f"{forgivable:,} discarded items of run {found.id} are available again{others}", markup=False)
    execute(context, replace(request, retry=found.id), json=json, quiet=quiet)


async def _found(name: str, store: Store) -> tuple[Run, Run, int]:
    """The run, the one that goes on, and how many items are asked again."""
    await reap(store)
    run = await store.runs.find(name)
    await store.runs.refuse_while_executed(run.job)
    return run, await store.runs.retried_by(run), await store.items.forgivable(run.id)
