"""The headers of every response: what a browser may do with it, and the request's id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.server.context import REQUEST_ID

if TYPE_CHECKING:
    from aiohttp import web

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # `no-referrer` would make browsers send `Origin: null` with forms, which `access` refuses
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers of every response, except those that its handler has set itself."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = "orchestrator"  # aiohttp has set its own, with versions
    response.headers["x-request-id"] = request.get(REQUEST_ID, "")
