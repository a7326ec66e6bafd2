"""The client aiohttp, which does everything that data planes need."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

import aiohttp

from orchestrator.domain.http_client import Reply
from orchestrator.endpoints.bodies import beginning
from orchestrator.wires.aiohttp_failures import from_exception

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from orchestrator.domain.http_client import Watch
    from orchestrator.domain.policy import Policy
    from orchestrator.wires.wire import Body


class AiohttpClient:
    """An `HttpClient` for all servers."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    @classmethod
    @asynccontextmanager
    async def open(cls, headers: Mapping[str, str], proxy: str | None, policy: Policy) -> AsyncIterator[Self]:
        """Open it with the headers and timeouts of a data plane."""
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            proxy=proxy,
            timeout=aiohttp.ClientTimeout(sock_connect=policy.connect_timeout, sock_read=policy.read_timeout),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as session:
            yield cls(session)

    async def send(self, url: str, body: Body, most: int, most_of_error: int, watch: Watch | None = None) -> Reply:
        """Send one request, as in `HttpClient.send`."""
        try:
            response = await self._session.request(
                body.method, url, data=body.content or None, headers=body.headers, allow_redirects=False
            )
            fine = response.status == 200
            begun, whole = await beginning(response, most if fine else most_of_error, watch if fine else None)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise from_exception(url.partition("?")[0], error) from error  # a query may hold a secret
        return Reply(response.status, response.headers, begun, whole)
