"""orchestrator endpoints pause: put an endpoint to sleep by hand, and see it asleep."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from orchestrator.cli.command import print_json
from orchestrator.cli.endpoints.which import (
    Name,
    Namespace,
    Seen,
    absent,
    read_as,
    with_endpoint,
)
from orchestrator.cli.run import AsJson
from orchestrator.cli.terminal import say
from orchestrator.domain.endpoint import EndpointState
from orchestrator.engine.awake import PAUSE_DEADLINE, put_to_sleep
from orchestrator.engine.by_hand import refuse_while_held, settling

if TYPE_CHECKING:
    from orchestrator.app import App
    from orchestrator.ports import ControlPlane, Endpoint

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is seen paused.")]
Force = Annotated[bool, typer.Option("--force", help="Also while a run uses it.")]


def pause(
    context: typer.Context,
    name: Name,
    namespace: Namespace = None,
    wait: Wait = True,
    force: Force = False,
    json: AsJson = False,
) -> None:
    """Pause an endpoint and see it paused; a pause that a dead run owes is thereby paid."""
    found = with_endpoint(context, name, namespace, partial(_pause, wait=wait, force=force), json=json)
    if json:
        print_json(asdict(found))
    elif found.confirmed:
        say(read_as(found.endpoint, found.state))
    else:
        say(f"endpoint {found.endpoint} {'was asked to pause, and read as' if found.asked else 'is'} {found.state}")


@dataclass(frozen=True, slots=True)
class _Paused:
    endpoint: str
    state: str
    asked: bool = True
    confirmed: bool = False


async def _pause(endpoint: Endpoint, app: App, *, wait: bool, force: bool) -> _Paused:
    async with endpoint.control() as control:
        state = await control.state()
        if control.terms is None:
            return _Paused(endpoint.name, "kept running by somebody else, and not ours to pause", asked=False)
        name = control.terms.endpoint
        if state is EndpointState.GONE:
            raise absent(name)
        if not force:
            await refuse_while_held(app.store, name, "stop that first, or say --force")
        if wait:
            _, said = await settling(app.store, name, "pause", partial(_until_paused, control, name))
            return _Paused(name, said, confirmed=True)
        await app.store.lasting_holds.release(name)
        await control.pause()
        await control.state()
        return _Paused(name, control.said)


async def _until_paused(control: ControlPlane, name: str) -> Seen:
    """One that had scaled to zero sleeps before it is paused: it is looked at until it is."""
    state = await put_to_sleep(control, name, to_zero=False)
    with anyio.move_on_after(PAUSE_DEADLINE):
        while state is EndpointState.SCALED_TO_ZERO:
            await anyio.sleep(control.look_every)
            state = await control.state()
    return state, control.said
