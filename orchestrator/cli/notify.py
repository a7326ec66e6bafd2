"""orchestrator notify: tells its hooks how a run ended whose own process could not. Not for people."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.command import with_store
from orchestrator.cli.run import request_of
from orchestrator.cli.terminal import STDERR
from orchestrator.config import FailureWebhook
from orchestrator.domain.errors import OrchestratorError, UsageError
from orchestrator.engine.loading import limited
from orchestrator.engine.notifier import notify_late
from orchestrator.hooks.command import CommandHook
from orchestrator.hooks.webhook import Webhook

if TYPE_CHECKING:
    from orchestrator.config import Settings
    from orchestrator.domain.run import Run
    from orchestrator.job import Job
    from orchestrator.ports import Hook
    from orchestrator.store import Store


def notify(
    context: typer.Context,
    run: Annotated[int, typer.Argument(metavar="RUN")],
    without_job: Annotated[bool, typer.Option("--without-job", help="Its job file cannot be loaded.")] = False,
) -> None:
    """Tell how a run ended: the hooks of its job, or of the settings where nobody knows those."""
    job = None if without_job else _job(with_store(context, partial(_found, run)))
    otherwise = failure_hooks(context.obj.settings())
    for trouble in with_store(context, lambda store: notify_late(store, run, job, otherwise)):
        STDERR.print(trouble)


def failure_hooks(settings: Settings) -> tuple[Hook, ...]:
    """Who is told of failures where the job names nobody. `UsageError` where that cannot be."""
    try:
        match settings.serve.on_failure:
            case FailureWebhook(url=url, secret_env=secret_env):
                return (Webhook(url, secret_env=secret_env),)
            case ():
                return ()
            case argv:
                return (CommandHook(argv),)
    except ValueError as error:
        raise UsageError(f"[serve] on_failure: {error}") from error


async def _found(run_id: int, store: Store) -> Run:
    return await store.runs.find(str(run_id))


def _job(run: Run) -> Job | None:
    try:
        with limited():
            return request_of(run).job
    except OrchestratorError:
        return None
