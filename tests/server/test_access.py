"""Each protection refuses a harmless request that breaks one rule, and lets the same request through otherwise."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from orchestrator.config import Server, Settings, settings_from
from orchestrator.server import application
from orchestrator.server.access import csrf_token
from orchestrator.server.context import identity_of
from tests.server.conftest import TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from tests.server.conftest import Inside

RUNNER, READER = "token-of-a-runner", "token-of-a-reader"
BROWSER = {"Accept": "text/html", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture(autouse=True)
def an_action(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a route to the application that says who asks; its POST stands for any action."""
    build = application.build

    async def asked(request: web.Request) -> web.Response:
        identity = identity_of(request)
        return web.json_response({"name": identity.name, "role": identity.role, "csrf": csrf_token(request)})

    def with_action(context: Any) -> web.Application:
        built = build(context)
        routes = [web.get("/api/asked", asked), web.post("/api/asked", asked), web.get("/page", asked)]
        built.add_routes([*routes, web.post("/batches/of-ones-own", asked)])
        return built

    monkeypatch.setattr("orchestrator.server.listening.build", with_action)


async def asked(
    http: Inside, method: str = "GET", path: str = "/api/asked", *, data: Any = None, **headers: str
) -> tuple[int, Mapping[str, Any]]:
    """Ask with these headers only; their names have underscores here."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.anybody.request(method, path, headers=sent, data=data, allow_redirects=False) as response:
        is_json = response.content_type == "application/json"
        body: Mapping[str, Any] = await response.json() if is_json else {}
        return response.status, body.get("error", body)


BEARER = {"Authorization": f"Bearer {TOKEN}"}


# -- where a request comes from ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.:{port}", ""]
)
async def test_a_name_that_is_not_this_servers_own_is_refused(http: Inside, host: str) -> None:
    port = http.url.rpartition(":")[2]
    status, error = await asked(http, **BEARER, Host=host.format(port=port))
    assert (status, error["code"]) == (400, "bad_request")


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
async def test_this_machines_names_for_itself_are_accepted(http: Inside, name: str) -> None:
    port = http.url.rpartition(":")[2]
    assert (await asked(http, **BEARER, Host=f"{name}:{port}"))[0] == 200


async def test_a_host_of_the_settings_is_accepted(
    serve_inside: Callable[..., AbstractAsyncContextManager[Inside]],
) -> None:
    settings = Settings(server=Server(hosts=("batch.example.org",)))
    async with serve_inside(settings) as http:
        assert (await asked(http, **BEARER, Host="batch.example.org"))[0] == 200
        origin = {"Host": "batch.example.org", "Origin": "https://batch.example.org"}
        assert (await asked(http, "POST", **BEARER, **origin))[0] == 200
        assert (await asked(http, **BEARER, Host="batch.example.org:1"))[0] == 400


@pytest.mark.parametrize(
    "head",
    [
        "GET /api/asked HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\n",
        "GET http://{host}/api/asked HTTP/1.1\r\nHost: {host}\r\n",
        "GET /api/asked HTTP/1.0\r\n",
    ],
)
async def test_a_request_without_one_plain_host_is_refused(http: Inside, head: str) -> None:
    answer = await raw(http, head.format(host=http.url.removeprefix("http://")))
    assert b" 400 " in answer.split(b"\r\n")[0]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://localhost"])
async def test_a_foreign_origin_is_refused_even_with_a_token(http: Inside, origin: str) -> None:
    status, error = await asked(http, "POST", **BEARER, Origin=origin)
    assert (status, error["message"]) == (403, "a page of another site made this request")
    assert (await asked(http, "POST", **BEARER, Origin=http.url))[0] == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    "headers", [{}, {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe", "Accept": "text/html"}]
)
async def test_a_page_of_another_site_can_fetch_and_frame_nothing(
    http: Inside, site: str, headers: Mapping[str, str]
) -> None:
    for path in ("/api/asked", "/page"):
        assert (await asked(http, path=path, **BEARER, **headers, Sec_Fetch_Site=site))[0] == 403


async def test_a_link_on_another_site_opens_a_page_but_no_data_and_no_action(http: Inside) -> None:
    link = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert (await asked(http, path="/page", **BEARER, **link, Accept="text/html"))[0] == 200
    assert (await asked(http, path="/api/asked", **BEARER, **link, Accept="text/html"))[0] == 403
    assert (await asked(http, "POST", path="/page", **BEARER, **link, Accept="text/html"))[0] == 403


async def test_the_health_check_holds_no_data_and_answers_under_any_name(http: Inside) -> None:
    async with http.anybody.get("/healthz", headers={"Host": "10.0.0.5"}) as response:
        assert (response.status, await response.text()) == (200, "ok\n")


# -- who asks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/api/asked", "/v1/models", "/metrics", "/events", "/nothing", "/static/x.js"])
async def test_nothing_else_is_told_to_whoever_has_no_token(http: Inside, path: str) -> None:
    for method in ("GET", "POST", "DELETE", "OPTIONS"):
        status, error = await asked(http, method, path)
        assert (status, error["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    "header", ["Bearer wrong", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer", f"Bearer é{TOKEN}", ""]
)
async def test_a_wrong_token_is_refused(http: Inside, header: str) -> None:
    assert (await asked(http, Authorization=header))[0] == 401


async def test_a_role_bounds_what_a_token_may_do(
    serve_inside: Callable[..., AbstractAsyncContextManager[Inside]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANN", RUNNER)
    monkeypatch.setenv("BEN", READER)
    tokens = {"ann": {"role": "run", "token_env": "ANN"}, "ben": {"role": "read", "token_env": "BEN"}}
    async with serve_inside(settings_from({"server": {"tokens": tokens}})) as http:
        for token, name, role, may_act in (
            (RUNNER, "ann", "run", 200),
            (READER, "ben", "read", 403),
            (TOKEN, "admin", "admin", 200),
        ):
            status, who = await asked(http, Authorization=f"Bearer {token}")
            assert (status, who["name"], who["role"]) == (200, name, role)
            own = "/batches/of-ones-own"
            assert (await asked(http, "POST", own, Authorization=f"Bearer {token}"))[0] == may_act
            only_admins = 200 if role == "admin" else 403
            assert (await asked(http, "POST", Authorization=f"Bearer {token}"))[0] == only_admins


# -- browsers ----------------------------------------------------------------------------------------------------------


async def cookie_of(http: Inside) -> str:
    async with http.anybody.get(f"/page?x=1&token={TOKEN}", headers=BROWSER, allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (303, "/page?x=1")
        assert response.headers["Referrer-Policy"] == "no-referrer"
        return response.headers["Set-Cookie"]


async def test_a_link_with_the_token_becomes_a_cookie_and_a_clean_url(http: Inside) -> None:
    cookie = await cookie_of(http)
    parts = set(cookie.split("; "))
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= parts
    assert "Secure" not in parts
    assert cookie.startswith(f"orchestrator-{http.url.rpartition(':')[2]}=")
    assert TOKEN not in cookie
    http.anybody.cookie_jar.clear()
    assert (await asked(http, Cookie=cookie.partition(";")[0]))[0] == 200
    assert (await asked(http, Cookie=cookie.partition(";")[0].replace("=", "=0")))[0] == 401


async def test_a_token_in_the_query_opens_pages_only(http: Inside) -> None:
    assert (await asked(http, path=f"/api/asked?token={TOKEN}", Accept="text/html"))[0] == 401
    assert (await asked(http, "POST", path=f"/page?token={TOKEN}", Accept="text/html"))[0] == 401


async def test_behind_https_the_cookie_is_secure(
    serve_inside: Callable[..., AbstractAsyncContextManager[Inside]],
) -> None:
    async with serve_inside(Settings(server=Server(hosts=("batch.example.org",)))) as http:
        headers = {**BROWSER, "Host": "batch.example.org"}
        async with http.anybody.get(f"/page?token={TOKEN}", headers=headers, allow_redirects=False) as response:
            assert "Secure" in response.headers["Set-Cookie"].split("; ")


async def test_an_action_with_a_cookie_needs_what_only_a_page_of_this_server_knows(http: Inside) -> None:
    cookie = (await cookie_of(http)).partition(";")[0]
    http.anybody.cookie_jar.clear()
    csrf = (await asked(http, Cookie=cookie))[1]["csrf"]
    form = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": cookie}
    for refused in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": f"{csrf}0"}, {"X-CSRF-Token": "é"}):
        assert (await asked(http, "POST", Cookie=cookie, **refused))[0] == 403
    assert (await asked(http, "POST", data="csrf=1", **form))[0] == 403
    assert (await asked(http, "POST", data=f"{{csrf={csrf}}}", Cookie=cookie, Content_Type="text/plain"))[0] == 403
    assert (await asked(http, "POST", Cookie=cookie, X_CSRF_Token=csrf))[0] == 200
    assert (await asked(http, "POST", data=f"csrf={csrf}", **form))[0] == 200


async def test_a_browser_without_a_cookie_gets_a_page_to_sign_in_that_leads_back(http: Inside) -> None:
    async with http.anybody.get("/page?x=%3Cb%3E", headers=BROWSER) as response:
        page = await response.text()
        assert (response.status, response.content_type) == (401, "text/html")
    assert 'value="/page?x=%3Cb%3E"' in page
    assert "refresh" not in page
    for token, status, place in (("wrong", 401, None), (TOKEN, 303, "/page?x=1")):
        form = {"token": token, "to": "/page?x=1"}
        async with http.anybody.post("/sign-in", data=form, headers=BROWSER, allow_redirects=False) as response:
            assert (response.status, response.headers.get("Location")) == (status, place)
    async with http.anybody.get("/page", headers=BROWSER) as response:
        assert response.status == 200
    async with http.anybody.post("/sign-out", headers=BROWSER, allow_redirects=False) as response:
        assert response.status == 403
    csrf = (await asked(http))[1]["csrf"]
    async with http.anybody.post("/sign-out", data={"csrf": csrf}, allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (303, "/sign-in")
    assert (await asked(http))[0] == 401


async def test_after_a_link_on_another_site_the_page_loads_itself_again(http: Inside) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    async with http.anybody.get("/page", headers={"Accept": "text/html", **link}) as response:
        assert '<meta http-equiv="refresh" content="0">' in await response.text()


@pytest.mark.parametrize(
    "place", ["https://evil.example", "//evil.example", "/\\evil.example", "/\r\nSet-Cookie: a=b", ""]
)
async def test_signing_in_leads_to_no_other_server(http: Inside, place: str) -> None:
    form = {"token": TOKEN, "to": place}
    async with http.anybody.post("/sign-in", data=form, allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (303, "/")


async def test_a_sign_in_that_another_site_sends_is_refused(http: Inside) -> None:
    assert (await asked(http, "POST", "/sign-in", data={"token": TOKEN}, Origin="http://evil.example"))[0] == 403


# -- what every response says ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/healthz", "/page", "/api/asked", "/nothing", "/sign-in", "/v1/nothing"])
async def test_every_response_forbids_scripts_frames_and_guesses(http: Inside, path: str) -> None:
    for client in (http.client, http.anybody):
        async with client.get(path, headers=BROWSER) as response:
            headers = response.headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Cache-Control"] == "no-store"
        assert headers["x-request-id"].startswith("req_")
        assert "Access-Control-Allow-Origin" not in headers
        assert headers["Server"] == "orchestrator"


async def test_errors_have_openais_shape_under_v1_and_ours_elsewhere(http: Inside) -> None:
    for path, keys in (("/v1/nothing", {"message", "type", "param", "code"}), ("/nothing", {"message", "code"})):
        status, error = await asked(http, path=path, **BEARER)
        assert (status, set(error)) == (404, keys)
    assert await asked(http, "DELETE", **BEARER) == (
        405,
        {"message": "Method Not Allowed", "code": "method_not_allowed"},
    )


async def raw(http: Inside, head: str) -> bytes:
    """Send a request as these bytes with the admin's token, and return everything that the server sends."""
    host, _, port = http.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{head}Authorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


# -- bodies and headers that no browser sends --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/x-www-form-urlencoded", b"token=\xff\xfe"),
        ("application/x-www-form-urlencoded; charset=nonsense", b"token=abc"),
        ("application/x-www-form-urlencoded; charset=zlib", b"token=abc"),
        ("multipart/form-data", b"token=abc"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nabc"),
        ("application/json", b"{}"),
    ],
)
async def test_a_form_that_cannot_be_read_holds_no_token_and_is_no_failure(
    http: Inside, kind: str, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with http.anybody.post("/sign-in", data=body, headers={**BROWSER, "Content-Type": kind}) as response:
        assert response.status == 401
    assert not caplog.records


async def test_a_csrf_token_that_is_not_text_is_refused(http: Inside) -> None:
    async with http.anybody.get(f"/?token={TOKEN}", headers=BROWSER) as response:
        assert response.status == 200
    assert (await asked(http, "POST", X_CSRF_Token="\udcff"))[0] == 403  # a byte that is not UTF-8
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    assert (await asked(http, "POST", data=b"csrf=\xff", **form))[0] == 403


@pytest.mark.parametrize("path", ["/api/runs/" + "9" * 5000, "/runs?before=" + "0" * 20 + "9" * 5000])
async def test_a_number_of_any_length_is_answered_without_a_failure(http: Inside, path: str) -> None:
    async with http.client.get(path, headers={"Accept": "text/html"}) as response:
        assert response.status in {400, 404}
        assert "unexpected" not in await response.text()
