"""Who may ask, from where: Host, Origin, token or cookie, role, CSRF. Everything is refused unless it is allowed."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from aiohttp import web

from orchestrator.domain.http_address import HttpAddress, authorities
from orchestrator.domain.identity import Role
from orchestrator.server.context import IDENTITY, context_of
from orchestrator.server.failures import Refused

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

    from orchestrator.server.context import Context
    from orchestrator.server.tokens import Credential

OPEN = frozenset({"/healthz"})  # paths without data, which need no token
_SAFE = frozenset({"GET", "HEAD"})


def cookie_name(address: HttpAddress) -> str:
    """Return the name of the cookie. Cookies ignore ports, and each server of this machine needs its own."""
    return f"orchestrator-{address.port}"


def check_origin(context: Context) -> Middleware:
    """Refuse names of this server that are not its own, and requests that another site's page makes."""
    known = authorities(context.address, context.app.settings.server.hosts)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in OPEN:
            return await handler(request)
        hosts = request.headers.getall("Host", [])
        if len(hosts) != 1 or hosts[0].lower() not in known or not request.raw_path.startswith("/"):
            raise Refused(400, "the header Host does not name this server; [server] hosts lists further names")
        if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
            raise Refused(403, "a page of another site made this request")
        origin = request.headers.get("Origin")
        if origin is not None and origin.lower().partition("://")[2] != hosts[0].lower():
            raise Refused(403, "a page of another site made this request")
        return await handler(request)

    return middleware


def check_identity(context: Context) -> Middleware:
    """Find out who asks, and refuse what that role may not do. A GET changes nothing, and every role may make one."""
    cookie = cookie_name(context.address)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in OPEN:
            return await handler(request)
        credential = _bearer(request, context)
        if credential is None:
            credential = context.access.by_cookie(request.cookies.get(cookie, ""))
            if credential is None:
                raise Refused(
                    401,
                    "this server needs its token: Authorization: Bearer TOKEN",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": 'Bearer realm="orchestrator"'},
                )
            if request.method not in _SAFE:
                await _check_csrf(request, credential)
        if request.method not in _SAFE and not credential.identity.role.includes(Role.RUN):
            raise Refused(403, f"the token of {credential.identity.name} may only read")
        request[IDENTITY] = credential.identity
        return await handler(request)

    return middleware


def csrf_token(request: web.Request) -> str:
    """Return what a page's actions have to send back: the field `csrf`, or the header X-CSRF-Token."""
    identity = request[IDENTITY]
    return next(one.csrf for one in context_of(request).access.credentials if one.identity == identity)


def _bearer(request: web.Request, context: Context) -> Credential | None:
    """Return whose token the request carries, or None. Raises `Refused` if the token is not one of ours."""
    header = request.headers.get("Authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    credential = context.access.by_token(token.strip()) if scheme.lower() == "bearer" else None
    if credential is None:
        raise Refused(401, "the token is not one of this server's", code="invalid_api_key")
    return credential


async def _check_csrf(request: web.Request, credential: Credential) -> None:
    given: object = request.headers.get("X-CSRF-Token")
    if given is None and request.content_type == "application/x-www-form-urlencoded":
        given = (await request.post()).get("csrf")
    if not (isinstance(given, str) and hmac.compare_digest(given.encode(), credential.csrf.encode())):
        raise Refused(403, "the action was not made on a page of this server, or the page is too old: load it again")
