"""A real uvicorn at its --limit-concurrency: it refuses health checks as well, and still counts as ready."""

from __future__ import annotations

import http.client
import sys
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import orjson
import pytest
from yarl import URL

from orchestrator import Policy
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.endpoints import HttpEndpoint, LocalServer
from orchestrator.endpoints.reach import why_silent
from tests.commands import DEADLINE
from tests.members import replica_of

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

FOLDER = Path(__file__).parents[1] / "wires/servers"
SERVER = LocalServer(
    [
        *(sys.executable, "-m", "uvicorn", "--app-dir", str(FOLDER), "application:app"),
        *("--port", "{port}", "--limit-concurrency", "3", "--timeout-keep-alive", "600"),
    ],
    name="uvicorn",
)


@contextmanager
def full(port: int) -> Iterator[None]:
    """As many connections as the server allows are open. They are idle, which it does not mind."""
    with ExitStack() as stack:
        for _ in range(2):
            connection = stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", port)))
            connection.request("GET", "/health")
            with connection.getresponse() as response:
                assert (response.status, response.read()) == (200, b'{"status":"ok"}')
        yield


async def test_a_full_server_is_ready_although_its_health_route_is_refused() -> None:
    async with replica_of(SERVER) as control:
        await control.resume()
        with anyio.fail_after(DEADLINE):
            while await control.state() is not EndpointState.AWAKE:
                await anyio.sleep(0.02)
        url = URL(control.url)
        assert url.port is not None
        foreign = HttpEndpoint(control.url, health="/health")
        async with foreign.control() as outside, outside.connect(Policy()) as data:
            with full(url.port):
                assert await control.state() is EndpointState.AWAKE
                assert await control.is_well()
                assert await why_silent(url, "/health", {}) is None
                assert await outside.answers()
                with pytest.raises(RequestFailed, match="overloaded") as refused:
                    await data.ask([orjson.dumps("hello")])
                assert (refused.value.kind, refused.value.status) == (FailureKind.RATE_LIMITED, 503)
            with anyio.fail_after(DEADLINE):
                while await why_silent(url, "/no/such/route", {}) != "GET /no/such/route is answered 404":
                    await anyio.sleep(0.02)  # until it has noticed that the connections are closed
            assert await data.ask([orjson.dumps("hello")]) == [[{"label": "HELLO", "score": 1.0}]]
