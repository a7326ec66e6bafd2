"""orchestrator endpoints resume: wake an endpoint by hand."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from orchestrator.cli.command import Missing, print_json
from orchestrator.cli.endpoints.which import Name, Namespace, absent, with_endpoint
from orchestrator.cli.run import AsJson
from orchestrator.cli.terminal import STDERR, say
from orchestrator.domain.command_line import typed
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointFailed, EndpointSilent, UsageError
from orchestrator.domain.moment import seconds_of
from orchestrator.domain.phrases import duration
from orchestrator.engine.by_hand import Waking, kept_by_hand
from orchestrator.engine.reaper import reap

if TYPE_CHECKING:
    from orchestrator.app import App
    from orchestrator.ports import ControlPlane, Endpoint

Wait = Annotated[bool, typer.Option("--wait", help="Wait until it answers.")]
For = Annotated[
    str | None,
    typer.Option("--for", help="Have it paused after this time (90m, 2h).", metavar="TIME", show_default=False),
]
_POLL = 0.25  # seconds between two tries of the data plane
_LAG = 3  # looks that may still show a resumed endpoint as asleep


def resume(
    context: typer.Context,
    name: Name,
    namespace: Namespace = None,
    for_: For = None,
    wait: Wait = False,
    json: AsJson = False,
) -> None:
    """Wake an endpoint; it stays awake until you pause it, or until its scale-to-zero timer does.

    With --for, the ledger owes its pause after that time: `orchestrator serve`, a sweep or the next run pays it.
    """
    act = partial(_resume, seconds=_seconds(for_), wait=wait)
    lines, facts = with_endpoint(context, name, namespace, act, json=json, missing=Missing.CREATE)
    if json:
        print_json(facts)
        return
    for line in lines:
        say(line)


def _seconds(for_: str | None) -> float | None:
    try:
        return None if for_ is None else seconds_of(for_)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--for") from None


async def _resume(
    endpoint: Endpoint, app: App, *, seconds: float | None, wait: bool
) -> tuple[list[str], dict[str, object]]:
    async with endpoint.control() as control, AsyncExitStack() as stack:
        state = await control.state()
        name = control.terms.endpoint if control.terms else endpoint.name
        resumed = control.terms is not None and (state.asleep or state is EndpointState.FAILED)
        if state is EndpointState.GONE:
            raise absent(name)
        if control.terms is None and seconds is not None:
            raise UsageError(f"endpoint {name} is kept running by somebody else: --for cannot have it paused")
        if control.terms is not None and (resumed or seconds is not None):
            waking = Waking("resume", seconds)
            await stack.enter_async_context(kept_by_hand(app.store, control, control.terms, waking, state))
        if resumed:
            await control.resume()
        answers = wait
        if wait:
            await until_it_answers(control, name, endpoint.startup_timeout)
        if control.terms is not None:
            await control.state()
        said = control.said if control.terms else "kept running by somebody else"
    await reap(app.store)
    owed = any(debt.owed for debt in await app.store.windows.debts() if debt.endpoint == name)
    verb = "was resumed" if resumed else "needed no resuming"
    lines = [f"endpoint {name} {verb}: {said}{', and it answers' if answers else ''}"]
    if seconds is not None:
        lines.append(
            f"it is paused {duration(seconds)} from now by `orchestrator serve`, or by the first sweep or run after "
            f"that; sooner: {typed('endpoints', 'pause', name)}"
        )
    elif resumed:
        lines.append(f"it costs money until it sleeps again: {typed('endpoints', 'pause', name)}")
    if owed:
        lines.append("the ledger owes it a pause, from a run that died: the next run or sweep will pause it")
    return lines, {"endpoint": name, "resumed": resumed, "state": said, "answers": answers, "pause_owed": owed}


async def until_it_answers(control: ControlPlane, name: str, seconds: float, *, lag: int = _LAG) -> None:
    """Wait until the data plane answers. `EndpointFailed` where it will not; it is left as it is.

    What sleeps is not asked, as a request may wake it, and may be seen asleep `lag` times. A control plane that
    does not answer for a while is waited for.
    """
    asleep, told = 0, ""
    with anyio.move_on_after(seconds):
        while True:
            state, said = await _seen(control)
            if said not in {"", told}:
                told = said
                STDERR.print(f"endpoint {name}: {told}", style="dim")
            asleep += state.asleep
            if state is EndpointState.FAILED:
                raise EndpointFailed(f"endpoint {name} did not come up: {control.said}")
            if asleep > lag:
                remedy = f"{typed('endpoints', 'resume', name)} --wait"
                raise EndpointFailed(f"endpoint {name} is asleep ({control.said}) and nobody wakes it: {remedy}")
            if state is EndpointState.GONE:
                raise absent(name)
            with anyio.move_on_after(control.look_every):
                while state.asleep or not await control.answers():
                    await anyio.sleep(_POLL)
                return
    raise EndpointFailed(
        f"endpoint {name} did not answer within {seconds:g} s ({control.said}); it may cost money: "
        f"{typed('endpoints', 'pause', name)}"
    )


async def _seen(control: ControlPlane) -> tuple[EndpointState, str]:
    """Its state, and what there is to say of that."""
    if control.terms is None:
        return EndpointState.AWAKE, ""
    try:
        return await control.state(), control.said
    except EndpointSilent as silence:
        return EndpointState.STARTING, str(silence)
