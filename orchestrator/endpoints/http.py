"""HttpEndpoint: a server that someone else keeps running."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from yarl import URL

from orchestrator.domain.batching import Limits
from orchestrator.domain.charges import use_price
from orchestrator.domain.errors import (
    EndpointLost,
    EndpointRefused,
    NoRoom,
    OrchestratorError,
    OutOfCredit,
    RequestFailed,
    UsageError,
)
from orchestrator.domain.proxies import proxy_for, proxy_headers
from orchestrator.domain.secrets import Secrets, usable_headers
from orchestrator.domain.sizing import LARGEST
from orchestrator.domain.urls import shown, without_keys
from orchestrator.endpoints.bodies import too_large
from orchestrator.endpoints.deadlines import Deadlines
from orchestrator.endpoints.foreign import ForeignControl
from orchestrator.endpoints.hf_token import Token
from orchestrator.endpoints.http_client import open_client
from orchestrator.endpoints.reach import why_silent
from orchestrator.wires import failures
from orchestrator.wires.huggingface import HuggingFaceWire, for_batches
from orchestrator.wires.info import limits_from
from orchestrator.wires.quota import used_up_for
from orchestrator.wires.reask import asked, refusal_of
from orchestrator.wires.streams import FirstText, Streams, in_parts, whole_answer
from orchestrator.wires.wire import JSON_TYPE, AnswersElsewhere, Body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from orchestrator.domain.charges import UsePrice
    from orchestrator.domain.http_client import Watch
    from orchestrator.domain.policy import Policy
    from orchestrator.endpoints.http_client import HttpClient
    from orchestrator.ports import Again
    from orchestrator.wires.wire import Wire

    NamesFailure = Callable[[str, int, Mapping[str, str], bytes], failures.Failure]

_PROBE_TIMEOUT = 5.0
_MOST_ABOUT_ITSELF = 10_000_000  # bytes of `/info` or `/metrics`
_GET = Body(b"", method="GET")


@dataclass(frozen=True, slots=True)
class HttpEndpoint:
    """A server at `url` that takes POST `{"inputs": ...}`, as Hugging Face's do, or whatever `wire` sends.

    `token_env`: the environment variable with the bearer token; the token itself is never stored.
    `headers`: sent with every request. `wire`: the request format. If it has a route of its own, `url` may omit it.
    `parameters`, `lists`: short for `wire=HuggingFaceWire(parameters, lists)`. By default, inputs are sent as lists if
    `batch_size` is above 1 or "auto".
    `model`: names the model behind the URL, so that answers stay valid when the server moves. Without it, the URL
    identifies the model, less any query parameter that is named like a key (`key`, `api_key`, `token`, `sig`, `code`
    ...), which is never stored.
    `health`: a path or URL that answers 200 once the server is ready. Without it, accepting a connection is enough.
    `price_per_request`, `price_per_million_tokens`: dollars that it charges: for an answered request, and for a million
    tokens of requests and of answers, as a pair. Costs and budgets then count it, and it may get the tail of a run.
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
    price_per_request: float | None = None
    price_per_million_tokens: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        use_price(self.price_per_request, self.price_per_million_tokens)
        check_url(self.url)
        object.__setattr__(self, "headers", usable_headers(self.headers))
        if self.wire is not None and (self.parameters or self.lists is not None):
            raise ValueError(
                "parameters= and lists= are for the Hugging Face wire; with wire=, set the parameters in the wire"
            )

    @property
    def name(self) -> str:
        """The URL without its query, which may hold a secret."""
        return str(URL(self.url).with_query(None))

    def identity(self, policy: Policy) -> Mapping[str, object]:
        """Return the model (or the URL, without a key in its query) and the wire."""
        return {"kind": "http", "model": self.model or without_keys(self.url), **self._wire(policy).identity}

    @property
    def use_price(self) -> UsePrice | None:
        """What it charges for answers."""
        return use_price(self.price_per_request, self.price_per_million_tokens)

    async def unsendable(self, request: bytes, policy: Policy) -> RequestFailed | None:
        """Return why the wire cannot send this request, or None if it can."""
        return await refusal_of(self._wire(policy), request)

    @asynccontextmanager
    async def control(self) -> AsyncIterator[ForeignControl]:
        """Yield the control plane; there is nothing to open. Raises `UsageError` at once if the token is missing."""
        url, headers = URL(self.url), self._headers()
        yield ForeignControl(
            why_silent=partial(why_silent, url, self.health, headers),
            connect=lambda policy: data_plane(url, headers, self._wire(policy), policy),
        )

    def _wire(self, policy: Policy) -> Wire:
        if self.wire is not None:
            return for_batches(self.wire, policy.batch_size)
        many = policy.batch_size not in {None, 1}
        lists = many if self.lists is None else self.lists
        if not lists and many:
            raise UsageError(
                f"{self.name} takes no lists (lists=False), so policy.batch_size cannot be {policy.batch_size!r}"
            )
        return HuggingFaceWire(self.parameters, lists)

    def _headers(self) -> dict[str, str]:
        return {**self.headers, **bearer(self.token_env, self.name)}


def check_url(url: str) -> None:
    """Raise `ValueError` if this is not a server's URL, or if it contains a password or what is never sent."""
    parsed = URL(url)
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ValueError(f"an endpoint needs a URL like http://host:8080/, not {shown(url)!r}")
    if parsed.user or parsed.password:
        raise ValueError("a URL must not hold a password; put a token into an environment variable: token_env=...")
    if parsed.fragment or url != url.strip():
        raise ValueError("an endpoint's URL must not have spaces around it, or a part after #, which is never sent")


def bearer(token_env: str | None, name: str) -> dict[str, str]:
    """Return the header with the token from this variable. Raises `UsageError` if it is not set or not a token."""
    if token_env is None:
        return {}
    token = os.environ.get(token_env, "").strip()
    remedy = f"set the environment variable {token_env}"
    if not token:
        raise UsageError(f"the token for {name} is missing: {remedy}")
    return Token(token, f"the environment variable {token_env}", f"{remedy} to the token alone").headers


@asynccontextmanager
async def data_plane(
    url: URL,
    headers: Mapping[str, str],
    wire: Wire,
    policy: Policy,
    *,
    failure: NamesFailure = failures.from_answer,
) -> AsyncIterator[HttpData]:
    """Open the data plane of a server at this URL that speaks this wire.

    `failure` turns an answer other than 200 into a failure.
    """
    proxy = proxy_for(str(url), os.environ)
    async with open_client(str(url), {"Content-Type": JSON_TYPE, **headers}, proxy, policy) as client:
        secrets = Secrets.within({**headers, **proxy_headers(proxy)}, url.query.items())
        data = HttpData(client, wire.url(url), wire, policy, failure, secrets)
        await data.apply_info()
        yield data


class HttpData:
    """A data plane over HTTP."""

    def __init__(
        self,
        client: HttpClient,
        url: URL,
        wire: Wire,
        policy: Policy,
        failure: NamesFailure,
        secrets: Secrets,
    ) -> None:
        self._client = client
        self._url = str(url)
        self._origin = url.origin()
        self._name = str(url.with_query(None))  # a query may hold a secret
        self._wire = wire
        self._queues = wire if isinstance(wire, AnswersElsewhere) else None
        self._failure = failure
        self._secrets = secrets
        self._most, self._most_of_error = policy.max_answer_bytes, policy.max_error_bytes
        self._keep_error_bodies = policy.keep_error_bodies
        self._deadlines = Deadlines(policy.timeout)
        self.max_in_flight = None
        self.quiet_until = 0.0
        most = (LARGEST if wire.takes_lists else 1) if policy.batch_size == "auto" else policy.batch_size or 1
        self.limits = Limits(most, policy.batch_tokens)

    async def apply_info(self) -> None:
        """Lower the limits of one request to those that the server's `/info` states, if it has that route."""
        if self.limits.items > 1 and (info := await self._shown("info")) is not None:
            self.limits = limits_from(info, self.limits)

    async def ask(self, requests: Sequence[bytes], again: Again | None = None) -> Sequence[object]:
        """Return one entry per request. A value is wrapped in an `Answer` if the server reports its tokens.

        No failure contains a secret that was sent.
        """
        return await self._asked(requests, self._post, again)

    @property
    def streams(self) -> bool:
        """Whether the wire can ask for answers in parts."""
        return isinstance(self._wire, Streams)

    async def ask_in_parts(self, requests: Sequence[bytes], first: Callable[[], None]) -> Sequence[object]:
        """Return what `ask` does. `first` is called once the first of the model's words are there."""
        if not isinstance(self._wire, Streams):
            raise UsageError(f"{self._name}: the wire {type(self._wire).__name__} has no answers in parts")
        form = self._wire.stream
        text = FirstText(form, first)  # of the first answer, if the wire asks again

        async def post(body: Body) -> bytes:
            content = whole_answer(form, await self._post(in_parts(form, body), text.watch))
            text.ended()
            return content

        return await self._asked(requests, post, None)

    async def _asked(
        self, requests: Sequence[bytes], post: Callable[[Body], Awaitable[bytes]], again: Again | None
    ) -> Sequence[object]:
        try:
            entries = await asked(self._wire, requests, post, again)
        except (RequestFailed, EndpointLost, OrchestratorError) as failure:
            self._hide_secrets(failure)
            raise
        for entry in entries:
            if isinstance(entry, RequestFailed):
                self._hide_secrets(entry)
        return entries

    def _hide_secrets(self, failure: RequestFailed | EndpointLost | OrchestratorError) -> None:
        message = str(failure)
        hidden = self._secrets.hidden_in(message)
        if hidden != message:
            failure.args = (hidden,)
            failure.__cause__ = None  # its message may contain the secret as well
        if isinstance(failure, RequestFailed):
            failure.message = hidden
        if isinstance(failure, RequestFailed | EndpointRefused | OutOfCredit) and failure.body is not None:
            failure.body = self._secrets.hidden_in(failure.body)

    async def metrics(self) -> str | None:
        """Return the content of the server's `/metrics`, or None if it has no such route."""
        content = await self._shown("metrics")
        return None if content is None else content.decode(errors="replace")

    async def _shown(self, route: str) -> bytes | None:
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT):
                reply = await self._client.send(str(self._origin / route), _GET, _MOST_ABOUT_ITSELF, 0)
        except (RequestFailed, EndpointLost, EndpointRefused, NoRoom, TimeoutError):
            return None
        return reply.content if reply.status == 200 and reply.whole else None

    async def _post(self, body: Body, watch: Watch | None = None) -> bytes:
        """Return the body of a 200, whose parts `watch` has seen.

        Redirects are not followed, so that the token goes nowhere else.
        """
        try:
            with self._deadlines:
                reply = await self._client.send(self._url, body, self._most, self._most_of_error, watch)
                if self._queues is not None and reply.status == 200 and reply.whole:
                    url = str(self._queues.answer_url(URL(self._url), reply.content))
                    reply = await self._client.send(url, _GET, self._most, self._most_of_error)
        except TimeoutError as error:
            raise failures.too_slow() from error
        if reply.status != 200:
            failure = self._failure(self._name, reply.status, reply.headers, reply.content)
            if self._keep_error_bodies and isinstance(failure, RequestFailed | EndpointRefused | OutOfCredit):
                failure.status, failure.body = reply.status, reply.content.decode(errors="replace")
            raise failure
        if not reply.whole:
            raise too_large(self._most)
        if (wait := used_up_for(reply.headers)) > 0:
            self.quiet_until = time.monotonic() + wait
        return reply.content
