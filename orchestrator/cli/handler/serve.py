"""orchestrator handler serve: a handler on a port of this machine, with the routes of the Hugging Face toolkit."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from anyio import to_thread

from orchestrator.cli.command import without_store
from orchestrator.cli.handler.options import Folder, Install, PassEnv, Task, ended, pass_on
from orchestrator.domain.errors import EndpointFailed
from orchestrator.endpoints.handler_process import CANNOT_SERVE, SERVE, ending, handler_in, handler_process

if TYPE_CHECKING:
    from orchestrator.endpoints import LocalEndpoint

Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")]
Host = Annotated[str, typer.Option("--host", help="0.0.0.0 lets other machines ask, too.")]


def serve(
    context: typer.Context,
    folder: Folder,
    port: Port = 8080,
    host: Host = "127.0.0.1",
    task: Task = None,
    install_requirements: Install = False,
    pass_env: PassEnv = None,
) -> None:
    """Serve a handler until Ctrl-C: GET / and /health, POST / and /predict. Its output is shown here."""

    async def act() -> None:
        find = partial(handler_in, folder, task, install_requirements=install_requirements, pass_env=pass_env or ())
        await _serve(await to_thread.run_sync(find), ["--handler", f"--host={host}", f"--port={port}"])

    without_store(context, act)


async def _serve(endpoint: LocalEndpoint, arguments: list[str]) -> None:
    reasons: list[str] = []

    def listen(line: str) -> None:
        if line.startswith(CANNOT_SERVE):
            reasons.append(line.removeprefix(CANNOT_SERVE))
        elif line:
            pass_on(line)

    async with handler_process(endpoint, SERVE, arguments) as process:
        code = await ended(process, out=typer.echo, err=listen)
    raise EndpointFailed(reasons[-1] if reasons else f"the handler's process {ending(code)}")
