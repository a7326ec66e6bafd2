"""orchestrator endpoints wait: wait until an endpoint answers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.command import print_json
from orchestrator.cli.endpoints.resume import tell
from orchestrator.cli.endpoints.which import Name, Namespace, with_endpoint
from orchestrator.cli.options import AsJson
from orchestrator.cli.terminal import say
from orchestrator.engine.awake.by_hand import until_it_answers

if TYPE_CHECKING:
    from orchestrator.app import App
    from orchestrator.ports import Endpoint

Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        min=0.001,
        help="Seconds to wait; by default the endpoint's startup_timeout.",
        metavar="SECONDS",
        show_default=False,
    ),
]


def wait(
    context: typer.Context, name: Name, namespace: Namespace = None, timeout: Timeout = None, json: AsJson = False
) -> None:
    """Wait until a starting endpoint answers. Wakes nothing: see `endpoints resume --wait`.

    Fails if the endpoint does not answer in time, and at once if it has failed, is asleep or does not exist.
    """
    endpoint_name, status_text = with_endpoint(context, name, namespace, partial(_wait, seconds=timeout), json=json)
    if json:
        print_json({"endpoint": endpoint_name, "state": status_text, "answers": True})
    else:
        say(f"endpoint {endpoint_name} answers: {status_text}")


async def _wait(endpoint: Endpoint, _app: App, *, seconds: float | None) -> tuple[str, str]:
    async with endpoint.control() as control:
        name = control.terms.endpoint if control.terms else endpoint.name
        await until_it_answers(control, name, endpoint.startup_timeout if seconds is None else seconds, tell, lag=0)
        return name, control.status_text if control.terms else "kept running by somebody else"
