"""Binds the socket before anything begins, and serves until asked to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import anyio
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from orchestrator.domain.errors import UsageError, described
from orchestrator.domain.http_address import HttpAddress
from orchestrator.engine.tasks import task_group
from orchestrator.server.application import build
from orchestrator.server.context import Context
from orchestrator.server.slow_clients import SlowClients
from orchestrator.server.tokens import load_access, token_place

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.app import App
    from orchestrator.engine.stop import Stop
    from orchestrator.server.tokens import Access

_GRACE = 5.0  # seconds that requests have to end, once the server is to stop
_IDLE = 75.0  # seconds in which a client has to send the headers of its next request
_PAUSE = 1.0  # seconds before a server that failed begins again
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_BACKLOG = 256  # connections that the system accepts before we do


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound socket, its address with its real port, and who may use the server behind it.

    `token_place`: where the user finds the admin's token.
    """

    socket: socket.socket
    address: HttpAddress
    access: Access
    token_place: str


def listener_of(app: App, place: str, *, named: bool = True) -> Listener:
    """Bind the socket, read the tokens, and make one if there is none. Blocks: files, and a look-up of the host's name.

    `named`: whether the tokens of [server.tokens] open it too.

    Raises `UsageError` if the port is in use, or if other machines could reach it although nobody has set a token.
    """
    try:
        address = HttpAddress.parse(place)
    except ValueError as error:
        raise UsageError(f"--http: {error}") from error
    server = app.settings.server
    ledger = app.store.database.real_path
    access = load_access(server.tokens if named else {}, ledger)
    _check_reach(address, access, server.hosts)
    try:
        family, *_, found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        bound = socket.create_server(found[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        why = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        option = "--http" if named else "--port"
        raise UsageError(f"cannot listen on {address}: {why}; choose another with {option}") from error
    return Listener(bound, replace(address, port=bound.getsockname()[1]), access, token_place(ledger))


def _check_reach(address: HttpAddress, access: Access, hosts: tuple[str, ...]) -> None:
    if not (address.loopback or access.chosen):
        raise UsageError(
            f"other machines can reach {address}, so the server needs a token that you choose: "
            "set ORCHESTRATOR_HTTP_TOKEN, or [server.tokens] in config.toml"
        )
    if address.wildcard and not hosts:
        raise UsageError(f"{address} stands for all addresses: list the names of this server in [server] hosts")


async def serve_http(app: App, listener: Listener, stop: Stop, say: Callable[[str], None], *, executes: bool) -> None:
    """Serve until `stop` is requested; then give requests until its deadline, and at most a few seconds.

    `executes`: whether a daemon in this process executes runs. An unexpected failure is reported and the server begins
    again, because the daemon's runs must not depend on it.
    """
    with listener.socket:
        while not stop.requested:
            try:
                await _serve(app, listener, stop.child(), say, executes=executes)
            except Exception as failure:  # noqa: BLE001 - reported, and tried again
                say(f"the HTTP server failed and begins again: {described(failure)}")
                await stop.sleep(_PAUSE)


def _is_no_bad_request(record: logging.LogRecord) -> bool:
    """Whether to log this. aiohttp logs requests that it cannot parse with their text, which may hold a token."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError | web.RequestPayloadError))


_LOG = logging.getLogger("orchestrator.server.connections")
_LOG.addFilter(_is_no_bad_request)


async def _serve(app: App, listener: Listener, stop: Stop, say: Callable[[str], None], *, executes: bool) -> None:
    """Serve once, until `stop` is requested or something fails that serves all requests."""
    slow = SlowClients()
    async with task_group() as tasks:
        application = build(Context(app, listener.address, listener.access, stop, tasks, executes))
        application.middlewares.insert(0, slow.watch_body)
        runner = web.AppRunner(
            application,
            access_log=None,  # a query may hold the token
            logger=_LOG,
            handler_cancellation=True,
            keepalive_timeout=_IDLE,
            shutdown_timeout=_GRACE,
        )
        await runner.setup()
        assert runner.server is not None
        accepting: asyncio.Server | None = None
        try:
            tasks.start_soon(slow.end_stalled, runner.server)
            connect = partial(_connected, runner.server, app.settings.server.connections)
            accepting = await asyncio.get_running_loop().create_server(
                connect, sock=listener.socket.dup(), backlog=_BACKLOG
            )
            say(f"listening on {listener.address.url} with the token in {listener.token_place}")
            await stop.wait()
        finally:
            if accepting is not None:
                accepting.close()
            stop.drain(_GRACE)
            with anyio.CancelScope(shield=True):
                async with task_group() as ending:
                    ending.start_soon(_cut_off, runner.server, stop)
                    await runner.cleanup()
                    ending.cancel_scope.cancel()
        tasks.cancel_scope.cancel()


class _Busy(asyncio.Protocol):
    """A connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(_BUSY)
        transport.close()


def _connected(server: web.Server, most: int) -> asyncio.BaseProtocol:
    """Return what serves a new connection."""
    return server() if len(server.connections) < most else _Busy()


async def _cut_off(server: web.Server, stop: Stop) -> None:
    """Cut all connections at the deadline, which ends their handlers too."""
    with stop.until_deadline():
        await anyio.sleep_forever()
    for connection in server.connections:
        if connection.transport is not None:
            connection.transport.abort()
