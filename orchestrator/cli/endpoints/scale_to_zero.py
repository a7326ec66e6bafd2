"""orchestrator endpoints scale-to-zero: scale an endpoint to zero until the next request."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio
import typer

from orchestrator.cli.command import print_json
from orchestrator.cli.endpoints.pause import Force
from orchestrator.cli.endpoints.which import (
    Name,
    Namespace,
    Seen,
    managed_by_hugging_face,
    management,
    read_as,
    with_endpoint,
)
from orchestrator.cli.run import AsJson
from orchestrator.cli.terminal import say
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import PauseUnconfirmed
from orchestrator.engine.awake.by_hand import refuse_while_held, settling
from orchestrator.engine.awake.pausing import PAUSE_DEADLINE

if TYPE_CHECKING:
    from orchestrator.app import App
    from orchestrator.endpoints.hf_api import Management
    from orchestrator.ports import Endpoint

_LOOK_EVERY = 2.0  # seconds


def scale_to_zero(
    context: typer.Context, name: Name, namespace: Namespace = None, force: Force = False, json: AsJson = False
) -> None:
    """Scale a Hugging Face endpoint to zero: it costs nothing, and the next request wakes it."""
    known, state = with_endpoint(context, name, namespace, partial(_scale_to_zero, force=force), json=json)
    if json:
        print_json({"endpoint": known, "state": state})
    else:
        say(read_as(known, state))


async def _scale_to_zero(endpoint: Endpoint, app: App, *, force: bool) -> tuple[str, str]:
    async with management(managed_by_hugging_face(endpoint, "scale-to-zero")) as (api, name):
        known = f"{api.namespace}/{name}"
        if not force:
            await refuse_while_held(app.store, known, "stop that first, or use --force")
        return known, (await settling(app.store, known, "scale-to-zero", partial(_until_there, api, name)))[1]


async def _until_there(api: Management, name: str) -> Seen:
    shown = await api.scale_to_zero(name)
    with anyio.move_on_after(PAUSE_DEADLINE):
        while shown.state != "scaledToZero":
            await anyio.sleep(_LOOK_EVERY)
            shown = await api.get(name) or shown
        return EndpointState.SCALED_TO_ZERO, shown.state
    raise PauseUnconfirmed(
        f"could not confirm that endpoint {api.namespace}/{name} is scaled to zero: it is {shown.state}"
    )
