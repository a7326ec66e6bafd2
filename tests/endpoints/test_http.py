"""What the network does to a request: real sockets."""

from __future__ import annotations

import socket
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.abc import SocketAttribute

from orchestrator import Policy
from orchestrator.domain.errors import EndpointLost, EndpointRefused, FailureKind, RequestFailed
from orchestrator.endpoints import HttpEndpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from anyio.abc import SocketStream

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"


@asynccontextmanager
async def server(serve: Callable[[SocketStream], Awaitable[None]]) -> AsyncIterator[int]:
    """A TCP server that does with each connection what it is told; gives its port."""

    async def handle(stream: SocketStream) -> None:
        async with stream:
            await serve(stream)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, handle)
        yield listener.extra(SocketAttribute.local_port)  # noqa: S610 - not Django's
        group.cancel_scope.cancel()


async def asked(url: str, policy: Policy) -> object:
    endpoint = HttpEndpoint(url)
    async with endpoint.control() as control, control.connect(policy) as data:
        return await data.ask([b'"text"'])


async def say_nothing(stream: SocketStream) -> None:
    await stream.receive()
    await anyio.sleep_forever()


async def stop_half_way(stream: SocketStream) -> None:
    await stream.receive()
    await stream.send(OK + b'[{"lab')
    await anyio.sleep_forever()


async def hang_up(stream: SocketStream) -> None:
    await stream.receive()
    await stream.send(OK + b'[{"lab')


async def reset(stream: SocketStream) -> None:
    await stream.receive()
    raw = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - not Django's
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize(
    ("serve", "policy", "kind"),
    [
        (say_nothing, Policy(read_timeout=0.1), FailureKind.TIMEOUT),
        (say_nothing, Policy(timeout=0.1), FailureKind.TIMEOUT),
        (stop_half_way, Policy(read_timeout=0.1), FailureKind.TIMEOUT),
        (hang_up, Policy(), FailureKind.CONNECTION),
        (reset, Policy(), FailureKind.CONNECTION),
    ],
)
async def test_a_connection_that_breaks_or_goes_silent_costs_an_attempt(
    serve: Callable[[SocketStream], Awaitable[None]], policy: Policy, kind: FailureKind
) -> None:
    async with server(serve) as port:
        with pytest.raises(RequestFailed) as raised:
            await asked(f"http://127.0.0.1:{port}/", policy)
    assert raised.value.kind is kind


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "http://no-such-host.invalid/"])
async def test_a_server_that_cannot_be_reached_is_lost(url: str) -> None:
    with pytest.raises(EndpointLost, match="cannot connect"):
        await asked(url, Policy())


async def test_a_server_without_tls_is_not_trusted_with_a_tls_url() -> None:
    async def plain(stream: SocketStream) -> None:
        await stream.receive()
        await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with server(plain) as port:
        with pytest.raises(EndpointRefused, match="TLS"):
            await asked(f"https://127.0.0.1:{port}/", Policy())


async def test_a_redirect_is_not_followed() -> None:
    async def elsewhere(stream: SocketStream) -> None:
        await stream.receive()
        await stream.send(b"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n")
        await anyio.sleep_forever()

    async with server(elsewhere) as port:
        with pytest.raises(EndpointRefused, match="redirects are not followed"):
            await asked(f"http://127.0.0.1:{port}/", Policy())
