"""Where a worker of ours listens: a Unix socket that only this user can open, or a port that wants a token."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import aiohttp

from orchestrator.domain.worker import TOKEN_ENV

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class WorkerPlace(Protocol):
    """A place for one worker at a time."""

    @property
    def environment(self) -> Mapping[str, str]:
        """What the worker gets in its environment for it."""
        ...

    @contextmanager
    def opened(self) -> Iterator[tuple[Sequence[str], Sequence[int]]]:
        """Yield the worker's arguments for it, and the descriptors that it inherits."""
        ...

    def session(self, seconds: float) -> aiohttp.ClientSession:
        """Return a session whose relative URLs lead to the worker; each request ends within so many seconds."""
        ...


@dataclass(frozen=True, slots=True)
class UnixPlace:
    """A socket in a private folder."""

    path: str
    environment: Mapping[str, str] = field(default_factory=dict)

    @contextmanager
    def opened(self) -> Iterator[tuple[Sequence[str], Sequence[int]]]:
        """Yield the path."""
        yield [f"--socket={self.path}"], ()

    def session(self, seconds: float) -> aiohttp.ClientSession:
        """Connect to the socket."""
        timeout = aiohttp.ClientTimeout(total=seconds)
        return aiohttp.ClientSession(
            "http://worker", connector=aiohttp.UnixConnector(self.path, limit=0), timeout=timeout
        )


class PortPlace:
    """A port of this machine's address `host`, a new one for each worker."""

    def __init__(self, host: str, token: str) -> None:
        self._host = host
        self._token = token
        self.url = ""  # of the latest worker
        self.environment: Mapping[str, str] = {TOKEN_ENV: token}

    @contextmanager
    def opened(self) -> Iterator[tuple[Sequence[str], Sequence[int]]]:
        """Bind a port. The worker listens on our socket, so no other program can take the port before."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        with socket.socket(family) as bound:
            bound.bind((self._host, 0))
            host = f"[{self._host}]" if ":" in self._host else self._host
            self.url = f"http://{host}:{bound.getsockname()[1]}"
            yield [f"--listen-on={bound.fileno()}"], [bound.fileno()]

    def session(self, seconds: float) -> aiohttp.ClientSession:
        """Connect to the latest worker."""
        return session_at(self.url, self._token, seconds)


def session_at(url: str, token: str, seconds: float) -> aiohttp.ClientSession:
    """Return a session with a worker at this URL, which wants the token."""
    return aiohttp.ClientSession(
        url,
        connector=aiohttp.TCPConnector(limit=0),
        headers={"Authorization": f"Bearer {token}"},
        timeout=aiohttp.ClientTimeout(total=seconds),
        cookie_jar=aiohttp.DummyCookieJar(),
    )
