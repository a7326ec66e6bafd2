"""Requests that leave the machine go by the proxy that the environment names, and its password is shown to nobody."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest
from yarl import URL

from orchestrator import Policy
from orchestrator.domain.errors import EndpointLost, EndpointRefused, EndpointSilent, OrchestratorError, RequestFailed
from orchestrator.domain.notification import Event, Notification, NotificationFailed
from orchestrator.endpoints import HttpEndpoint
from orchestrator.endpoints.api_calls import ApiTimeouts
from orchestrator.endpoints.hf_api import Management
from orchestrator.endpoints.reach import served_models, why_silent
from orchestrator.hooks.webhook import Webhook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.usefixtures("each_http_client")

USER, PASSWORD = "someone", "p4ssw0rd-of-the-proxy"
NEWS = Notification("msg_1", Event.FINISHED, 12, "talk", "finished", b'{"run":12}')
QUICK = ApiTimeouts(one=5.0, whole=0.5)


class Proxy:
    """A proxy that answers everything by itself, and remembers what it was asked."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.status, self.body = 200, b'["an answer"]'

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard.append((await reader.readuntil(b"\r\n\r\n")).decode())
        head = f"HTTP/1.1 {self.status} Said\r\nContent-Length: {len(self.body)}\r\n\r\n"
        writer.write(head.encode() + self.body)
        writer.close()
        await writer.wait_closed()

    @property
    def asked(self) -> list[str]:
        return [" ".join(head.split()[:2]) for head in self.heard]


@pytest.fixture
async def proxy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    """The environment names it for everything."""
    found = Proxy()
    async with await asyncio.start_server(found.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://{USER}:{PASSWORD}@127.0.0.1:{port}")
        yield found


async def asked(url: str) -> object:
    async with HttpEndpoint(url).control() as control, control.connect(Policy()) as data:
        return await data.ask([b'"text"'])


async def test_a_remote_server_is_reached_through_the_proxy_with_its_credentials(proxy: Proxy) -> None:
    assert await asked("http://model.invalid/answer") == [["an answer"]]
    assert proxy.asked == ["POST http://model.invalid/answer"]
    assert "proxy-authorization: basic" in proxy.heard[0].lower()


async def test_a_local_or_exempt_server_is_reached_directly(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EndpointLost, match=r"cannot connect to 127\.0\.0\.1:9 \(Connection refused\)"):
        await asked("http://127.0.0.1:9/")
    monkeypatch.setenv("NO_PROXY", ".invalid")
    with pytest.raises(EndpointLost, match=r"cannot connect to model\.invalid:80 \(the name does not resolve"):
        await asked("http://model.invalid/")
    assert proxy.asked == []


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_requires_a_user_stops_the_run_and_names_the_variable(proxy: Proxy, scheme: str) -> None:
    proxy.status = 407
    with pytest.raises(EndpointRefused, match=f"407 .*{scheme.upper()}_PROXY has to name a user"):
        await asked(f"{scheme}://model.invalid/")


async def test_a_server_that_the_proxy_cannot_reach_is_lost(proxy: Proxy) -> None:
    proxy.status = 502
    with pytest.raises(EndpointLost, match=r"the proxy answered 502 .* to CONNECT"):
        await asked("https://model.invalid/")
    assert proxy.asked == ["CONNECT model.invalid:443"]


async def test_an_unreachable_proxy_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://{USER}:{PASSWORD}@127.0.0.1:9")
    with pytest.raises(EndpointLost, match=r"cannot connect to the proxy 127\.0\.0\.1:9 \(Connection refused\)"):
        await asked("http://model.invalid/")


async def test_a_proxys_password_is_hidden_in_messages(proxy: Proxy) -> None:
    proxy.status, proxy.body = 400, f"who is {USER}:{PASSWORD}?".encode()
    with pytest.raises(RequestFailed) as raised:
        await asked("http://model.invalid/")
    assert PASSWORD not in str(raised.value)
    assert "***" in str(raised.value)


async def test_the_control_plane_uses_the_proxy_and_reports_problems_at_once(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    proxy.status = 503
    url = "https://api.invalid/v2"
    with caplog.at_level(logging.WARNING), pytest.raises(EndpointSilent, match="the proxy answered 503") as raised:
        async with Management.open("acme", api_url=url, timeouts=QUICK) as management:
            await management.get("one")
    assert set(proxy.asked) == {"CONNECT api.invalid:443"}
    assert "hf_of_a_test" not in "".join(proxy.heard)
    assert [record.message for record in caplog.records] == [
        "cannot reach Hugging Face, trying again: the proxy answered 503 (Said) to CONNECT"
    ]
    assert PASSWORD not in str(raised.value) + caplog.text
    with pytest.raises(OrchestratorError):
        async with Management.open(None, api_url=url, timeouts=QUICK):
            pass
    assert proxy.asked[-1] == "CONNECT huggingface.co:443"


async def test_the_check_whether_a_server_answers_uses_the_proxy(proxy: Proxy) -> None:
    url = URL("http://model.invalid/x")
    assert await why_silent(url, None, {"Authorization": "Bearer secret"}) is None
    assert await why_silent(url, "/health", {"Authorization": "Bearer secret"}) is None
    assert await why_silent(url, "http://other.invalid/health", {"Authorization": "Bearer secret"}) is None
    assert proxy.asked == [
        "GET http://model.invalid/",
        "GET http://model.invalid/health",
        "GET http://other.invalid/health",
    ]
    assert ["Bearer secret" in head for head in proxy.heard] == [False, True, False]
    proxy.status = 502
    assert await why_silent(url, None, {}) == "GET / is answered 502 through the proxy"
    assert await why_silent(url, "/health", {}) == "GET /health is answered 502"
    proxy.status, proxy.body = 200, b'{"data": [{"id": "m"}, {}]}'
    assert await served_models(url / "v1/chat/completions", {}) == ["m"]
    assert proxy.asked[-1] == "GET http://model.invalid/x/v1/models"


async def test_a_webhook_uses_the_proxy(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    await Webhook("http://chat.invalid/hook").notify(NEWS)
    assert proxy.asked == ["POST http://chat.invalid/hook"]
    monkeypatch.setenv("HTTP_PROXY", f"socks5://{USER}:{PASSWORD}@127.0.0.1:9")
    with pytest.raises(NotificationFailed, match="HTTP_PROXY must be") as raised:
        await Webhook("http://chat.invalid/hook").notify(NEWS)
    assert PASSWORD not in str(raised.value)
