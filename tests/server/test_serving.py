"""`serve --http`: the server begins, answers and ends with the daemon."""

from __future__ import annotations

import signal
import urllib.request
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.commands import Workplace
    from tests.server.conftest import HttpServer, Inside


def test_the_daemon_serves_http_until_it_is_stopped(http_server: HttpServer) -> None:
    with urllib.request.urlopen(f"{http_server.url}/healthz") as response:
        assert response.read() == b"ok\n"
    http_server.process.send(signal.SIGTERM)
    assert http_server.process.end().code == 0


def test_a_port_in_use_is_one_line_and_nothing_begins(http_server: HttpServer, workplace: Workplace) -> None:
    place = http_server.url.removeprefix("http://")
    ended = workplace.run("serve", "--http", place)
    assert ended.code == 2
    assert f"cannot listen on {place}: " in ended.line
    assert workplace.count("process", "serves") == 1


async def test_only_the_health_check_needs_no_token(http: Inside) -> None:
    async with http.anybody.get("/healthz") as response:
        assert (response.status, await response.text()) == (200, "ok\n")
    async with http.anybody.get("/v1/models") as response:
        assert response.status == 401
        assert (await response.json())["error"]["code"] == "invalid_api_key"
    async with http.client.get("/nothing/here") as response:
        assert response.status == 404
        assert (await response.json())["error"] == {"message": "Not Found", "code": "not_found"}
