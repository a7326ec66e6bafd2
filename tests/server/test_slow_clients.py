"""Clients that send or read too slowly lose their connection; all others are served meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from orchestrator.config import Server, Settings
from orchestrator.server import application
from tests.server.conftest import TOKEN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from tests.server.conftest import Inside


@pytest.fixture(autouse=True)
def ended(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Add routes that read and write without end, and shorten every time limit. Return when /send has ended."""
    build, ended = application.build, asyncio.Event()

    async def receive(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    async def send(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(1 << 20))
        finally:
            ended.set()

    def with_routes(context: Any) -> web.Application:
        built = build(context)
        built.add_routes([web.post("/receive", receive), web.get("/send", send)])
        return built

    monkeypatch.setattr("orchestrator.server.listening.build", with_routes)
    monkeypatch.setattr("orchestrator.server.listening._IDLE", 0.1)
    monkeypatch.setattr("orchestrator.server.slow_clients._LOOK", 0.02)
    monkeypatch.setattr("orchestrator.server.slow_clients._STALLED_AFTER", 0.1)
    return ended


@asynccontextmanager
async def connection(http: Inside) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = http.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 10)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def head(http: Inside, first: str, **headers: str) -> bytes:
    lines = [f"{first} HTTP/1.1", f"Host: {http.url.removeprefix('http://')}", f"Authorization: Bearer {TOKEN}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "])
async def test_a_client_that_does_not_finish_its_headers_loses_its_connection(http: Inside, sent: bytes) -> None:
    async with connection(http) as (reader, writer):
        writer.write(sent)
        assert await reader.read() == b""


async def test_one_connection_too_many_is_answered_503_until_another_ends(
    serve_inside: Callable[..., AbstractAsyncContextManager[Inside]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.server.listening._IDLE", 75.0)
    async with serve_inside(Settings(server=Server(connections=2))) as http:
        async with connection(http) as first, connection(http) as second:
            for reader, writer in (first, second):
                writer.write(head(http, "GET /healthz"))
                assert (await reader.readline()).split()[1] == b"200"
            async with connection(http) as (reader, _):
                assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        status = b"503"
        while status == b"503":
            async with connection(http) as (reader, writer):
                writer.write(head(http, "GET /healthz"))
                status = (await reader.readline()).split()[1]
        assert status == b"200"


async def test_a_client_that_stops_sending_its_body_loses_its_connection(http: Inside) -> None:
    async with connection(http) as (reader, writer):
        writer.write(head(http, "POST /receive", Content_Length="1000") + b"x")
        assert await reader.read() == b""


async def test_a_client_that_does_not_read_its_answer_loses_its_connection(http: Inside, ended: asyncio.Event) -> None:
    async with connection(http) as (_, writer):
        writer.write(head(http, "GET /send"))
        await ended.wait()


async def test_a_client_that_sends_its_body_in_pieces_is_answered(
    http: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.server.slow_clients._STALLED_AFTER", 60.0)
    async with connection(http) as (reader, writer):
        writer.write(head(http, "POST /receive", Content_Length="10", Connection="close"))
        for piece in (b"01234", b"56789"):
            async with http.client.get("/healthz") as other:
                assert other.status == 200
            writer.write(piece)
        assert (await reader.read()).endswith(b"\r\n\r\n10")
