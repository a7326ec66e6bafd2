"""`/events`: the live feed as a stream of server-sent events, one for each tab."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from aiohttp import web

from orchestrator.server.context import context_of
from orchestrator.server.failures import Refused
from orchestrator.server.live_feed import LiveFeed

if TYPE_CHECKING:
    from orchestrator.server.context import Context
    from orchestrator.server.live_feed import Stream

PING = 15.0  # seconds without an event after which a comment is sent, so that proxies keep the connection
SLOWEST = 10.0  # seconds that a client may take to accept what is sent
MOST = 500  # streams at once
_RETRY = b"retry: 2000\n\n"  # milliseconds until a browser connects again
FEED = web.AppKey("feed", LiveFeed)


def mount_events(application: web.Application, context: Context) -> None:
    """Add the route, and follow what happens as long as the server runs."""
    application[FEED] = LiveFeed(context.app)
    application.add_routes([web.get("/events", _events, allow_head=False)])
    context.tasks.start_soon(application[FEED].follow)


async def _events(request: web.Request) -> web.StreamResponse:
    """Send events until the client leaves, is too slow, or the server ends."""
    feed = request.config_dict[FEED]
    if feed.streams >= MOST:
        raise Refused(503, f"{MOST} streams are open already", headers={"Retry-After": "10"})
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
    with feed.open(request.headers.get("Last-Event-ID")) as stream:
        await response.prepare(request)
        try:
            with context_of(request).stop.while_running():
                await response.write(_RETRY)
                await _send(stream, response)
        except TimeoutError:
            _drop(request)
    return response


async def _send(stream: Stream, response: web.StreamResponse) -> None:
    """Send what happens; return once the client has missed something. Raises `TimeoutError` if it reads too slowly."""
    while True:
        sent: bytes | None = b": ping\n\n"
        with anyio.move_on_after(PING):
            sent = await stream.next()
        if sent is None:
            return
        with anyio.fail_after(SLOWEST):
            await response.write(sent)


def _drop(request: web.Request) -> None:
    """Close the connection without waiting for the client to read what was sent."""
    if request.transport is not None:
        request.transport.abort()
