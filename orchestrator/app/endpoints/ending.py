"""Ending the costs of Hugging Face endpoints: scaling them to zero, and deleting them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio

from orchestrator.app.endpoints.lookup import managed_by_hugging_face, management
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointSilent, PauseUnconfirmed
from orchestrator.engine.awake.by_hand import Seen, absent, refuse_while_held, settling
from orchestrator.engine.awake.pausing import PAUSE_DEADLINE

if TYPE_CHECKING:
    from orchestrator.endpoints.hf_api import Management
    from orchestrator.endpoints.hf_spec import Description
    from orchestrator.ports import Endpoint
    from orchestrator.store import Store

_LOOK_EVERY = 2.0  # seconds
_HELD = "an endpoint in use is not deleted: stop that first"


async def scale_to_zero(endpoint: Endpoint, store: Store, *, force: bool) -> tuple[str, str]:
    """Scale an endpoint to zero and confirm it. Return its whole name and its state in the provider's words.

    `force`: even while a run uses it. This also settles pauses that dead runs owe.
    """
    async with management(managed_by_hugging_face(endpoint, "scale-to-zero")) as (api, name):
        known = f"{api.namespace}/{name}"
        if not force:
            await refuse_while_held(store, known, "stop that first, or use --force")
        return known, (await settling(store, known, "scale-to-zero", partial(_until_at_zero, api, name)))[1]


async def _until_at_zero(api: Management, name: str) -> Seen:
    shown = await api.scale_to_zero(name)
    with anyio.move_on_after(PAUSE_DEADLINE):
        while shown.state != "scaledToZero":
            await anyio.sleep(_LOOK_EVERY)
            shown = await api.get(name) or shown
        return EndpointState.SCALED_TO_ZERO, shown.state
    raise PauseUnconfirmed(
        f"could not confirm that endpoint {api.namespace}/{name} is scaled to zero: it is {shown.state}"
    )


async def deletable(endpoint: Endpoint, store: Store) -> tuple[str, Description]:
    """Return the whole name and the description of an endpoint that `delete` would delete, for the user to confirm."""
    async with management(managed_by_hugging_face(endpoint, "delete")) as (api, name):
        known = f"{api.namespace}/{name}"
        found = await api.get(name)
        if found is None:
            raise absent(known)
        await refuse_while_held(store, known, _HELD)
        return known, found


async def delete(endpoint: Endpoint, store: Store) -> None:
    """Delete an endpoint for good, unless it is in use, and confirm that it no longer exists."""
    async with management(managed_by_hugging_face(endpoint, "delete")) as (api, name):
        known = f"{api.namespace}/{name}"
        await refuse_while_held(store, known, _HELD)
        await settling(store, known, "delete", partial(_until_gone, api, name))


async def _until_gone(api: Management, name: str) -> Seen:
    await api.delete(name)
    with anyio.move_on_after(PAUSE_DEADLINE):
        while await api.get(name) is not None:
            await anyio.sleep(_LOOK_EVERY)
        return EndpointState.GONE, "deleted"
    raise EndpointSilent(f"endpoint {api.namespace}/{name} is being deleted but still exists; check again in a while")
