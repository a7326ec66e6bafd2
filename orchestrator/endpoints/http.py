"""HttpEndpoint: a server that somebody else keeps running."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp
import anyio
from yarl import URL

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import UsageError
from orchestrator.wires import failures
from orchestrator.wires.huggingface import JSON_TYPE, HuggingFaceWire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from orchestrator.domain.policy import Policy

_PROBE_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class HttpEndpoint:
    """A server of the Hugging Face shape: POST `{"inputs": ...}` to `url`.

    `token_env`: name of the environment variable that holds the bearer token; the token itself is never stored.
    `headers`: sent with every request. `parameters`: sent as `parameters` unless a request brings its own.
    `lists`: whether inputs travel as lists; by default they do when `batch_size` is above 1.
    `model`: names the model behind the URL, so that answers stay valid when the server moves; without it the URL does.
    `health`: a path or URL that answers 200 once the server is ready; without it, accepting a connection is enough.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    token_env: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    lists: bool | None = None
    model: str | None = None
    health: str | None = None
    startup_timeout: float = 300.0

    def __post_init__(self) -> None:
        parsed = URL(self.url)
        if parsed.scheme not in {"http", "https"} or not parsed.host:
            raise ValueError(f"HttpEndpoint needs a URL like http://host:8080/, not {self.url!r}")
        if parsed.user or parsed.password:
            raise ValueError("a URL must not hold a password; put a token into an environment variable: token_env=...")

    @property
    def name(self) -> str:
        """The URL without its query, which may hold what nobody else should see."""
        return str(URL(self.url).with_query(None))

    def identity(self, policy: Policy) -> Mapping[str, object]:
        """Model (or URL), parameters and shape of the wire."""
        return {
            "kind": "http",
            "model": self.model or self.url,
            "wire": "huggingface",
            "parameters": dict(self.parameters),
            "lists": self._wire(policy).lists,
        }

    @asynccontextmanager
    async def control(self) -> AsyncIterator[_HttpControl]:
        """Nothing to open: the server is not ours. A missing token is a `UsageError` before anything is waited for."""
        self._headers()
        yield _HttpControl(self)

    def _wire(self, policy: Policy) -> HuggingFaceWire:
        lists = (policy.batch_size or 1) > 1 if self.lists is None else self.lists
        if not lists and (policy.batch_size or 1) > 1:
            raise UsageError(
                f"{self.name} takes no lists (lists=False), so policy.batch_size cannot be {policy.batch_size}"
            )
        return HuggingFaceWire(self.parameters, lists)

    def _headers(self) -> dict[str, str]:
        if self.token_env is None:
            return dict(self.headers)
        token = os.environ.get(self.token_env)
        if not token:
            raise UsageError(f"the token for {self.name} is missing: set the environment variable {self.token_env}")
        return {**self.headers, "Authorization": f"Bearer {token}"}


class _HttpControl:
    """Not ours to wake or to pause: not using it is as paused as it gets."""

    def __init__(self, endpoint: HttpEndpoint) -> None:
        self._endpoint = endpoint
        self._in_use = False

    async def resume(self) -> None:
        self._in_use = True

    async def pause(self) -> None:
        self._in_use = False

    async def state(self) -> EndpointState:
        if not self._in_use:
            return EndpointState.PAUSED
        answers = await (self._accepts() if self._endpoint.health is None else self._is_healthy(self._endpoint.health))
        return EndpointState.AWAKE if answers else EndpointState.STARTING

    async def _accepts(self) -> bool:
        url = URL(self._endpoint.url)
        try:
            with anyio.fail_after(_PROBE_TIMEOUT):
                async with await anyio.connect_tcp(str(url.host), int(url.port or 0)):
                    return True
        except (OSError, TimeoutError):
            return False

    async def _is_healthy(self, health: str) -> bool:
        timeout = aiohttp.ClientTimeout(total=_PROBE_TIMEOUT)
        url = URL(self._endpoint.url).join(URL(health))
        headers = self._endpoint._headers() if url.origin() == URL(self._endpoint.url).origin() else {}  # noqa: SLF001 - its own
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(url, headers=headers, allow_redirects=False) as response,
            ):
                return response.status == 200  # noqa: PLR2004 - OK
        except (aiohttp.ClientError, TimeoutError):
            return False

    @asynccontextmanager
    async def connect(self, policy: Policy) -> AsyncIterator[_HttpData]:
        endpoint = self._endpoint
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=policy.timeout),
            headers={"Content-Type": JSON_TYPE} | endpoint._headers(),  # noqa: SLF001 - its own
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as session:
            yield _HttpData(session, endpoint, policy)


class _HttpData:
    def __init__(self, session: aiohttp.ClientSession, endpoint: HttpEndpoint, policy: Policy) -> None:
        self._session = session
        self._url = URL(endpoint.url)
        self._name = endpoint.name
        self._wire = endpoint._wire(policy)  # noqa: SLF001 - its own
        self.lanes = None
        self.batch_size = policy.batch_size or 1

    async def ask(self, requests: Sequence[bytes]) -> Sequence[object]:
        body = await self._wire.pack(requests)
        try:
            async with self._session.post(
                self._url, data=body.content, headers=body.headers, allow_redirects=False
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise failures.from_exception(self._name, error) from error
        if response.status != 200:  # noqa: PLR2004 - OK
            raise failures.from_answer(self._name, response.status, response.headers, content)
        return self._wire.unpack(content, len(requests))
