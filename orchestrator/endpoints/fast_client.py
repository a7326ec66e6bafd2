"""The client `ry`: HTTP in Rust's reqwest, at a quarter of aiohttp's CPU for each request. An optional package.

Its threads hold the connections. None of its own errors leave this module: their texts quote the URL with its query,
which may hold a secret.
"""

from __future__ import annotations

import os
import re
import socket
from typing import TYPE_CHECKING, Any, Self

import ry
from multidict import CIMultiDict
from yarl import URL

from orchestrator.domain.errors import EndpointLost
from orchestrator.domain.http_client import Reply
from orchestrator.wires import failures

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from orchestrator.domain.errors import EndpointRefused, RequestFailed
    from orchestrator.domain.http_client import Watch
    from orchestrator.domain.policy import Policy
    from orchestrator.wires.wire import Body

_START = 1e-6  # seconds; waiting at all starts the threads, which would end the process later if descriptors are short
_IDLE = 15.0  # seconds after which an unused connection is closed, as aiohttp does
_BEFORE_SILENCE = 0.9  # of the read timeout: it also runs while connecting, and would hide that nothing was sent
# Without any proxy, reqwest takes those of the environment, where `proxy_for` decides. This one is not for http://.
_OF_NO_USE = ry.Proxy.https("http://127.0.0.1:9")
_CODE = re.compile(r"\bOs \{ code: (\d+)")
_UNRESOLVED = re.compile(r'DnsError .*?failed to lookup address information: ([^"]*)')
_BROKEN = {  # what hyper says -> in plain words
    "IncompleteMessage": "Server disconnected",
    "IncompleteBody": "the answer ends before its end",
    "Parse(": "the answer is not HTTP",
}


class FastClient:
    """An `HttpClient` for plain HTTP without a proxy."""

    def __init__(self, headers: Mapping[str, str], policy: Policy) -> None:
        connect, silence = policy.connect_timeout, policy.read_timeout
        if silence is not None:
            connect = min(connect, silence * _BEFORE_SILENCE)
        self._client: ry.Client | None = ry.Client(
            headers=dict(headers),
            connect_timeout=ry.Duration.from_secs_f64(connect),
            read_timeout=None if silence is None else ry.Duration.from_secs_f64(silence),
            redirect=None,  # 0 would raise where a server redirects
            referer=False,
            gzip=True,
            deflate=True,
            brotli=False,
            zstd=False,
            hickory_dns=False,  # the system's resolver
            http1_only=True,
            http1_title_case_headers=True,
            pool_idle_timeout=ry.Duration.from_secs_f64(_IDLE),
            proxy=_OF_NO_USE,
        )

    async def __aenter__(self) -> Self:
        await ry.sleep_async(_START)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._client = None  # the last reference: this closes its connections

    async def send(self, url: str, body: Body, most: int, most_of_error: int, watch: Watch | None = None) -> Reply:
        """Send one request, as in `HttpClient.send`."""
        if self._client is None:
            raise RuntimeError("the client is closed")
        try:
            response = await self._client.fetch(
                url,
                method=body.method,  # type: ignore[arg-type]  # a method of HTTP
                body=body.content,
                headers=body.headers or {},
            )
            content, most = bytearray(), most if response.status == 200 else most_of_error
            async for part in response.bytes_stream():
                content += part
                if watch is not None and response.status == 200:
                    watch(bytes(part))
                if len(content) > most:
                    break  # with its last reference gone, the answer's connection is closed
        except ry.ReqwestError as error:
            raised = _failure(error, url)
        else:
            return Reply(response.status, _headers(response), bytes(content[:most]), whole=len(content) <= most)
        raise raised  # outside, so that a traceback does not show the error of `ry`


def _headers(response: ry.Response) -> CIMultiDict[str]:
    return CIMultiDict(_pairs(response.headers.to_dict()))


def _pairs(headers: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, values in headers.items():
        for value in values if isinstance(values, list) else [values]:
            yield name, value if isinstance(value, str) else bytes(value).decode(errors="surrogateescape")


def _failure(error: ry.ReqwestError, url: str) -> RequestFailed | EndpointLost | EndpointRefused:
    """Return the failure. Raises `NoRoom` if this machine is the cause."""
    said, name = str(error), url.partition("?")[0]  # a query may hold a secret
    code = _CODE.search(said)
    if error.is_timeout():
        return failures.no_connection_in_time(name) if error.is_connect() else failures.too_slow()
    if error.is_connect():
        server, cause = URL(url), _why_not_connected(said, code)
        failures.check_room(cause)
        return EndpointLost(failures.unreachable(server.host, server.port, cause))
    if code is not None:
        cause = OSError(int(code[1]), os.strerror(int(code[1])))
        failures.check_room(cause)
        return failures.broken(str(cause))
    if error.is_builder():
        return failures.no_url(name)
    why = next((words for sign, words in _BROKEN.items() if sign in said), "the answer cannot be read")
    return failures.broken(why)


def _why_not_connected(said: str, code: re.Match[str] | None) -> OSError:
    if (unresolved := _UNRESOLVED.search(said)) is not None:
        return socket.gaierror(socket.EAI_NONAME, unresolved[1])
    number = int(code[1]) if code is not None else 0
    return OSError(number, os.strerror(number) if number else "no connection")
