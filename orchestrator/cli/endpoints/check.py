"""orchestrator endpoints check: send one real request to an endpoint, with a verdict on every step."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.app.endpoints.check import EndpointCheck, as_it_speaks
from orchestrator.cli.command import Missing, print_json
from orchestrator.cli.endpoints.which import Name, Namespace, with_endpoint
from orchestrator.cli.options import AsJson
from orchestrator.cli.signals import heeding_signals
from orchestrator.cli.terminal import STDERR, say
from orchestrator.domain.exit_code import ExitCode
from orchestrator.domain.policy import Policy
from orchestrator.endpoints import HttpEndpoint

if TYPE_CHECKING:
    from orchestrator.app import App
    from orchestrator.ports import Endpoint

Input = Annotated[str, typer.Option("--input", help="The text to send to the model.", metavar="TEXT")]
Wake = Annotated[bool, typer.Option("--wake", help="Wake the endpoint if it is asleep, and pause it again afterwards.")]
TokenEnv = Annotated[
    str | None,
    typer.Option(help="If NAME is a URL: the environment variable that holds the token.", metavar="VARIABLE"),
]
Timeout = Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds to wait for the answer.")]


def check(
    context: typer.Context,
    name: Name,
    namespace: Namespace = None,
    input_: Input = "hello",
    timeout: Timeout = 300.0,
    wake: Wake = False,
    token_env: TokenEnv = None,
    json: AsJson = False,
) -> None:
    """Send an endpoint one request, and report on every step. Wakes nothing without --wake.

    A server at a URL that is not in config.toml gets a chat request if it lists a model at /v1/models, else `inputs`.
    """

    async def act(endpoint: Endpoint, app: App) -> EndpointCheck:
        if isinstance(endpoint, HttpEndpoint) and "://" in name:
            endpoint = await as_it_speaks(replace(endpoint, token_env=token_env))
        found = EndpointCheck(endpoint, input_, Policy(timeout=timeout, grace=0.0), say=None if json else say)
        lend = app.awake if wake else None
        await heeding_signals(lambda _stop: found.run(lend), found.progress, app.store.database.busy_timeout, 0.0)
        return found

    missing = Missing.CREATE if wake else Missing.LEND  # an endpoint that we wake is owed a pause, which needs a ledger
    found = with_endpoint(context, name, namespace, act, json=json, missing=missing)
    for trouble in found.progress.troubles:
        STDERR.print(trouble, style="yellow")
    if json:
        print_json({"endpoint": found.name, "ok": found.ok, "steps": [asdict(step) for step in found.steps]})
    raise typer.Exit(ExitCode.COMPLETED if found.ok else ExitCode.FAILED)
