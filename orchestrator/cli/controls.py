"""orchestrator hold, go, tune: orders for a live run, heeded within a second."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.command import with_store
from orchestrator.cli.items import ThisRun
from orchestrator.cli.terminal import say
from orchestrator.domain.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.domain.run import Run
    from orchestrator.store import Store

Setting = Annotated[
    str, typer.Argument(help="concurrency=N, or concurrency=policy for the job's own.", metavar="SETTING")
]


def hold(context: typer.Context, run: ThisRun) -> None:
    """Let a run rest: answers in flight come in, its endpoint is paused, and it waits for `go`."""
    found = with_store(context, partial(_order, run, {"held": 1}))
    say(f"run {found.id} of {found.job} is held; `orchestrator go {found.id}` lets it go on")


def go(context: typer.Context, run: ThisRun) -> None:
    """Let a held run go on."""
    found = with_store(context, partial(_order, run, {"held": 0}))
    say(f"run {found.id} of {found.job} goes on")


def tune(context: typer.Context, run: ThisRun, setting: Setting) -> None:
    """Change how many requests a run has in flight, also while it runs."""
    name, _, value = setting.partition("=")
    given = value == "policy" or (value.isdecimal() and 0 < int(value) < 2**31)
    if name != "concurrency" or not given:
        raise typer.BadParameter(f"{setting!r} is not concurrency=N with a whole number N, nor concurrency=policy")
    found = with_store(context, partial(_order, run, {"concurrency": None if value == "policy" else int(value)}))
    say(f"run {found.id} of {found.job} has at most {value} requests in flight from now on")


async def _order(name: str, controls: dict[str, int | None], store: Store) -> Run:
    run = await store.runs.find(name)
    if run.state.ended:
        raise UsageError(f"run {run.id} of {run.job} has ended: it is {run.state}")
    await store.runs.order(run.id, controls)
    return run
