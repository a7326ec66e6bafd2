"""orchestrator endpoints resume: wake an endpoint by hand."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.command import Missing, print_json
from orchestrator.cli.endpoints.which import Name, Namespace, with_endpoint
from orchestrator.cli.options import AsJson
from orchestrator.cli.terminal import STDERR, say
from orchestrator.domain.command_line import typed
from orchestrator.domain.moment import seconds_of
from orchestrator.domain.phrases import duration

if TYPE_CHECKING:
    from orchestrator.app import App
    from orchestrator.engine.awake.by_hand import Resumed
    from orchestrator.ports import Endpoint

Wait = Annotated[bool, typer.Option("--wait", help="Wait until the endpoint answers.")]
For = Annotated[
    str | None,
    typer.Option("--for", help="Pause it again after this time (90m, 2h).", metavar="TIME", show_default=False),
]


def resume(
    context: typer.Context,
    name: Name,
    namespace: Namespace = None,
    for_: For = None,
    wait: Wait = False,
    json: AsJson = False,
) -> None:
    """Wake an endpoint. It stays awake until you pause it, or until its scale-to-zero timer expires.

    With --for, it is paused after that time by `orchestrator serve`, or by the next sweep or run.
    """
    seconds = _seconds(for_)

    async def act(endpoint: Endpoint, app: App) -> Resumed:
        return await app.resume(endpoint, seconds=seconds, wait=wait)

    found = with_endpoint(context, name, namespace, act, json=json, missing=Missing.CREATE, say=tell)
    if json:
        print_json(asdict(found))
        return
    for line in _lines(found, seconds):
        say(line)


def _seconds(for_: str | None) -> float | None:
    try:
        return None if for_ is None else seconds_of(for_)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--for") from None


def tell(line: str) -> None:
    """Print the status text of an endpoint that we wait for."""
    STDERR.print(line, style="dim")


def _lines(found: Resumed, seconds: float | None) -> list[str]:
    name = found.endpoint
    verb = "was resumed" if found.resumed else "needed no resuming"
    lines = [f"endpoint {name} {verb}: {found.state}{', and it answers' if found.answers else ''}"]
    if seconds is not None:
        lines.append(
            f"it will be paused {duration(seconds)} from now by `orchestrator serve`, or by the first sweep or run "
            f"after that; to pause it sooner: {typed('endpoints', 'pause', name)}"
        )
    elif found.resumed:
        lines.append(f"it costs money until it is paused: {typed('endpoints', 'pause', name)}")
    if found.pause_owed:
        lines.append("it is still owed a pause by a run that died: the next run or sweep will pause it")
    return lines
