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
from orchestrator.wires.body import JSON_TYPE
from orchestrator.wires.huggingface import HuggingFaceWire
from orchestrator.wires.kinds import for_batches
from orchestrator.wires.reask import asked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from orchestrator.domain.policy import Policy
    from orchestrator.domain.terms import Terms
    from orchestrator.wires.body import Body
    from orchestrator.wires.kinds import Wire

    NamesFailure = Callable[[str, int, Mapping[str, str], bytes], failures.Failure]

_PROBE_TIMEOUT = 5.0
_PROBE = aiohttp.ClientTimeout(total=_PROBE_TIMEOUT)


@dataclass(frozen=True, slots=True)
class HttpEndpoint:
    """A server at `url`: of the Hugging Face shape, POST `{"inputs": ...}`, or of whatever `wire` says.

    `token_env`: name of the environment variable that holds the bearer token; the token itself is never stored.
    `headers`: sent with every request. `wire`: the format that is spoken; where it has a route, `url` may leave it out.
    `parameters`, `lists`: short for `wire=HuggingFaceWire(parameters, lists)`; inputs travel as lists by default when
    `batch_size` is above 1.
    `model`: names the model behind the URL, so that answers stay valid when the server moves; without it the URL does.
    `health`: a path or URL that answers 200 once the server is ready; without it, accepting a connection is enough.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    token_env: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    lists: bool | None = None
    wire: Wire | None = None
    model: str | None = None
    health: str | None = None
    startup_timeout: float = 300.0

    def __post_init__(self) -> None:
        check_url(self.url)
        if self.wire is not None and (self.parameters or self.lists is not None):
            raise ValueError(
                "parameters= and lists= belong to the Hugging Face wire; with wire= they stand in the wire"
            )

    @property
    def name(self) -> str:
        """The URL without its query, which may hold what nobody else should see."""
        return str(URL(self.url).with_query(None))

    def identity(self, policy: Policy) -> Mapping[str, object]:
        """Model (or URL) and wire."""
        return {"kind": "http", "model": self.model or self.url, **self._wire(policy).identity}

    @asynccontextmanager
    async def control(self) -> AsyncIterator[_HttpControl]:
        """Nothing to open: the server is not ours. A missing token is a `UsageError` before anything is waited for."""
        self._headers()
        yield _HttpControl(self)

    def _wire(self, policy: Policy) -> Wire:
        if self.wire is not None:
            return for_batches(self.wire, policy.batch_size)
        lists = (policy.batch_size or 1) > 1 if self.lists is None else self.lists
        if not lists and (policy.batch_size or 1) > 1:
            raise UsageError(
                f"{self.name} takes no lists (lists=False), so policy.batch_size cannot be {policy.batch_size}"
            )
        return HuggingFaceWire(self.parameters, lists)

    def _headers(self) -> dict[str, str]:
        return {**self.headers, **bearer(self.token_env, self.name)}


class _HttpControl:
    """Not ours to wake or to pause: not using it is as paused as it gets."""

    terms: Terms | None = None
    look_every = 0.1

    def __init__(self, endpoint: HttpEndpoint) -> None:
        self._endpoint = endpoint
        self._in_use = False

    @property
    def said(self) -> str:
        return "in use" if self._in_use else "not in use"

    async def resume(self) -> None:
        self._in_use = True

    async def pause(self, *, to_zero: bool = False) -> None:  # noqa: ARG002 - it is not ours to scale
        self._in_use = False

    async def state(self) -> EndpointState:
        return EndpointState.AWAKE if self._in_use else EndpointState.PAUSED

    async def price(self) -> None:
        """Nobody publishes one."""

    async def answers(self) -> bool:
        endpoint = self._endpoint
        return await probe(URL(endpoint.url), endpoint.health, endpoint._headers())  # noqa: SLF001 - its own

    @asynccontextmanager
    async def connect(self, policy: Policy) -> AsyncIterator[HttpData]:
        endpoint = self._endpoint
        headers, wire = endpoint._headers(), endpoint._wire(policy)  # noqa: SLF001 - its own
        async with data_plane(URL(endpoint.url), headers, wire, policy) as data:
            yield data


def check_url(url: str) -> None:
    """`ValueError` where this is no URL of a server, or one that holds a secret."""
    parsed = URL(url)
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ValueError(f"an endpoint needs a URL like http://host:8080/, not {url!r}")
    if parsed.user or parsed.password:
        raise ValueError("a URL must not hold a password; put a token into an environment variable: token_env=...")


def bearer(token_env: str | None, name: str) -> dict[str, str]:
    """The header that carries the token of this environment variable. `UsageError` where it is not set."""
    if token_env is None:
        return {}
    token = os.environ.get(token_env)
    if not token:
        raise UsageError(f"the token for {name} is missing: set the environment variable {token_env}")
    return {"Authorization": f"Bearer {token}"}


async def probe(url: URL, health: str | None, headers: Mapping[str, str]) -> bool:
    """Whether the server would answer: its health route says 200 or, where it has none, it accepts a connection.

    The headers go to the server's own origin only.
    """
    return await (_accepts(url) if health is None else _is_healthy(url, url.join(URL(health)), headers))


async def _accepts(url: URL) -> bool:
    try:
        with anyio.fail_after(_PROBE_TIMEOUT):
            async with await anyio.connect_tcp(str(url.host), int(url.port or 0)):
                return True
    except (OSError, TimeoutError):
        return False


async def _is_healthy(server: URL, health: URL, headers: Mapping[str, str]) -> bool:
    timeout = aiohttp.ClientTimeout(total=_PROBE_TIMEOUT)
    own = headers if health.origin() == server.origin() else {}
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(health, headers=own, allow_redirects=False) as response,
        ):
            return response.status == 200  # noqa: PLR2004 - OK
    except (aiohttp.ClientError, TimeoutError):
        return False


@asynccontextmanager
async def data_plane(
    url: URL,
    headers: Mapping[str, str],
    wire: Wire,
    policy: Policy,
    *,
    failure: NamesFailure = failures.from_answer,
) -> AsyncIterator[HttpData]:
    """Open the data plane of a server that speaks this wire under this URL.

    `failure` names an answer other than 200.
    """
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(
            total=policy.timeout, sock_connect=policy.connect_timeout, sock_read=policy.read_timeout
        ),
        headers={"Content-Type": JSON_TYPE, **headers},
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        yield HttpData(session, wire.url(url), wire, policy, failure)


class HttpData:
    """Items to a server over HTTP, answers back."""

    def __init__(
        self, session: aiohttp.ClientSession, url: URL, wire: Wire, policy: Policy, failure: NamesFailure
    ) -> None:
        self._session = session
        self._url = url
        self._name = str(url.with_query(None))  # a query may hold what nobody else should see
        self._wire = wire
        self._failure = failure
        self.lanes = None
        self.batch_size = policy.batch_size or 1

    async def ask(self, requests: Sequence[bytes]) -> Sequence[object]:
        """One entry per request; values stand in an `Answer` where the server says how many tokens they took."""
        return await asked(self._wire, requests, self._post)

    async def metrics(self) -> str | None:
        """What the server's `/metrics` says, where it has one."""
        url = self._url.origin() / "metrics"
        try:
            async with self._session.get(url, timeout=_PROBE, allow_redirects=False) as response:
                return await response.text() if response.status == 200 else None  # noqa: PLR2004 - OK
        except (aiohttp.ClientError, TimeoutError, OSError, UnicodeDecodeError):
            return None

    async def _post(self, body: Body) -> bytes:
        """What a 200 brings. Redirects are not followed, so the token goes nowhere else."""
        try:
            async with self._session.request(
                body.method, self._url, data=body.content, headers=body.headers, allow_redirects=False
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise failures.from_exception(self._name, error) from error
        if response.status != 200:  # noqa: PLR2004 - OK
            raise self._failure(self._name, response.status, response.headers, content)
        return content
