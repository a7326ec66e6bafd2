"""`serve --http` and `ui`: the server begins, answers and ends; the daemon does not depend on it."""

from __future__ import annotations

import asyncio
import io
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError

import pytest
from aiohttp import ClientError, ClientSession, TCPConnector, web
from anyio import to_thread

from orchestrator.server import application
from orchestrator.server.context import context_of
from tests.commands import until
from tests.server.conftest import TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from tests.commands import Workplace
    from tests.server.conftest import HttpServer, Inside


def test_the_daemon_serves_http_until_it_is_stopped(http_server: HttpServer) -> None:
    with urllib.request.urlopen(f"{http_server.url}/healthz") as response:
        assert response.read() == b"ok\n"
    http_server.process.send(signal.SIGTERM)
    assert http_server.process.end().code == 0


def test_a_port_in_use_is_one_line_and_nothing_begins(http_server: HttpServer, workplace: Workplace) -> None:
    place = http_server.url.removeprefix("http://")
    ended = workplace.run("serve", "--http", place)
    assert ended.code == 2
    assert ended.line == f"orchestrator: cannot listen on {place}: Address already in use; choose another with --http"
    ended = workplace.run("ui", "--no-browser", "--port", place.rpartition(":")[2])
    assert ended.line.endswith("Address already in use; choose another with --port")
    assert workplace.count("process", "serves") == 1


def test_no_token_is_in_the_servers_output(http_server: HttpServer) -> None:
    for path, headers in (
        (f"/?token={TOKEN}", {"Accept": "text/html"}),
        (f"/?token={TOKEN}x", {"Accept": "text/html"}),
        ("/nothing", {"Authorization": f"Bearer {TOKEN}"}),
        (f"/nothing?token={TOKEN}", {"Authorization": f"Bearer {TOKEN}", "Host": "evil.example"}),
    ):
        ask(http_server.url + path, headers)
    host, _, port = http_server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"GET /?token={TOKEN} HTTP/9.9\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.0 400 ")
    http_server.process.send(signal.SIGTERM)
    ended = http_server.process.end()
    assert "stopped" in ended.err
    assert TOKEN not in ended.err + ended.out


def test_the_settings_say_where_to_listen_and_the_option_comes_first(
    start_server: Callable[..., AbstractContextManager[HttpServer]],
) -> None:
    with start_server('[server]\nhttp = "127.0.0.1:0"\n', ("serve",)) as server:
        assert ask(f"{server.url}/healthz") == 200
    with start_server('[server]\nhttp = "192.0.2.1:1"\n') as server:
        assert server.url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("command", [("serve", "--http", "127.0.0.1:0"), ("ui", "--no-browser")])
def test_a_second_interruption_ends_the_process_although_a_request_is_not_over(
    start_server: Callable[..., AbstractContextManager[HttpServer]], workplace: Workplace, command: tuple[str, ...]
) -> None:
    workplace.make_ledger()
    with start_server(command=command) as server:
        place = server.url.removeprefix("http://")
        host, _, port = place.partition(":")
        with socket.create_connection((host, int(port))) as connection:
            form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n\r\ntoken"
            connection.sendall(f"POST /sign-in HTTP/1.1\r\nHost: {place}\r\n{form}".encode())
            assert ask(f"{server.url}/healthz") == 200
            server.process.send(signal.SIGINT)
            server.process.send(signal.SIGINT)
            assert server.process.end().code == 0
            assert connection.recv(1) == b""


async def test_two_hundred_open_streams_leave_room_for_other_requests_and_end_with_the_server(
    start_server: Callable[..., AbstractContextManager[HttpServer]],
) -> None:
    with start_server() as server:
        async with ClientSession(server.url, connector=TCPConnector(limit=0), headers=server.bearer) as client:
            streams = [await client.get("/events") for _ in range(200)]
            for stream in streams:
                assert await stream.content.readline() == b"retry: 2000\n"
            async with client.get("/", headers={"Accept": "text/html"}) as page:
                assert page.status == 200
            await to_thread.run_sync(server.process.send, signal.SIGTERM)
            for stream in streams:
                async for _ in stream.content:
                    pass
        ended = await to_thread.run_sync(server.process.end)
    assert ended.code == 0
    assert ended.err.splitlines()[-1].endswith("stopped")


async def test_a_request_in_flight_is_cut_when_the_server_aborts(
    serve_inside: Callable[..., AbstractAsyncContextManager[Inside]], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = add_endless(monkeypatch)
    monkeypatch.setattr("orchestrator.server.listening._GRACE", 1000.0)
    async with serve_inside() as http, asyncio.TaskGroup() as group:
        request = group.create_task(fails(http))
        await begun.wait()
        http.stop.drain()
        await asyncio.sleep(0)
        assert not request.done()
        http.stop.abort()


async def test_a_request_in_flight_is_cut_when_its_grace_is_over(
    serve_inside: Callable[..., AbstractAsyncContextManager[Inside]], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = add_endless(monkeypatch)
    monkeypatch.setattr("orchestrator.server.listening._GRACE", 0.05)
    async with serve_inside() as http, asyncio.TaskGroup() as group:
        group.create_task(fails(http))
        await begun.wait()
        http.stop.drain()


async def test_if_what_serves_all_requests_fails_the_server_begins_again(
    serve_inside: Callable[..., AbstractAsyncContextManager[Inside]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> None:
        raise RuntimeError("the disk is on fire")

    async def begin_to_fail(request: web.Request) -> web.Response:
        context_of(request).tasks.start_soon(fail)
        return web.Response()

    add_route(monkeypatch, web.get("/fail", begin_to_fail))
    monkeypatch.setattr("orchestrator.server.listening._PAUSE", 0.0)
    async with serve_inside() as http:
        async with http.client.get("/fail"):
            pass
        while len(http.said) < 3:
            await asyncio.sleep(0)
        async with http.client.get("/healthz") as response:
            assert response.status == 200
    assert http.said[1] == "the HTTP server failed and begins again: RuntimeError: the disk is on fire"


async def test_an_unexpected_failure_tells_the_client_nothing_but_where_to_look(
    serve_inside: Callable[..., AbstractAsyncContextManager[Inside]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(_request: web.Request) -> web.Response:
        raise RuntimeError("inner workings")

    add_route(monkeypatch, web.get("/fail", fail))
    async with serve_inside() as http, http.client.get("/fail?token=secret-of-a-query") as response:
        said, identity = await response.text(), response.headers["x-request-id"]
        assert response.status == 500
    assert "inner workings" not in said
    assert identity in said
    assert f"GET /fail failed ({identity})" in caplog.text
    assert "inner workings" in caplog.text
    assert "secret-of-a-query" not in caplog.text


async def test_a_client_that_leaves_before_its_answer_begins_is_no_failure(
    serve_inside: Callable[..., AbstractAsyncContextManager[Inside]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        response = web.StreamResponse()
        await response.prepare(request)
        return response

    add_route(monkeypatch, web.get("/gone", answer))
    async with serve_inside() as http:
        with pytest.raises(ClientError):
            async with http.client.get("/gone"):
                pass
    assert not caplog.records


async def test_a_body_that_is_too_large_is_refused(http: Inside) -> None:
    body, kind = io.BytesIO(b"token=" + b"x" * (1 << 20)), {"Content-Type": "application/x-www-form-urlencoded"}
    async with http.anybody.post("/sign-in", data=body, headers=kind) as response:
        assert response.status == 413
        assert (await response.json())["error"]["code"] == "too_large"


async def test_a_body_that_is_not_what_its_headers_announce_is_the_clients_fault(
    http: Inside, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Content-Encoding": "gzip"}
    async with http.anybody.post("/sign-in", data=b"not compressed at all", headers=headers) as response:
        assert response.status == 400
    assert not caplog.records


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /sign-in HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(1000)) + b"\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
async def test_a_request_that_is_not_http_is_refused_and_not_logged(
    http: Inside, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    host, _, port = http.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    answer = await reader.read()
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert b"text/html" not in answer
    assert not caplog.records
    writer.close()
    async with http.anybody.get("/healthz") as response:
        assert response.status == 200


def test_ui_opens_the_browser_signed_in_and_shows_no_token_to_other_users(
    start_server: Callable[..., AbstractContextManager[HttpServer]], workplace: Workplace
) -> None:
    workplace.make_ledger()
    opened = workplace.folder / "opened"
    browser = workplace.folder / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {opened}.new && mv {opened}.new {opened}\n')
    browser.chmod(0o700)
    with start_server(command=("ui",), BROWSER=f"{browser} %s") as server:
        until(opened.exists)
        link = Path(opened.read_text().removeprefix("file://"))
        assert TOKEN not in str(link)
        assert stat.S_IMODE(link.parent.stat().st_mode) == 0o700
        _, _, url = link.read_text().partition('content="0; url=')
        assert url.startswith(f"{server.url}/?token={TOKEN}")
        jar = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        with jar.open(urllib.request.Request(url.partition('"')[0], headers={"Accept": "text/html"})) as response:
            assert (response.status, response.url) == (200, f"{server.url}/")
        server.process.send(signal.SIGINT)
        assert server.process.end().code == 0
    assert not link.exists()


def test_ui_needs_a_ledger_and_none_of_the_named_tokens(
    start_server: Callable[..., AbstractContextManager[HttpServer]], workplace: Workplace
) -> None:
    assert "ledger" in workplace.run("ui", "--no-browser").line
    workplace.make_ledger()
    config = '[server.tokens.ann]\nrole = "run"\ntoken_env = "ANN"\n'
    with start_server(config, ("ui", "--no-browser")) as server:
        assert ask(f"{server.url}/healthz") == 200


def test_commands_that_serve_nothing_do_not_wait_for_the_server_to_be_imported() -> None:
    check = "import sys, orchestrator.cli.app; assert 'orchestrator.server' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)


def ask(url: str, headers: dict[str, str] | None = None) -> int:
    """Return the status of a GET."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {})) as response:
            return int(response.status)
    except HTTPError as error:
        with error:
            return error.code


async def fails(http: Inside) -> None:
    with pytest.raises(ClientError):
        async with http.client.get("/endless"):
            pass


def add_endless(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Add a route that never answers; return the event of its first request."""
    begun = asyncio.Event()

    async def endless(_request: web.Request) -> web.Response:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    add_route(monkeypatch, web.get("/endless", endless))
    return begun


def add_route(monkeypatch: pytest.MonkeyPatch, route: web.RouteDef) -> None:
    build = application.build

    def with_route(context: Any) -> web.Application:
        built = build(context)
        built.add_routes([route])
        return built

    monkeypatch.setattr("orchestrator.server.listening.build", with_route)
