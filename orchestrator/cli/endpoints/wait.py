"""orchestrator endpoints wait: until an endpoint answers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.command import print_json
from orchestrator.cli.endpoints.resume import tell
from orchestrator.cli.endpoints.which import Name, Namespace, with_endpoint
from orchestrator.cli.run import AsJson
from orchestrator.cli.terminal import say
from orchestrator.engine.awake.by_hand import until_it_answers

if TYPE_CHECKING:
    from orchestrator.app import App
    from orchestrator.ports import Endpoint

Timeout = Annotated[
    float | None,
    typer.Option("--timeout", min=0.001, help="Its startup_timeout by default.", metavar="SECONDS", show_default=False),
]


def wait(
    context: typer.Context, name: Name, namespace: Namespace = None, timeout: Timeout = None, json: AsJson = False
) -> None:
    """Wait until an endpoint that is on its way up answers. Wakes nothing: see `endpoints resume --wait`.

    Fails when it does not answer in time, and as soon as it is seen to have failed, to sleep or not to exist.
    """
    found, said = with_endpoint(context, name, namespace, partial(_wait, seconds=timeout), json=json)
    if json:
        print_json({"endpoint": found, "state": said, "answers": True})
    else:
        say(f"endpoint {found} answers: {said}")


async def _wait(endpoint: Endpoint, _app: App, *, seconds: float | None) -> tuple[str, str]:
    async with endpoint.control() as control:
        name = control.terms.endpoint if control.terms else endpoint.name
        await until_it_answers(control, name, endpoint.startup_timeout if seconds is None else seconds, tell, lag=0)
        return name, control.said if control.terms else "kept running by somebody else"
