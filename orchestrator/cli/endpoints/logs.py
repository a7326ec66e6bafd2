"""orchestrator endpoints logs: what a Hugging Face endpoint's container writes."""

from __future__ import annotations

import os
import sys
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.endpoints.which import Name, Namespace, managed_by_hugging_face, management, with_endpoint

if TYPE_CHECKING:
    from orchestrator.ports import Endpoint
    from orchestrator.store import Store

Follow = Annotated[bool, typer.Option("-f", "--follow", help="Go on with the lines to come.")]
Tail = Annotated[int | None, typer.Option("--tail", min=0, help="Only the last N lines.", metavar="N")]
Replica = Annotated[str | None, typer.Option("--replica", help="Of this replica.", metavar="ID")]


def logs(
    context: typer.Context,
    name: Name,
    namespace: Namespace = None,
    follow: Follow = False,
    tail: Tail = None,
    replica: Replica = None,
) -> None:
    """Print the log of a Hugging Face endpoint's container."""
    try:
        with_endpoint(context, name, namespace, partial(_logs, follow=follow, tail=tail, replica=replica))
    except BrokenPipeError:  # whoever read has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def _logs(endpoint: Endpoint, _store: Store, *, follow: bool, tail: int | None, replica: str | None) -> None:
    async with (
        management(managed_by_hugging_face(endpoint, "logs")) as (api, name),
        aclosing(api.logs(name, follow=follow, tail=tail, replica=replica)) as lines,
    ):
        async for line in lines:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
