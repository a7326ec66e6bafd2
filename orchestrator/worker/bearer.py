"""The token that clients of a worker on a port must send: others on the network can reach the port as well."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

WITHOUT_TOKEN = "the header Authorization: Bearer TOKEN is missing, or its token is another one"


def holds(request: web.Request, token: str) -> bool:
    """Whether the request has this bearer token."""
    given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
    return hmac.compare_digest(given, f"Bearer {token}".encode())


def for_holders_of(token: str) -> Middleware:
    """Return a middleware that answers 401 to every request without this bearer token."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not holds(request, token):
            return web.json_response({"error": WITHOUT_TOKEN}, status=401)
        return await handler(request)

    return check
