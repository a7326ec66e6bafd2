from __future__ import annotations

import base64
import hashlib
import time

import anyio
import pytest

from orchestrator import Webhook
from orchestrator.domain.notification import Event, Notification, NotificationFailed
from orchestrator.hooks import webhook
from tests.hooks.receiver import receiver

NEWS = Notification("msg_1", Event.FINISHED, 12, "talk", "finished", b'{"run":12}')
KEY = b"0123456789abcdef0123456789abcdef"
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"


def signature_by_hand(key: bytes, id_: str, timestamp: str, body: bytes) -> str:
    """Return HMAC-SHA256 spelled out (RFC 2104) over the text that Standard Webhooks signs: id.timestamp.body."""
    block = key.ljust(64, b"\0")
    message = f"{id_}.{timestamp}.".encode() + body
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + message).digest()
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block) + inner).digest()
    return "v1," + base64.b64encode(outer).decode()


def test_the_signature_matches_the_example_of_the_specification() -> None:
    """https://github.com/standard-webhooks/standard-webhooks, specification and tests of the libraries."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = signature_by_hand(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_the_body_is_signed_with_the_secret_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    async with receiver() as server:
        await Webhook(server.url, secret_env="HOOK_SECRET", headers={"X-Team": "night"}).notify(NEWS)
        (got,) = server.received
    assert got.body == NEWS.body
    assert got.headers["content-type"] == "application/json"
    assert got.headers["x-team"] == "night"
    assert got.headers["webhook-id"] == "msg_1"
    assert abs(int(got.headers["webhook-timestamp"]) - time.time()) < 60
    timestamp = got.headers["webhook-timestamp"]
    assert got.headers["webhook-signature"] == signature_by_hand(KEY, "msg_1", timestamp, NEWS.body)


async def test_the_url_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    hook = Webhook(url_env="HOOK_URL")
    assert hook.describe() == "webhook to the URL in HOOK_URL"
    monkeypatch.delenv("HOOK_URL", raising=False)
    with pytest.raises(NotificationFailed, match="the variable HOOK_URL holds no URL"):
        await hook.notify(NEWS)
    async with receiver() as server:
        monkeypatch.setenv("HOOK_URL", f"{server.url}\n")
        await hook.notify(NEWS)
        assert [got.body for got in server.received] == [NEWS.body]
    with pytest.raises(ValueError, match="url= or url_env=, not both"):
        Webhook("https://h/", url_env="HOOK_URL")


async def test_without_a_secret_nothing_is_signed() -> None:
    async with receiver() as server:
        await Webhook(server.url).notify(NEWS)
        assert "webhook-signature" not in server.received[0].headers


async def test_a_busy_receiver_gets_the_same_id_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "_FIRST", 0.01)
    async with receiver((503, {}), (429, {"Retry-After": "0"}), (500, {})) as server:
        await Webhook(server.url).notify(NEWS)
        assert [got.headers["webhook-id"] for got in server.received] == ["msg_1"] * 4


async def test_a_receiver_that_never_accepts_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "_FIRST", 0.01)
    async with receiver(*[(503, {})] * 1000) as server:
        with pytest.raises(NotificationFailed, match=r"answered 503, \d+ times; given up after 0\.3 s"):
            await Webhook(server.url, timeout=0.3).notify(NEWS)
        assert len(server.received) > 1


async def test_a_missing_receiver_is_given_up_in_time(unused_tcp_port: int) -> None:
    with pytest.raises(NotificationFailed, match=r"no connection \(ClientConnector"):
        await Webhook(f"http://127.0.0.1:{unused_tcp_port}/s3cret", timeout=0.2).notify(NEWS)


async def test_a_silent_receiver_is_given_up_in_time() -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as silent:
        port = silent.extra(anyio.abc.SocketAttribute.local_port)
        with pytest.raises(NotificationFailed, match=r"given up after 0\.2 s"):
            await Webhook(f"http://127.0.0.1:{port}/", timeout=0.2).notify(NEWS)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed_and_the_report_is_sent_nowhere_else(status: int) -> None:
    async with receiver() as other, receiver((status, {"Location": other.url})) as server:
        with pytest.raises(NotificationFailed, match=f"answered {status}; redirects are not followed"):
            await Webhook(server.url).notify(NEWS)
        assert (len(server.received), other.received) == (1, [])


async def test_a_refusal_is_not_repeated() -> None:
    async with receiver((401, {})) as server:
        with pytest.raises(NotificationFailed, match="answered 401"):
            await Webhook(server.url).notify(NEWS)
        assert len(server.received) == 1


@pytest.mark.parametrize(("secret", "says"), [("", "HOOK_SECRET is not set"), ("no base64!", "has to be base64")])
async def test_without_a_valid_secret_nothing_is_sent(monkeypatch: pytest.MonkeyPatch, secret: str, says: str) -> None:
    monkeypatch.setenv("HOOK_SECRET", secret)
    async with receiver() as server:
        with pytest.raises(NotificationFailed, match=says) as caught:
            await Webhook(server.url, secret_env="HOOK_SECRET").notify(NEWS)
        assert server.received == []
    assert not secret or secret not in str(caught.value)


def test_the_display_of_a_webhook_shows_no_secret() -> None:
    hook = Webhook("https://chat.example.org/hooks/s3cret", headers={"Authorization": "Bearer s3cret"})
    assert hook.describe() == "webhook to chat.example.org"
    assert "s3cret" not in repr(hook)


@pytest.mark.parametrize("url", ["", "chat.example.org", "ftp://x/", "https://", "http://[::1"])
def test_an_invalid_webhook_url_is_refused_in_the_job_file(url: str) -> None:
    with pytest.raises(ValueError, match="begins with https://"):
        Webhook(url)
