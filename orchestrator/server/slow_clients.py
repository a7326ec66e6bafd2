"""Ends connections whose client sends its body too slowly, or does not read its answer.

A client that sends its headers too slowly, or nothing at all, meets the keep-alive timeout (`listening`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import anyio
from aiohttp import web

if TYPE_CHECKING:
    from aiohttp import StreamReader
    from aiohttp.typedefs import Handler
    from aiohttp.web_protocol import RequestHandler

_LOOK = 5.0  # seconds between two looks at all connections
_STALLED_AFTER = 60.0  # seconds in which a client has to send or take something
_SLOWEST = 10_000  # bytes of a body that have to arrive in that time


class _Seen(NamedTuple):
    """How far a connection was at a moment: bytes of the body that it has sent, or bytes that wait to be read by it."""

    sending: bool
    amount: int
    at: float


class SlowClients:
    """Watches all connections of one server."""

    def __init__(self) -> None:
        self._bodies: dict[RequestHandler, StreamReader] = {}
        self._seen: dict[RequestHandler, _Seen] = {}

    @web.middleware
    async def watch_body(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Remember that this request's body is being received."""
        if not request.can_read_body:
            return await handler(request)
        self._bodies[request.protocol] = request.content
        try:
            return await handler(request)
        finally:
            del self._bodies[request.protocol]

    async def end_stalled(self, server: web.Server) -> None:
        """Look at all connections again and again, and end those that make no progress. Never returns."""
        while True:
            now, before = anyio.current_time(), self._seen
            self._seen = {
                connection: self._latest(before.get(connection), seen)
                for connection in server.connections
                if (seen := self._look(connection, now)) is not None
            }
            for connection, seen in self._seen.items():
                if now - seen.at >= _STALLED_AFTER and connection.transport is not None:
                    connection.transport.abort()
            await anyio.sleep(_LOOK)

    def _look(self, connection: RequestHandler, now: float) -> _Seen | None:
        """Return how far a connection is; None if we do not wait for its client."""
        if connection.transport is None:
            return None
        if connection.writing_paused:
            return _Seen(sending=False, amount=connection.transport.get_write_buffer_size(), at=now)
        body = self._bodies.get(connection)
        return None if body is None or body.is_eof() else _Seen(sending=True, amount=body.total_bytes, at=now)

    @staticmethod
    def _latest(before: _Seen | None, seen: _Seen) -> _Seen:
        """Return the earlier moment if there was too little progress since, otherwise the later one."""
        if before is None or before.sending != seen.sending:
            return seen
        if seen.sending:
            return before if seen.amount - before.amount < _SLOWEST else seen
        return before if seen.amount == before.amount else seen
