"""orchestrator hold, go, tune: orders for a live run, obeyed within a second."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.command import with_app
from orchestrator.cli.options import ThisRun
from orchestrator.cli.terminal import say

Setting = Annotated[
    str, typer.Argument(help="concurrency=N, or concurrency=policy for the job's own value.", metavar="SETTING")
]


def hold(context: typer.Context, run: ThisRun) -> None:
    """Hold a run: it finishes the requests in flight, pauses its endpoint and waits for `go`."""
    found = with_app(context, lambda app: app.order(run, held=1))
    say(f"run {found.id} of {found.job} is held; `orchestrator go {found.id}` lets it go on")


def go(context: typer.Context, run: ThisRun) -> None:
    """Let a held run continue."""
    found = with_app(context, lambda app: app.order(run, held=0))
    say(f"run {found.id} of {found.job} goes on")


def tune(context: typer.Context, run: ThisRun, setting: Setting) -> None:
    """Change how many requests a run has in flight, even while it runs."""
    name, _, value = setting.partition("=")
    valid = value == "policy" or (value.isdecimal() and 0 < int(value) < 2**31)
    if name != "concurrency" or not valid:
        raise typer.BadParameter(f"{setting!r} is neither concurrency=N with a whole number N nor concurrency=policy")
    concurrency = None if value == "policy" else int(value)
    found = with_app(context, lambda app: app.order(run, concurrency=concurrency))
    say(f"run {found.id} of {found.job} has at most {value} requests in flight from now on")
