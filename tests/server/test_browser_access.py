"""Signing in, and pages of other sites, in a real browser: what it sends decides what the server may trust."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.server.browsing import in_chromium, opened, signed_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.async_api import Browser

    from tests.server.conftest import HttpServer

pytestmark = in_chromium

ELSEWHERE = """<!doctype html><title>elsewhere</title>
<a href="{url}/queue">link</a>
<form method="post" action="{url}/sign-out"><button id="action">an action</button></form>
<form method="post" action="{url}/sign-in"><input name="token" value="{token}"><button id="sign-in">in</button></form>
<iframe src="{url}/"></iframe>"""


@contextmanager
def another_site(server: HttpServer) -> Iterator[int]:
    """Serve a page that tries what a malicious one would; yield its port."""
    page = ELSEWHERE.format(url=server.url, token=server.token).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as site:
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield site.server_port
        finally:
            site.shutdown()
            thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"], ids=["same-site", "cross-site"])
async def test_a_page_of_another_site_can_link_here_and_do_nothing_else(
    chromium: Browser, http_server: HttpServer, host: str
) -> None:
    with another_site(http_server) as port:
        async with signed_in(chromium, http_server) as context:
            page = await context.new_page()
            answered: list[tuple[str, str, int]] = []
            page.on("response", lambda got: answered.append((got.request.method, got.url, got.status)))
            await page.goto(f"http://{host}:{port}/")
            assert ("GET", f"{http_server.url}/", 403) in answered  # the frame
            for button, path in (("action", "/sign-out"), ("sign-in", "/sign-in")):
                await page.goto(f"http://{host}:{port}/")
                await page.click(f"#{button}")
                await page.wait_for_url(f"{http_server.url}{path}")
                assert ("POST", f"{http_server.url}{path}", 403) in answered
            await page.goto(f"http://{host}:{port}/")
            await page.click("a")
            await page.wait_for_selector("nav")  # signed in, also where the link itself came without the cookie
            assert page.url == f"{http_server.url}/queue"


async def test_whoever_has_the_token_signs_in_where_they_wanted_to_go(
    chromium: Browser, http_server: HttpServer
) -> None:
    context = await chromium.new_context()
    tab = await opened(context, f"{http_server.url}/runs?x=1")
    assert await tab.shortcomings() == []
    await tab.page.fill("#token", "not the token")
    await tab.page.keyboard.press("Enter")
    await tab.page.wait_for_selector("[role=alert]")
    await tab.page.fill("#token", http_server.token)
    await tab.page.keyboard.press("Enter")
    await tab.page.wait_for_selector("nav")
    assert tab.page.url == f"{http_server.url}/runs?x=1"
    (cookie,) = await context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert await tab.page.evaluate("document.cookie") == ""
    await context.close()
