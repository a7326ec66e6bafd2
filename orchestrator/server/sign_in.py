"""How a browser signs in: with a link that holds the token, or by entering it. Both end with a cookie."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aiohttp import web

from orchestrator.domain.urls import is_loopback
from orchestrator.report.markup import Markup, tag
from orchestrator.server.context import context_of, form_of

if TYPE_CHECKING:
    from orchestrator.server.tokens import Credential

SIGN_IN_PATHS = frozenset({"/sign-in", "/sign-in.css"})
_PLACE = re.compile(r"/(?![/\\])[!-\[\]-~]*")  # a path of this server: //host and /\host are other servers
_STAYS = 30 * 86400  # seconds that a browser keeps the cookie
_WRONG = "This is not a token of this server."
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 26rem; margin: 18vh auto 0; padding: 0 1rem; }
h1 { font-size: 1.25rem; }
label { display: block; font-weight: 600; }
form div { display: flex; gap: .5rem; }
input { flex: 1; min-width: 0; }
input, button { font: inherit; padding: .4rem .6rem; }
"""


def routes() -> list[web.AbstractRouteDef]:
    """Return the routes of signing in and out."""
    return [
        web.get("/sign-in", _show),
        web.get("/sign-in.css", _style),
        web.post("/sign-in", _sign_in),
        web.post("/sign-out", _sign_out),
    ]


def cookie_name(request: web.Request) -> str:
    """Return the name of the cookie. Cookies ignore ports, and each server of this machine needs its own."""
    return f"orchestrator-{context_of(request).address.port}"


def sign_in_by_link(request: web.Request) -> web.Response:
    """Answer a page's URL with the token in its query: a cookie, and the URL without the token."""
    credential = context_of(request).access.by_token(request.query["token"])
    clean = request.rel_url.without_query_params("token")
    if credential is None:
        return sign_in_page(to=str(clean), problem=_WRONG)
    return _signed_in(request, credential, str(clean))


def sign_in_page(to: str, *, problem: str = "", reload: bool = False) -> web.Response:
    """Return a page to enter the token on, which leads to `to`. With `reload`, it first loads itself once again."""
    page = tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", http_equiv="refresh", content="0") if reload else Markup(),
            tag("title", "Sign in · orchestrator"),
            tag("link", rel="stylesheet", href="/sign-in.css"),
        ),
        tag("body", tag("main", tag("h1", "orchestrator"), _form(to, problem))),
        lang="en",
    )
    return web.Response(text=f"<!doctype html>{page}", status=401, content_type="text/html")


def _form(to: str, problem: str) -> Markup:
    field = tag(
        "input", id="token", name="token", type="password", autocomplete="current-password", required="", autofocus=""
    )
    return tag(
        "form",
        tag("p", problem, role="alert") if problem else Markup(),
        tag("label", "Token", for_="token"),
        tag("div", field, tag("button", "Sign in", type="submit")),
        tag("p", "The server says where its token is when it starts."),
        tag("input", type="hidden", name="to", value=to),
        method="post",
        action="/sign-in",
    )


async def _show(_request: web.Request) -> web.Response:
    return sign_in_page(to="/")


async def _style(_request: web.Request) -> web.Response:
    return web.Response(text=_STYLE, content_type="text/css")


async def _sign_in(request: web.Request) -> web.Response:
    form = await form_of(request)
    to = form.get("to", "/")
    credential = context_of(request).access.by_token(form.get("token", "").strip())
    return sign_in_page(to, problem=_WRONG) if credential is None else _signed_in(request, credential, to)


async def _sign_out(request: web.Request) -> web.Response:
    response = _see("/sign-in")
    response.del_cookie(cookie_name(request), path="/")
    return response


def _signed_in(request: web.Request, credential: Credential, to: str) -> web.Response:
    response = _see(to)
    response.set_cookie(
        cookie_name(request),
        credential.cookie,
        max_age=_STAYS,
        path="/",
        httponly=True,
        samesite="Strict",
        secure=_encrypted(request),
    )
    return response


def _encrypted(request: web.Request) -> bool:
    """Whether the browser reaches us through HTTPS. Browsers send Sec-Fetch-Site only there, and to loopback."""
    host = request.headers.get("Host", "").rpartition(":")[0] or request.headers.get("Host", "")
    return "Sec-Fetch-Site" in request.headers and not is_loopback(host.strip("[]"))


def _see(place: str) -> web.Response:
    location = place if _PLACE.fullmatch(place) else "/"
    return web.Response(status=303, headers={"Location": location, "Referrer-Policy": "no-referrer"})
