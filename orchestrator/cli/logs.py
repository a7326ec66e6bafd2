"""orchestrator logs: print the log of a run."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

import typer
from anyio import to_thread

from orchestrator.cli.command import with_store
from orchestrator.cli.options import Follow, SomeRun, Tail
from orchestrator.cli.terminal import say_all
from orchestrator.domain.errors import UsageError
from orchestrator.endpoints.server_log import ServerLog
from orchestrator.run_log import event_log

if TYPE_CHECKING:
    from orchestrator.store import Store


def logs(context: typer.Context, run: SomeRun = None, follow: Follow = False, tail: Tail = None) -> None:
    """Print a run's log: what happened and when, and what the run is waiting for."""
    with_store(context, partial(_logs, run, follow=follow, tail=tail))


async def _logs(name: str | None, store: Store, *, follow: bool, tail: int | None) -> None:
    run = await store.runs.find(name)
    log = event_log(store.database.real_path, run.id)
    if not await to_thread.run_sync(log.exists):
        raise UsageError(f"run {run.id} of {run.job} has no log: nothing has executed it, or {log} was deleted")

    async def ended() -> bool:
        return (await store.runs.find(str(run.id))).is_over

    async with aclosing(ServerLog(log).lines(tail, follow=follow, ended=ended)) as lines:
        await say_all(lines)
