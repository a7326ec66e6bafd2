"""Which endpoint a NAME means, and who stands in the way of changing it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import anyio
import typer
from anyio import to_thread

from orchestrator.cli.command import Globals, Missing, with_store
from orchestrator.domain.errors import EndpointFailed, OrchestratorError, UsageError
from orchestrator.domain.terms import Spent
from orchestrator.endpoints import HttpEndpoint, HuggingFaceEndpoint, LocalEndpoint, LocalServer, named
from orchestrator.endpoints.engines import Engine
from orchestrator.endpoints.hf_api import Management
from orchestrator.engine.reaper import kept_alive, reap, registered

if TYPE_CHECKING:
    from orchestrator.domain.endpoint import EndpointState
    from orchestrator.ports import Endpoint
    from orchestrator.store import Store
    from orchestrator.store.windows import Holder

T = TypeVar("T")
Seen = tuple["EndpointState", str]  # what a look showed, ours and the provider's word

Name = Annotated[
    str,
    typer.Argument(
        help="A name from config.toml, namespace/name, the name of a Hugging Face endpoint, or a server's URL.",
        metavar="NAME",
    ),
]
NAMESPACE = "Hugging Face account; the token's own by default."
Namespace = Annotated[str | None, typer.Option("--namespace", help=NAMESPACE, metavar="NAME")]


def with_endpoint(
    context: typer.Context,
    name: str,
    namespace: str | None,
    action: Callable[[Endpoint, Store], Awaitable[T]],
    *,
    json: bool = False,
    missing: Missing = Missing.LEND,
) -> T:
    """Run an action on the endpoint that is meant, with the ledger opened; failures as in `with_store`."""

    async def act(store: Store) -> T:
        return await action(await to_thread.run_sync(which, context.obj, name, namespace), store)

    return with_store(context, act, json=json, missing=missing)


def which(options: Globals, name: str, namespace: str | None) -> Endpoint:
    """The endpoint that config.toml calls so, the server at a URL, else the one of Hugging Face. Reads config.toml.

    What a run would make and delete again is an endpoint like any other here.
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
            raise UsageError(f"{name!r} is not in the settings file, and no name at Hugging Face: {error}") from error
    if isinstance(endpoint, LocalEndpoint | LocalServer | Engine):
        raise UsageError(f"{name} is a model on this machine: it is awake as long as a run uses it, and no longer")
    if isinstance(endpoint, HuggingFaceEndpoint):
        return replace(endpoint, lifecycle="kept", create=None)
    return endpoint


def managed_by_hugging_face(endpoint: Endpoint, verb: str) -> HuggingFaceEndpoint:
    """The endpoint, or `UsageError` where it is of another kind."""
    if not isinstance(endpoint, HuggingFaceEndpoint):
        raise UsageError(f"{verb} is for Hugging Face endpoints only, and {endpoint.name} is of another kind")
    return endpoint


@asynccontextmanager
async def management(endpoint: HuggingFaceEndpoint) -> AsyncIterator[tuple[Management, str]]:
    """The API of the endpoint's namespace, and the endpoint's name in it."""
    async with Management.open(endpoint.namespace, token_env=endpoint.token_env, api_url=endpoint.api_url) as opened:
        yield opened, endpoint.name.rpartition("/")[2]


def absent(name: str) -> EndpointFailed:
    """What there is to say of an endpoint that is not there."""
    return EndpointFailed(f"there is no endpoint {name}: check its name, see `orchestrator endpoints list`")


def read_as(name: str, said: str) -> str:
    """The proof of how it was left."""
    return f"endpoint {name} read as {said} at {datetime.now(UTC):%Y-%m-%d %H:%M:%SZ}"


# -- the ledger --------------------------------------------------------------------------------------------------------


async def holders(store: Store, name: str) -> list[Holder]:
    """Living processes that use the endpoint."""
    await reap(store)
    return await store.windows.holders(name)


def held_by(holder: Holder) -> str:
    """A holder in words."""
    what = f"run {holder.run_id} of {holder.job}" if holder.run_id else holder.job or "a sweep"
    return f"{what} (process {holder.pid} on {holder.host.partition('/')[0]})"


async def refuse_while_held(store: Store, name: str, remedy: str) -> None:
    """`UsageError` where a living process uses the endpoint."""
    if found := await holders(store, name):
        raise UsageError(f"endpoint {name} is used by {', '.join(map(held_by, found))}; {remedy}")


async def settling(store: Store, name: str, by: str, put_down: Callable[[], Awaitable[Seen]]) -> Seen:
    """Put the endpoint down, and with that settle the pause which a dead process owes. Nobody enters meanwhile.

    What a person kept awake by hand is owed a pause from here on, until it was seen.
    """
    await reap(store)
    await store.lasting_holds.release(name)
    debts = [debt for debt in await store.windows.debts() if debt.endpoint == name]
    if not debts:
        return await put_down()
    async with registered(store) as process_id, kept_alive(store, process_id):
        taken = [debt.window_id for debt in debts if await store.windows.claim(debt.window_id, process_id)]
        try:
            state, said = await put_down()
            for window in taken:
                await store.windows.close(window, process_id, state, said, by=by, spent=Spent())
            return state, said
        finally:
            with anyio.CancelScope(shield=True), suppress(OrchestratorError):
                for window in taken:
                    await store.windows.drop(window, process_id, Spent())  # nothing where it was closed
