"""The HTTP client of a data plane: aiohttp, or the faster `ry` if it does the same.

A data plane sends through an `HttpClient`: aiohttp (`aiohttp_client.py`), or the optional `ry` (`fast_client.py`)
if `is_plain` (`domain/http_client.py`) says that both do the same. `ry` trusts other certificates than OpenSSL, so TLS
stays with aiohttp; and proxies too. The threads of `ry` do not survive a fork, so a forked process asks with aiohttp,
and so do threads other than the main one, in which it has crashed. aiohttp takes long to import: whoever asks with `ry`
does not need it, not even for failures.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, asynccontextmanager
from contextvars import ContextVar
from importlib.metadata import version
from importlib.util import find_spec
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Protocol

from orchestrator.domain.http_client import ChosenClient, is_plain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from orchestrator.domain.http_client import Reply, Watch
    from orchestrator.domain.policy import Policy
    from orchestrator.wires.wire import Body

_chosen: ContextVar[ChosenClient] = ContextVar("http_client", default="auto")

_AT_START = 16  # descriptors; it takes about half as many
_used_in: int | None = None  # the process in which the threads of `ry` run: a fork has its memory and not its threads


class HttpClient(Protocol):
    """Sends requests with the headers and timeouts of one data plane. Follows no redirect and keeps no cookie."""

    async def send(self, url: str, body: Body, most: int, most_of_error: int, watch: Watch | None = None) -> Reply:
        """Send one request once.

        At most `most` bytes of a 200 are read, and `most_of_error` of any other answer. If the answer is longer, its
        connection is closed. `watch` is called with each part of a 200 as it comes. Without an answer, raises
        `RequestFailed`, `EndpointLost`, `EndpointRefused` or `NoRoom`.
        """
        ...


def choose_client(chosen: ChosenClient) -> None:
    """From now on, use this client in this task and in those that it starts."""
    _chosen.set(chosen)


def described_client(chosen: ChosenClient, *, main: bool = True) -> str:
    """Return which client asks endpoints if this one is chosen, in words for the user. Reads the disk.

    `main`: whether it asks in the main thread.
    """
    aiohttp = f"aiohttp {version('aiohttp')}"
    if chosen == "aiohttp":
        return f'{aiohttp}, because of http_client = "aiohttp"'
    if not main:
        return f"{aiohttp}; the faster one works in the main thread alone"
    if not _has_fast_client():
        return f"{aiohttp}; the extra `fast` adds a faster one for http://"
    return f"ry {version('ry')} for http:// without a proxy, {aiohttp} for the rest"


def _has_fast_client() -> bool:
    started = _used_in == os.getpid()
    return (started or (_used_in is None and _has_descriptors())) and find_spec("ry") is not None


def _may_use_fast_client() -> bool:
    """Whether `ry` is there, and this is the thread in which it works.

    In a notebook, where each run has a thread of its own, `ry` 0.0.105 has ended the process of the second run.
    """
    return current_thread() is main_thread() and _has_fast_client()


def _has_descriptors() -> bool:
    """Whether there are enough for the threads of `ry`: without them, its start would end the process."""
    with ExitStack() as taken:
        try:
            for _ in range(_AT_START):
                taken.callback(os.close, os.dup(0))
        except OSError:
            return False
    return True


@asynccontextmanager
async def open_client(
    url: str, headers: Mapping[str, str], proxy: str | None, policy: Policy
) -> AsyncIterator[HttpClient]:
    """Open a client for this server; idle connections are closed when the block ends."""
    global _used_in  # noqa: PLW0603 - there is one set of threads in a process
    if _chosen.get() == "auto" and is_plain(url, proxy) and _may_use_fast_client():
        from orchestrator.endpoints.fast_client import FastClient

        _used_in = os.getpid()
        async with FastClient(headers, policy) as fast:
            yield fast
        return
    from orchestrator.endpoints.aiohttp_client import AiohttpClient

    async with AiohttpClient.open(headers, proxy, policy) as client:
        yield client
