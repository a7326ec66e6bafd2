"""orchestrator handler serve: serve a handler on this machine, with the routes of the Hugging Face toolkit."""

from __future__ import annotations

import os
import secrets
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from anyio import to_thread

from orchestrator.cli.command import without_store
from orchestrator.cli.handler.options import Folder, Install, PassEnv, Task, ended, pass_on
from orchestrator.cli.terminal import say, say_fields
from orchestrator.domain.errors import EndpointFailed, UsageError
from orchestrator.domain.worker import CANNOT_SERVE, SERVING
from orchestrator.endpoints.handler_process import SERVE, handler_in, handler_process
from orchestrator.endpoints.last_words import ending

if TYPE_CHECKING:
    from orchestrator.endpoints import LocalEndpoint

Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 picks a free one.")]
Host = Annotated[str, typer.Option("--host", help="The address to listen on; 0.0.0.0 admits other machines.")]
TokenEnv = Annotated[
    str | None,
    typer.Option(
        "--token-env",
        help="The environment variable with the token that clients send; by default a token is generated.",
        metavar="NAME",
    ),
]


def serve(
    context: typer.Context,
    folder: Folder,
    port: Port = 8080,
    host: Host = "127.0.0.1",
    task: Task = None,
    install_requirements: Install = False,
    pass_env: PassEnv = None,
    token_env: TokenEnv = None,
) -> None:
    """Serve a handler until Ctrl-C: GET / and /health, POST / and /predict. Shows its output.

    A POST needs the bearer token, since every user of this machine can reach the port.
    """

    async def act() -> None:
        find = partial(handler_in, folder, task, install_requirements=install_requirements, pass_env=pass_env or ())
        endpoint = await to_thread.run_sync(find)
        await _serve(endpoint, _token(token_env), ["--handler", f"--host={host}", f"--port={port}"])

    without_store(context, act)


def _token(token_env: str | None) -> str | None:
    """Return the token in the variable; None if one is to be generated."""
    if token_env is None:
        return None
    if not (found := os.environ.get(token_env, "").strip()):
        raise UsageError(f"--token-env: the environment variable {token_env} is not set")
    return found


async def _serve(endpoint: LocalEndpoint, given: str | None, arguments: list[str]) -> None:
    token, reasons = given or secrets.token_urlsafe(), list[str]()

    def show(line: str) -> None:
        say_fields(line)
        if given is None and line.startswith(SERVING):
            say(f"requests need the header Authorization: Bearer {token}")

    def listen(line: str) -> None:
        if line.startswith(CANNOT_SERVE):
            reasons.append(line.removeprefix(CANNOT_SERVE))
        elif line:
            pass_on(line)

    async with handler_process(endpoint, SERVE, arguments, token) as process:
        code = await ended(process, out=show, err=listen)
    raise EndpointFailed(reasons[-1] if reasons else f"the handler's process {ending(code)}")
