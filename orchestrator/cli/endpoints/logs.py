"""orchestrator endpoints logs: print the log of a Hugging Face endpoint's container, or of a server on this machine."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from anyio import to_thread

from orchestrator.app.endpoints.lookup import managed_by_hugging_face, management
from orchestrator.cli.command import Globals, without_store
from orchestrator.cli.endpoints.which import Name, Namespace, with_endpoint
from orchestrator.cli.output import is_read
from orchestrator.cli.terminal import say_fields
from orchestrator.domain.errors import UsageError
from orchestrator.endpoints import LocalEndpoint, LocalServer, named
from orchestrator.endpoints.engines import Engine
from orchestrator.endpoints.server_log import ServerLog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.app import App
    from orchestrator.ports import Endpoint

Follow = Annotated[bool, typer.Option("-f", "--follow", help="Keep printing new lines as they are written.")]
Tail = Annotated[int | None, typer.Option("--tail", min=0, help="Only the last N lines.", metavar="N")]
Replica = Annotated[
    str | None,
    typer.Option(
        "--replica", help="Only of this replica: its id, or on this machine its number, from 1.", metavar="ID"
    ),
]


def logs(
    context: typer.Context,
    name: Name,
    namespace: Namespace = None,
    follow: Follow = False,
    tail: Tail = None,
    replica: Replica = None,
) -> None:
    """Print the log of a Hugging Face endpoint's container, or of a server on this machine."""
    here = None if namespace else without_store(context, partial(_kept_here, context.obj, name, replica))
    if here is not None:
        without_store(context, partial(_printed, here, follow=follow, tail=tail))
        return
    with_endpoint(context, name, namespace, partial(_logs, follow=follow, tail=tail, replica=replica))


async def _kept_here(options: Globals, name: str, replica: str | None) -> ServerLog | None:
    """Return the log of a server on this machine, by its name in config.toml or in a job file; None if it has none."""
    return await to_thread.run_sync(_log_of, options, name, replica)


def _log_of(options: Globals, name: str, replica: str | None) -> ServerLog | None:
    number = 1 if replica is None else int(replica) if replica.isdecimal() else 0
    if name in options.settings().endpoints:
        endpoint = named(name)
        if not isinstance(endpoint, LocalEndpoint | LocalServer | Engine):
            return None
        log = endpoint.log(number)
    elif not (log := ServerLog.of(name, number)).path.exists():
        return None
    if number < 1:
        raise UsageError(f"--replica must be the number of a replica, from 1, not {replica!r}")
    return log


async def _printed(log: ServerLog, *, follow: bool, tail: int | None) -> None:
    async with aclosing(log.lines(tail, follow=follow)) as lines:
        await say_all(lines)


async def _logs(endpoint: Endpoint, _app: App, *, follow: bool, tail: int | None, replica: str | None) -> None:
    async with (
        management(managed_by_hugging_face(endpoint, "logs")) as (api, name),
        aclosing(api.logs(name, follow=follow, tail=tail, replica=replica)) as lines,
    ):
        await say_all(lines)


async def say_all(lines: AsyncIterator[str]) -> None:
    """Print the lines until they end or standard output is closed by its reader."""
    async for line in lines:
        say_fields(*line.split("\t"))
        if not is_read():
            return
