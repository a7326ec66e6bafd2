"""Calls of a provider's API: sessions, where secrets may be sent, and repeating a call until it is answered."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import aiohttp
import anyio

from orchestrator.domain.errors import EndpointSilent
from orchestrator.domain.policy import Backoff
from orchestrator.domain.urls import is_loopback

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from yarl import URL

T = TypeVar("T")
PROBE_TIMEOUT = 5.0  # seconds for a look whether a server answers


@dataclass(frozen=True, slots=True)
class ApiTimeouts:
    """Seconds for one try of a call, and for all its tries together, including the pauses between them."""

    one: float = 10.0
    whole: float = 30.0
    backoff: Backoff = field(default_factory=lambda: Backoff(first=0.25, cap=5.0))


class Trouble(Exception):
    """One try failed, but the next may succeed. `wait`: the seconds that the API asks us to wait; None: no answer."""

    def __init__(self, said: str, wait: float | None = None) -> None:
        super().__init__(said)
        self.wait = wait


class ApiBusy(EndpointSilent):
    """The API answered that it cannot do it now. `wait`: the seconds that it asks us to wait."""

    def __init__(self, message: str, wait: float) -> None:
        super().__init__(message)
        self.wait = wait


def session_of_calls() -> aiohttp.ClientSession:
    """Return a session for calls, each of which has a deadline of its own."""
    return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=None))


def session_of_probes() -> aiohttp.ClientSession:
    """Return a session for looks whether a server answers."""
    timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT)
    return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), timeout=timeout)


def keeps_secrets(url: URL) -> bool:
    """Whether a secret may be sent to this URL: it is encrypted, or on this machine."""
    return url.scheme == "https" or (url.scheme == "http" and is_loopback(url.host))


async def until_answered(
    call: str, one_try: Callable[[int], Awaitable[T]], timeouts: ApiTimeouts, *, tries: int | None = None
) -> T:
    """Return what `one_try`, which gets its number, returns; it raises `Trouble` if another one may help.

    Raises `EndpointSilent` when the time or the tries are up; `ApiBusy` if the last try was answered.
    """
    tried, last, wait = 0, "no answer", None
    with anyio.move_on_after(timeouts.whole):
        while True:
            tried += 1
            try:
                return await one_try(tried)
            except Trouble as trouble:
                last, wait = str(trouble), trouble.wait
            if tried == tries:
                break
            await anyio.sleep(max(timeouts.backoff.delay(tried, random.random()), wait or 0.0))
    said = f"{call}: no proper answer in {tried} tries, the last one: {last}; "
    said += "run the same command again when the service answers"
    raise EndpointSilent(said) if wait is None else ApiBusy(said, wait)
