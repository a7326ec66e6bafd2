"""Finding the endpoint that a NAME on the command line means."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from orchestrator.cli.command import Missing, with_app

if TYPE_CHECKING:
    from orchestrator.app import App
    from orchestrator.ports import Endpoint

T = TypeVar("T")

Name = Annotated[
    str,
    typer.Argument(
        help="A name from config.toml, a Hugging Face endpoint (NAME or NAMESPACE/NAME), or a server's URL.",
        metavar="NAME",
    ),
]
NAMESPACE = "Hugging Face account; by default that of the token."
Namespace = Annotated[str | None, typer.Option("--namespace", help=NAMESPACE, metavar="NAME")]


def with_endpoint(
    context: typer.Context,
    name: str,
    namespace: str | None,
    action: Callable[[Endpoint, App], Awaitable[T]],
    *,
    json: bool = False,
    missing: Missing = Missing.LEND,
    say: Callable[[str], None] | None = None,
) -> T:
    """Run an action on the endpoint with this name, with the application; failures as in `with_app`."""

    async def act(app: App) -> T:
        return await action(await app.endpoint(name, namespace), app)

    return with_app(context, act, json=json, missing=missing, say=say)


def read_as(name: str, said: str) -> str:
    """Return the proof of the state in which the endpoint was left."""
    return f"endpoint {name} read as {said} at {datetime.now(UTC):%Y-%m-%d %H:%M:%SZ}"
