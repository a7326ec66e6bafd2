"""Who may ask, from where: Host, Origin, token or cookie, role, CSRF. Everything is refused unless it is allowed."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from aiohttp import web

from orchestrator.domain.http_address import authorities
from orchestrator.domain.identity import Role
from orchestrator.server.context import IDENTITY, context_of, form_of
from orchestrator.server.failures import Refused, wants_page
from orchestrator.server.sign_in import SIGN_IN_PATHS, cookie_name, sign_in_by_link, sign_in_page

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

    from orchestrator.server.context import Context
    from orchestrator.server.tokens import Credential

HEALTH = "/healthz"  # anybody may ask for it, under any name of this server: it holds no data
_SAFE = frozenset({"GET", "HEAD"})
_ELSEWHERE = "a page of another site made this request"


def check_origin(context: Context) -> Middleware:
    """Refuse names of this server that are not its own (DNS rebinding), and what another site's page asks for.

    A link on another site may open a page here: it sees nothing of it, and a GET changes nothing.
    """
    known = authorities(context.address, context.app.settings.server.hosts)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path == HEALTH:
            return await handler(request)
        hosts = request.headers.getall("Host", [])
        if len(hosts) != 1 or hosts[0].lower() not in known or not request.raw_path.startswith("/"):
            raise Refused(400, "the header Host does not name this server; [server] hosts lists further names")
        if _from_elsewhere(request) and not _opens_a_page(request):
            raise Refused(403, _ELSEWHERE)
        origin = request.headers.get("Origin")
        if origin is not None and origin.lower().partition("://")[2] != hosts[0].lower():
            raise Refused(403, _ELSEWHERE)
        return await handler(request)

    return middleware


@web.middleware
async def check_identity(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Find out who asks, and refuse what that role may not do. A GET changes nothing, and every role may make one."""
    if request.path == HEALTH or request.path in SIGN_IN_PATHS:
        return await handler(request)
    credential = _bearer(request)
    if credential is None:
        if request.method == "GET" and "token" in request.query and wants_page(request):
            return sign_in_by_link(request)
        credential = context_of(request).access.by_cookie(request.cookies.get(cookie_name(request), ""))
        if credential is None:
            return _unknown(request)
        if request.method not in _SAFE:
            await _check_csrf(request, credential)
    if request.method not in _SAFE and not credential.identity.role.includes(Role.RUN):
        raise Refused(403, f"the token of {credential.identity.name} may only read")
    request[IDENTITY] = credential.identity
    return await handler(request)


def csrf_token(request: web.Request) -> str:
    """Return what a page's actions have to send back: the field `csrf`, or the header X-CSRF-Token."""
    identity = request[IDENTITY]
    return next(one.csrf for one in context_of(request).access.credentials if one.identity == identity)


def _from_elsewhere(request: web.Request) -> bool:
    return request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}


def _opens_a_page(request: web.Request) -> bool:
    """Whether the user follows a link, in a window of its own and not in a frame."""
    headers = request.headers
    top = headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
    return request.method == "GET" and top and wants_page(request)


def _bearer(request: web.Request) -> Credential | None:
    """Return whose token the request carries, or None. Raises `Refused` if the token is not one of ours."""
    header = request.headers.get("Authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    credential = context_of(request).access.by_token(token.strip()) if scheme.lower() == "bearer" else None
    if credential is None:
        raise Refused(401, "the token is not one of this server's", code="invalid_api_key")
    return credential


def _unknown(request: web.Request) -> web.Response:
    """Answer a request without a token: a browser gets a page to enter it.

    Browsers do not send the cookie after a link on another site (SameSite=Strict). The page then loads itself again,
    which is a request of this site.
    """
    if request.method == "GET" and wants_page(request):
        return sign_in_page(to=request.path_qs, reload=_from_elsewhere(request))
    raise Refused(
        401,
        "this server needs its token: Authorization: Bearer TOKEN",
        code="invalid_api_key",
        headers={"WWW-Authenticate": 'Bearer realm="orchestrator"'},
    )


async def _check_csrf(request: web.Request, credential: Credential) -> None:
    given = request.headers.get("X-CSRF-Token") or (await form_of(request)).get("csrf", "")
    if not hmac.compare_digest(given.encode(errors="surrogateescape"), credential.csrf.encode()):
        raise Refused(403, "the action was not made on a page of this server, or the page is too old: load it again")
