"""orchestrator endpoints logs: print the log of a container at Hugging Face, or of a server on this machine."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from anyio import to_thread

from orchestrator.app.endpoints.logs import LogRequest, lines_of, log_here
from orchestrator.cli.command import without_store
from orchestrator.cli.endpoints.which import Name, Namespace, with_endpoint
from orchestrator.cli.global_options import Globals
from orchestrator.cli.options import Follow, Tail
from orchestrator.cli.terminal import say_all

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from orchestrator.endpoints.server_log import ServerLog

Replica = Annotated[
    str | None,
    typer.Option(
        "--replica",
        help="Only of this replica: its id (at SageMaker its log stream), or for jobs and on this machine its number, "
        "from 1.",
        metavar="ID",
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
    """Print the log of an endpoint at Hugging Face or SageMaker, of jobs, a Space, or a server here."""
    wanted = LogRequest(follow, tail, replica)
    here = None if namespace else without_store(context, partial(_log_here, context.obj, name, wanted))
    if here is not None:
        without_store(context, lambda: _printed(here.lines(tail, follow=follow)))
        return
    with_endpoint(context, name, namespace, lambda endpoint, _app: _printed(lines_of(endpoint, wanted)))


async def _log_here(options: Globals, name: str, wanted: LogRequest) -> ServerLog | None:
    settings = await to_thread.run_sync(options.settings)
    return await log_here(name, wanted, settings.endpoints)


async def _printed(lines: AsyncGenerator[str, None]) -> None:
    async with aclosing(lines):
        await say_all(lines)
