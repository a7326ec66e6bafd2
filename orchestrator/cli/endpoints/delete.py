"""orchestrator endpoints delete: delete a Hugging Face endpoint for good."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from orchestrator.cli.command import fail, print_json
from orchestrator.cli.endpoints.list import hardware_words
from orchestrator.cli.endpoints.which import (
    Name,
    Namespace,
    Seen,
    managed_by_hugging_face,
    management,
    with_endpoint,
)
from orchestrator.cli.run import AsJson
from orchestrator.cli.terminal import say
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointSilent, UsageError
from orchestrator.engine.awake.by_hand import absent, refuse_while_held, settling
from orchestrator.engine.awake.pausing import PAUSE_DEADLINE

if TYPE_CHECKING:
    from orchestrator.app import App
    from orchestrator.endpoints.hf_api import Management
    from orchestrator.ports import Endpoint

Yes = Annotated[
    str | None, typer.Option("--yes-delete", help="For scripts: confirm with the endpoint's name.", metavar="NAME")
]
_LOOK_EVERY = 2.0  # seconds
_HELD = "an endpoint in use is not deleted: stop that first"


def delete(
    context: typer.Context, name: Name, namespace: Namespace = None, yes_delete: Yes = None, json: AsJson = False
) -> None:
    """Delete a Hugging Face endpoint. Asks for its name as confirmation."""
    known, words = with_endpoint(context, name, namespace, _look, json=json)
    typed = (
        yes_delete
        if yes_delete is not None
        else _typed(f"{known} ({words}) will be deleted for good. Type its name to confirm")
    )
    if typed not in {known, known.rpartition("/")[2]}:
        fail(UsageError(f"nothing was deleted: {typed!r} is not {known!r}; scripts can use --yes-delete"), json=json)
    with_endpoint(context, name, namespace, _delete, json=json)
    if json:
        print_json({"endpoint": known, "deleted": True})
    else:
        say(f"endpoint {known} is deleted")


def _typed(question: str) -> str:
    """Ask on the terminal and return the answer; "" at the end of input."""
    sys.stderr.write(f"{question}: ")
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        sys.stderr.write("\n")
    return line.strip()


async def _look(endpoint: Endpoint, app: App) -> tuple[str, str]:
    async with management(managed_by_hugging_face(endpoint, "delete")) as (api, name):
        known = f"{api.namespace}/{name}"
        found = await api.get(name)
        if found is None:
            raise absent(known)
        await refuse_while_held(app.store, known, _HELD)
        return known, f"{found.repository} on {hardware_words(found.hardware)}, {found.state}"


async def _delete(endpoint: Endpoint, app: App) -> None:
    async with management(managed_by_hugging_face(endpoint, "delete")) as (api, name):
        known = f"{api.namespace}/{name}"
        await refuse_while_held(app.store, known, _HELD)
        await settling(app.store, known, "delete", partial(_until_gone, api, name))


async def _until_gone(api: Management, name: str) -> Seen:
    await api.delete(name)
    with anyio.move_on_after(PAUSE_DEADLINE):
        while await api.get(name) is not None:
            await anyio.sleep(_LOOK_EVERY)
        return EndpointState.GONE, "deleted"
    raise EndpointSilent(f"endpoint {api.namespace}/{name} is being deleted but still exists; check again in a while")
