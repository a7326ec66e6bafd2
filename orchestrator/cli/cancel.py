"""orchestrator cancel: stop a run and mark it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import typer

from orchestrator.cli.command import with_store
from orchestrator.cli.items import ThisRun
from orchestrator.cli.terminal import say

if TYPE_CHECKING:
    from orchestrator.domain.run import Run, RunState
    from orchestrator.store import Store


def cancel(context: typer.Context, run: ThisRun) -> None:
    """Stop a run and mark it cancelled; what is completed stays, and the job's next run reuses it."""
    found, was = with_store(context, partial(_cancel, run))
    if was.ended:
        say(f"run {found.id} of {found.job} had already ended: {was}")
    else:
        say(f"run {found.id} of {found.job} is cancelled")


async def _cancel(name: str, store: Store) -> tuple[Run, RunState]:
    run = await store.runs.find(name)
    return run, await store.runs.cancel(run.id)
