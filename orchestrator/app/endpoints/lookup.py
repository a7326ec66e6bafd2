"""Finding the endpoint that a user means by a name or a URL."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from anyio import to_thread

from orchestrator.domain.errors import UsageError
from orchestrator.endpoints import (
    HttpEndpoint,
    HuggingFaceEndpoint,
    HuggingFaceSpaceEndpoint,
    LocalEndpoint,
    LocalServer,
    RayEndpoint,
    endpoint_from,
    named,
)
from orchestrator.endpoints.engines import Engine
from orchestrator.endpoints.hf_api import Management
from orchestrator.endpoints.hf_space import OF_SPACES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from orchestrator.ports import Endpoint
    from orchestrator.store import Store


async def find_endpoint(
    name: str, namespace: str | None, declared: Collection[str], store: Store, *, as_in_a_run: bool = False
) -> Endpoint:
    """Return the endpoint with this name in config.toml, the server at this URL, or else the Hugging Face endpoint.

    `declared`: the names in config.toml. A name that runs have used for jobs or a Space at Hugging Face, or at
    SageMaker, means these; spaces/OWNER/NAME is always a Space. Raises `UsageError` if the name is that of another
    kind, or of an endpoint that runs have woken and only a job file declares. An endpoint that runs would create and
    delete again is treated here like any other. `as_in_a_run`: it will be used as runs do, so it is what config.toml
    declares, even if it is awake only while it is used.
    """
    if namespace is None and name not in declared and (kept := await store.windows.pause_with(name)) is not None:
        if kept.get("kind") in {"huggingface_job", "huggingface_space", "sagemaker"}:
            return await to_thread.run_sync(endpoint_from, kept)
        _check_named(name, kept.get("kind"))
    if as_in_a_run and namespace is None and name in declared:
        return await to_thread.run_sync(named, name)
    return await to_thread.run_sync(_endpoint, name, namespace, declared)


def _check_named(name: str, kind: object) -> None:
    """Raise `UsageError` if runs have woken an endpoint of this name that only a job file declares."""
    if kind not in {None, "huggingface"}:
        raise UsageError(
            f"endpoint {name} is declared only in a job file: to manage it by name, add it to the settings file as "
            f"[endpoints.{name}] with kind = {kind!r}; `orchestrator sweep` pauses what dead runs left awake"
        )


def _endpoint(name: str, namespace: str | None, declared: Collection[str]) -> Endpoint:
    """Return the endpoint. Reads config.toml."""
    if namespace is None and name in declared:
        endpoint = named(name)
    elif "://" in name:
        try:
            return HttpEndpoint(name)
        except ValueError as error:
            raise UsageError(str(error)) from error
    else:
        try:
            if name.startswith(OF_SPACES):
                return HuggingFaceSpaceEndpoint(name.removeprefix(OF_SPACES))
            endpoint = HuggingFaceEndpoint(name, namespace=namespace)
        except ValueError as error:
            raise UsageError(
                f"{name!r} is not in the settings file, and is not a valid name at Hugging Face: {error}; "
                "what a run has used has the name that `orchestrator status` shows"
            ) from error
    if isinstance(endpoint, LocalEndpoint | LocalServer | Engine | RayEndpoint):
        where = "a Ray cluster" if isinstance(endpoint, RayEndpoint) else "this machine"
        raise UsageError(f"{name} is a model on {where}: it is awake only while a run uses it")
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


def address(endpoint: Endpoint) -> str:
    """Return an endpoint's URL without its query, which may contain a secret."""
    return urlsplit(str(getattr(endpoint, "url", "")))._replace(query="", fragment="").geturl()
