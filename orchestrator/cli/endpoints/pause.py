"""orchestrator endpoints pause: pause an endpoint by hand, and confirm it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.command import print_json
from orchestrator.cli.endpoints.which import Name, Namespace, read_as, with_endpoint
from orchestrator.cli.options import AsJson
from orchestrator.cli.terminal import say

if TYPE_CHECKING:
    from orchestrator.app import App
    from orchestrator.engine.awake.by_hand import Paused
    from orchestrator.ports import Endpoint

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the endpoint is confirmed to be paused.")]
Force = Annotated[bool, typer.Option("--force", help="Even while a run uses it.")]


def pause(
    context: typer.Context,
    name: Name,
    namespace: Namespace = None,
    wait: Wait = True,
    force: Force = False,
    json: AsJson = False,
) -> None:
    """Pause an endpoint and confirm it. This also settles a pause that a dead run still owes."""

    async def act(endpoint: Endpoint, app: App) -> Paused:
        return await app.pause(endpoint, wait=wait, force=force)

    found = with_endpoint(context, name, namespace, act, json=json)
    if json:
        print_json(asdict(found))
    elif found.confirmed:
        say(read_as(found.endpoint, found.state))
    else:
        say(f"endpoint {found.endpoint} {'was asked to pause, and read as' if found.asked else 'is'} {found.state}")
