"""Folders with a handler.py, and a worker that serves them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from textwrap import dedent, indent
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import orjson

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import RequestFailed
from orchestrator.domain.policy import Policy
from orchestrator.endpoints import LocalEndpoint
from tests.commands import DEADLINE
from tests.members import worker_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from orchestrator.endpoints.local_data import LocalData


def handler(folder: Path, call: str, *, start: str = "pass", top: str = "", attributes: str = "") -> Path:
    """Write a folder whose handler runs `start` with `path` in scope, then `call` with `data` in scope."""
    source = f"""\
{dedent(top)}
class EndpointHandler:
    {attributes}
    def __init__(self, path=""):
{indent(dedent(start), " " * 8)}

    def __call__(self, data):
{indent(dedent(call), " " * 8)}
"""
    return written(folder, source)


def written(folder: Path, source: str, requirements: str | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "handler.py").write_text(dedent(source))
    if requirements is not None:
        (folder / "requirements.txt").write_text(requirements)
    return folder


async def endpoint_of(folder: Path, **settings: Any) -> LocalEndpoint:
    return await anyio.to_thread.run_sync(lambda: LocalEndpoint(str(folder), **settings))


@asynccontextmanager
async def awake(endpoint: LocalEndpoint, policy: Policy | None = None) -> AsyncIterator[LocalData]:
    """Yield the data plane of the worker of the endpoint."""
    async with worker_of(endpoint) as control:
        await control.resume()
        with anyio.fail_after(DEADLINE):
            while (state := await control.state()) is EndpointState.STARTING:
                await anyio.sleep(0.02)
        assert state is EndpointState.AWAKE, control.status_text
        async with control.connect(policy or Policy()) as model:
            yield model


async def answers(folder: Path, *requests: object, **settings: Any) -> list[Any]:
    """Return the answers of the handler, with kind and message for failed requests."""
    async with awake(await endpoint_of(folder, **settings)) as model:
        found = await model.ask([orjson.dumps(request) for request in requests])
    return [(str(entry.kind), entry.message) if isinstance(entry, RequestFailed) else entry for entry in found]


async def last_words(folder: Path, **settings: Any) -> str:
    """Return the reason why the handler cannot be served."""
    async with (await endpoint_of(folder, **settings)).control() as control:
        await control.resume()
        with anyio.fail_after(DEADLINE):
            while (state := await control.state()) is EndpointState.STARTING:
                await anyio.sleep(0.02)
        assert state is EndpointState.FAILED
        return control.status_text
