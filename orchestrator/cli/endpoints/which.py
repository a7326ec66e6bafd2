"""Finding the endpoint that a NAME on the command line means."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from anyio import to_thread

from orchestrator.cli.command import Globals, Missing, with_app
from orchestrator.domain.errors import UsageError
from orchestrator.endpoints import HttpEndpoint, HuggingFaceEndpoint, LocalEndpoint, LocalServer, named
from orchestrator.endpoints.engines import Engine
from orchestrator.endpoints.hf_api import Management

if TYPE_CHECKING:
    from orchestrator.app import App
    from orchestrator.domain.endpoint import EndpointState
    from orchestrator.ports import Endpoint
    from orchestrator.store import Store

T = TypeVar("T")
Seen = tuple["EndpointState", str]  # an endpoint's state, and the provider's own word for it

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
        await _check_named(context.obj, name, namespace, app.store)
        return await action(await to_thread.run_sync(which, context.obj, name, namespace), app)

    return with_app(context, act, json=json, missing=missing, say=say)


async def _check_named(options: Globals, name: str, namespace: str | None, store: Store) -> None:
    """Raise `UsageError` if runs have woken an endpoint of this name that only a job file declares."""
    settings = await to_thread.run_sync(options.settings)
    if namespace is not None or name in settings.endpoints:
        return
    if (kind := await store.windows.kind(name)) not in {None, "huggingface"}:
        raise UsageError(
            f"endpoint {name} is declared only in a job file: to manage it by name, add it to the settings file as "
            f"[endpoints.{name}] with kind = {kind!r}; `orchestrator sweep` pauses what dead runs left awake"
        )


def which(options: Globals, name: str, namespace: str | None) -> Endpoint:
    """Return the endpoint with this name in config.toml, the server at this URL, or else the Hugging Face endpoint.

    Reads config.toml. An endpoint that runs would create and delete again is treated here like any other.
    """
    if namespace is None and name in options.settings().endpoints:
        endpoint = named(name)
    elif "://" in name:
        try:
            return HttpEndpoint(name)
        except ValueError as error:
            raise UsageError(str(error)) from error
    else:
        try:
            endpoint = HuggingFaceEndpoint(name, namespace=namespace)
        except ValueError as error:
            raise UsageError(
                f"{name!r} is not in the settings file, and is not a valid name at Hugging Face: {error}"
            ) from error
    if isinstance(endpoint, LocalEndpoint | LocalServer | Engine):
        raise UsageError(f"{name} is a model on this machine: it is awake only while a run uses it")
    if isinstance(endpoint, HuggingFaceEndpoint):
        return replace(endpoint, lifecycle="kept", create=None)
    return endpoint


def managed_by_hugging_face(endpoint: Endpoint, verb: str) -> HuggingFaceEndpoint:
    """Return the endpoint. Raises `UsageError` if it is of another kind."""
    if not isinstance(endpoint, HuggingFaceEndpoint):
        raise UsageError(f"{verb} is for Hugging Face endpoints only, and {endpoint.name} is of another kind")
    return endpoint


@asynccontextmanager
async def management(endpoint: HuggingFaceEndpoint) -> AsyncIterator[tuple[Management, str]]:
    """Open the API of the endpoint's namespace; yield it with the endpoint's name in it."""
    async with Management.open(endpoint.namespace, token_env=endpoint.token_env, api_url=endpoint.api_url) as opened:
        yield opened, endpoint.name.rpartition("/")[2]


def read_as(name: str, said: str) -> str:
    """Return the proof of the state in which the endpoint was left."""
    return f"endpoint {name} read as {said} at {datetime.now(UTC):%Y-%m-%d %H:%M:%SZ}"
