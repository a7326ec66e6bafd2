"""Webhook: posts the report to a URL, signed as in Standard Webhooks (https://www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import random
import time
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING

import anyio
from yarl import URL

from orchestrator.domain.errors import UsageError
from orchestrator.domain.notification import NotificationFailed
from orchestrator.domain.proxies import proxy_for
from orchestrator.domain.secrets import usable_headers

if TYPE_CHECKING:
    from collections.abc import Mapping

    import aiohttp

    from orchestrator.domain.notification import Notification

_EACH = 15.0  # seconds for one try
_FIRST, _LONGEST = 0.5, 10.0  # seconds between tries: the first time, and at most
_PREFIX = "whsec_"
_BUSY = {408, 425, 429}


@dataclass(frozen=True, slots=True)
class Webhook:
    """Posts the report as JSON to `url`. The hook counts as notified once it answers 2xx. Redirects are not followed.

    `url_env`: the environment variable that holds the URL, in place of `url`. The ledger keeps no URL of a webhook, so
    only this way can a submitted run do without its job file.
    `secret_env`: the environment variable that holds the secret, in base64, with or without the prefix `whsec_`. If it
    is given, every request carries a `webhook-signature`; `webhook-id` and `webhook-timestamp` are always sent. The id
    stays the same if the same notification is sent again, so a receiver can recognize it.
    `headers`: additional headers. `timeout`: seconds for all tries together; 5xx, 408, 425, 429 and connection errors
    are retried.
    """

    url: str = field(default="", repr=False)  # the URLs of chat servers are secrets
    _: KW_ONLY
    url_env: str | None = None
    secret_env: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 60.0

    def __post_init__(self) -> None:
        if self.url_env is None:
            _check_url(self.url)
        elif self.url:
            raise ValueError("a webhook has url= or url_env=, not both")
        object.__setattr__(self, "headers", usable_headers(self.headers))

    def describe(self) -> str:
        """The host alone, or the variable that holds the URL."""
        return f"webhook to {URL(self.url).host}" if self.url_env is None else f"webhook to the URL in {self.url_env}"

    async def notify(self, notification: Notification) -> None:
        """Post until the receiver accepts it. Raises `NotificationFailed` if it never does."""
        import aiohttp

        url, secret = self._url(), self._secret()
        tries, said, wait = 0, "", _FIRST
        timeout = aiohttp.ClientTimeout(total=min(_EACH, self.timeout))
        with anyio.move_on_after(self.timeout):
            async with aiohttp.ClientSession(timeout=timeout, proxy=_proxy(url)) as session:
                while True:
                    tries += 1
                    said, asked_for = await self._try(session, url, notification, secret)
                    if not said:
                        return
                    # spread, because many may have been refused at once
                    await anyio.sleep(max(asked_for, wait * random.uniform(0.5, 1.0)))
                    wait = min(wait * 2, _LONGEST)
        often = "" if tries == 1 else f", {tries} times"
        raise NotificationFailed(f"{said or 'no answer'}{often}; given up after {self.timeout:g} s")

    async def _try(
        self, session: aiohttp.ClientSession, url: str, notification: Notification, secret: bytes | None
    ) -> tuple[str, float]:
        """Post once. Return "" if it was accepted; else the error, and the seconds the server asks us to wait.

        Raises `NotificationFailed` if another try would end in the same way. No text contains the URL.
        """
        import aiohttp

        try:
            async with session.post(
                url, data=notification.body, headers=self._headers(notification, secret), allow_redirects=False
            ) as response:
                status, after = response.status, response.headers.get("Retry-After", "")
        except (aiohttp.InvalidURL, ValueError) as error:
            raise NotificationFailed("its URL or headers cannot be sent") from error
        except TimeoutError:
            return "no answer in time", 0.0
        except (aiohttp.ClientError, OSError) as error:
            return f"no connection ({type(error).__name__})", 0.0
        if 200 <= status < 300:
            return "", 0.0
        if status >= 500 or status in _BUSY:
            return f"answered {status}", float(after) if after.isdecimal() else 0.0
        redirected = "; redirects are not followed" if 300 <= status < 400 else ""
        raise NotificationFailed(f"answered {status}{redirected}")

    def _url(self) -> str:
        if self.url_env is None:
            return self.url
        url = os.environ.get(self.url_env, "").strip()
        try:
            _check_url(url)
        except ValueError as error:
            raise NotificationFailed(f"the variable {self.url_env} holds no URL: {error}") from error
        return url

    def _headers(self, notification: Notification, secret: bytes | None) -> dict[str, str]:
        now = str(int(time.time()))
        headers = {"Content-Type": "application/json", "User-Agent": "orchestrator", **self.headers}
        headers |= {"webhook-id": notification.id, "webhook-timestamp": now}
        if secret is not None:
            signed = hmac.new(secret, f"{notification.id}.{now}.".encode() + notification.body, hashlib.sha256).digest()
            headers["webhook-signature"] = f"v1,{base64.b64encode(signed).decode()}"
        return headers

    def _secret(self) -> bytes | None:
        if self.secret_env is None:
            return None
        secret = os.environ.get(self.secret_env, "")
        if not secret:
            raise NotificationFailed(f"{self.secret_env} is not set, so nothing can be signed")
        try:
            return base64.b64decode(secret.strip().removeprefix(_PREFIX), validate=True)
        except binascii.Error as error:
            raise NotificationFailed(f"what {self.secret_env} holds is no secret: it has to be base64") from error


def _check_url(text: str) -> None:
    """`ValueError`, which does not show it, for anything but a URL of a host."""
    try:
        url = URL(text)
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError("a webhook's url begins with https:// or http:// and names a host")


def _proxy(url: str) -> str | None:
    try:
        return proxy_for(url, os.environ)
    except UsageError as error:
        raise NotificationFailed(str(error)) from error
