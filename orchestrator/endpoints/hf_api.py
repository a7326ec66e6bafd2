"""The management API of Hugging Face Inference Endpoints: a REST client with its own deadlines and retries."""

from __future__ import annotations

import logging
import os
import random
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
import anyio
import orjson
from yarl import URL

from orchestrator.domain.errors import (
    EndpointFailed,
    EndpointRefused,
    EndpointSilent,
    OrchestratorError,
    OutOfCredit,
    UsageError,
)
from orchestrator.domain.policy import Backoff
from orchestrator.domain.proxies import proxy_for, proxy_headers
from orchestrator.domain.secrets import Secrets
from orchestrator.domain.urls import is_loopback
from orchestrator.endpoints.bodies import beginning
from orchestrator.endpoints.hf_spec import NAME, NAMESPACE, Description, price_in
from orchestrator.endpoints.hf_token import HF_TOKEN, Token, find_token
from orchestrator.wires import failures

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping

    from orchestrator.endpoints.hf_spec import Hardware

T = TypeVar("T")
_logger = logging.getLogger(__name__)

API_URL = "https://api.endpoints.huggingface.cloud/v2"
API_URL_ENV = "ORCHESTRATOR_HF_API_URL"
_HUB_URL = "https://huggingface.co"
_MOST_BYTES = 16_000_000  # of an answer; the list of all hardware is about 100,000 bytes
_MOST_OF_LINE = 100_000  # bytes of a log line; a longer line is split
_CONFLICTS = 3  # times that a change is tried again because another one is still in progress
_TRANSIENT_4XX = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


@dataclass(frozen=True, slots=True)
class ApiTimeouts:
    """Seconds for one try of a call, and for all its tries together, including the pauses between them."""

    one: float = 10.0
    whole: float = 30.0
    backoff: Backoff = field(default_factory=lambda: Backoff(first=0.25, cap=5.0))


API_TIMEOUTS = ApiTimeouts()


class Declined(EndpointFailed):
    """The API understood the call and refused it. `conflict`: another change is in progress, or the endpoint exists."""

    def __init__(self, call: str, status: int, said: str, tries: int = 1) -> None:
        hint = ": there is no such endpoint" if status == HTTPStatus.NOT_FOUND else ""
        super().__init__(f"{call} was answered {status} ({said}){hint}")
        self.status = status
        self.said = said
        self.tries = tries

    @property
    def conflict(self) -> bool:
        """Whether the same call may succeed in a moment."""
        return self.status == HTTPStatus.CONFLICT


@dataclass(frozen=True, slots=True)
class Account:
    """The owner of a token, and the organizations that the token may act for."""

    name: str
    organizations: tuple[str, ...]


class _Trouble(Exception):
    """One try failed, but the next may succeed. `wait`: the seconds that the API asks us to wait."""

    def __init__(self, said: str, wait: float | None = None) -> None:
        super().__init__(said)
        self.wait = wait


class Management:
    """A client for the endpoints of one namespace.

    Every call ends within its `ApiTimeouts`. It is tried again after rate limits, server errors, time-outs, broken
    connections and malformed answers; when the time is up, it raises `EndpointSilent`. It raises `EndpointRefused` if
    the token lacks permission, and `Declined` if the API refuses the call. The token is sent to the API and (`whoami`)
    to the Hub, nowhere else.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        token: Token,
        namespace: str,
        *,
        api_url: str | None = None,
        timeouts: ApiTimeouts | None = None,
    ) -> None:
        self.token = token
        self.namespace = namespace
        self.api_url = api_url_of(api_url)
        self._session = session
        self._accepted = False  # whether the Hub has accepted the token
        self.secrets = self._secrets()
        self._unreachable_reported = False
        self._timeouts = timeouts or API_TIMEOUTS

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        namespace: str | None = None,
        *,
        token_env: str = HF_TOKEN,
        api_url: str | None = None,
        timeouts: ApiTimeouts | None = None,
    ) -> AsyncIterator[Management]:
        """Find the token and open a session. The default namespace is the token owner's."""
        token = await find_token(token_env)
        async with aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=None)
        ) as session:
            management = cls(session, token, namespace or "", api_url=api_url, timeouts=timeouts)
            if namespace is None:
                management.namespace = (await management.whoami()).name
            yield management

    def of(self, namespace: str) -> Management:
        """Return a client for another namespace that shares this session."""
        other = Management(self._session, self.token, namespace, api_url=self.api_url, timeouts=self._timeouts)
        other._accepted = self._accepted
        return other

    # -- looking ------------------------------------------------------------------------------------------------------

    async def whoami(self) -> Account:
        """Return the account that the token belongs to. Asks the Hub."""
        account = await self._call("GET", f"{_hub_url()}/api/whoami-v2", _account)
        self._accepted = True
        return account

    async def get(self, name: str) -> Description | None:
        """Return the endpoint as it is now, or None if it does not exist."""
        try:
            return await self._call("GET", self._url(name), self._described)
        except Declined as declined:
            if declined.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    async def list(self) -> tuple[Description, ...]:
        """Return every endpoint of the namespace, from all pages."""
        endpoints: tuple[Description, ...] = ()
        cursor, seen = "", set[str]()
        while cursor not in seen:
            seen.add(cursor)
            params = {"cursor": cursor} if cursor else {}
            page, cursor = await self._call("GET", self._url(), self._listed, params=params)
            endpoints += page
            if not cursor:
                break
        return endpoints

    async def providers(self) -> Mapping[str, Any]:
        """Return vendors, regions and the hardware that they offer, with prices and quotas."""
        return await self._call("GET", f"{self.api_url}/provider/{self.namespace}", _object)

    async def price(self, hardware: Hardware) -> float | None:
        """Return dollars per hour for one replica. Asks once; None if that fails or the price is not listed."""
        try:
            catalogue = await self._call("GET", f"{self.api_url}/provider/{self.namespace}", _object, tries=1)
        except OrchestratorError:
            return None
        return price_in(catalogue, hardware)

    async def open_metrics(self, name: str) -> str:
        """Return the content of the endpoint's OpenMetrics route."""
        return await self._call("GET", self._url(name, "open-metrics"), _text)

    async def logs(
        self, name: str, *, follow: bool = False, tail: int | None = None, replica: str | None = None
    ) -> AsyncGenerator[str, None]:
        """Yield the lines of the container's log; with `follow`, new ones too. To stop early, close it (`aclosing`)."""
        params = {"follow": "true"} if follow else {}
        params |= {} if tail is None else {"tail": str(tail)}
        params |= {} if replica is None else {"replica": replica}
        url, rest = self._url(name, "logs"), b""
        async with await self._call("GET", url, _stream, params=params) as response:
            while chunk := await self._chunk(response, url, None if follow else self._timeouts.one):
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > _MOST_OF_LINE:
                    lines, rest = [*lines, rest], b""
                for line in lines:
                    yield line.decode(errors="replace")
        if rest:
            yield rest.decode(errors="replace")

    # -- changing -----------------------------------------------------------------------------------------------------

    async def create(self, body: Mapping[str, Any]) -> Description:
        """Create an endpoint. If an earlier try of this call already created it, return that one."""
        inside = body.get("model", {}).get("secrets", {})
        self.secrets = self._secrets(*inside.values())
        try:
            return await self._call("POST", self._url(), self._described, body=body)
        except Declined as declined:
            created = await self.get(body["name"]) if declined.conflict and declined.tries > 1 else None
            if created is None:
                raise
            return created

    async def update(self, name: str, changes: Mapping[str, Any]) -> Description:
        """Change these settings; a running endpoint rolls over to them."""
        return await self._call("PUT", self._url(name), self._described, body=changes, conflicts=_CONFLICTS)

    async def resume(self, name: str) -> Description:
        """Resume the endpoint. Raises `Declined` (400 "already running") if it is not paused."""
        return await self._call("POST", self._url(name, "resume"), self._described, conflicts=_CONFLICTS)

    async def pause(self, name: str) -> Description:
        """Pause the endpoint until it is resumed."""
        return await self._call("POST", self._url(name, "pause"), self._described, conflicts=_CONFLICTS)

    async def scale_to_zero(self, name: str) -> Description:
        """Scale the endpoint to zero until the next request."""
        return await self._call("POST", self._url(name, "scale-to-zero"), self._described, conflicts=_CONFLICTS)

    async def delete(self, name: str) -> None:
        """Delete the endpoint. This cannot be undone."""
        await self._call("DELETE", self._url(name), _text, conflicts=_CONFLICTS)

    # -- calling ------------------------------------------------------------------------------------------------------

    def _url(self, *parts: str) -> str:
        if parts and not NAME.fullmatch(parts[0]):
            raise UsageError(f"{parts[0]!r} is not the name of an endpoint: lower-case letters, digits and dashes")
        if not NAMESPACE.fullmatch(self.namespace):
            raise UsageError(f"{self.namespace!r} is not the name of a Hugging Face account")
        return "/".join((self.api_url, "endpoint", self.namespace, *parts))

    async def _call(
        self,
        method: str,
        url: str,
        read: Callable[[aiohttp.ClientResponse], Awaitable[T]],
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        tries: int | None = None,
        conflicts: int = 0,
    ) -> T:
        timeouts, tried, last = self._timeouts, 0, "no answer"
        with anyio.move_on_after(timeouts.whole):
            while tries is None or tried < tries:
                tried += 1
                wait = None
                try:
                    return await self._try(method, url, read, params, body)
                except Declined as declined:
                    if not declined.conflict or tried > conflicts:
                        raise Declined(f"{method} {url}", declined.status, declined.said, tried) from None
                except _Trouble as trouble:
                    last, wait = self.secrets.hidden_in(str(trouble)), trouble.wait
                    self._warn_if_unreachable(trouble, last)
                pause = timeouts.backoff.delay(tried, random.random())
                await anyio.sleep(max(pause, wait or 0.0))
        raise EndpointSilent(
            f"{method} {url}: no proper answer in {tried} tries, the last one: {last}; "
            "run the same command again when the service answers"
        )

    async def _try(
        self,
        method: str,
        url: str,
        read: Callable[[aiohttp.ClientResponse], Awaitable[T]],
        params: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
    ) -> T:
        headers = self.token.headers | ({} if body is None else {"Content-Type": "application/json"})
        content = None if body is None else orjson.dumps(body)
        try:
            with anyio.fail_after(self._timeouts.one):
                response = await self._session.request(
                    method,
                    url,
                    params=params,
                    data=content,
                    headers=headers,
                    allow_redirects=False,
                    proxy=proxy_for(url, os.environ),
                )
                with ExitStack() as unread:
                    unread.callback(response.close)
                    await self._check(f"{method} {url}", response)
                    answer = await read(response)
                    unread.pop_all()  # the caller goes on reading a log
                    return answer
        except TimeoutError as error:
            raise _Trouble(f"nothing within {self._timeouts.one:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise _Trouble(failures.why_not_connected(error) or str(error) or type(error).__name__) from error
        except RecursionError as error:  # JSON nested deeper than Python shows in a message
            raise _Trouble("a malformed answer: it is nested too deeply") from error
        except ValueError as error:
            raise _Trouble(f"a malformed answer: {error}") from error

    def _secrets(self, *others: str) -> Secrets:
        """Return what every message hides: the token, a proxy's password, and these secrets."""
        secrets = dict(Secrets.of([self.token.value, *others]).known)
        for url in (self.api_url, _hub_url()):
            secrets |= Secrets.within(proxy_headers(proxy_for(url, os.environ))).known
        return Secrets(secrets)

    def _warn_if_unreachable(self, trouble: _Trouble, message: str) -> None:
        """Warn at once, but only once, of what waiting may not fix: a name that does not resolve, an unknown proxy."""
        if not self._unreachable_reported and failures.why_not_connected(trouble.__cause__ or trouble) is not None:
            self._unreachable_reported = True
            _logger.warning("cannot reach Hugging Face, trying again: %s", message)

    async def _described(self, response: aiohttp.ClientResponse) -> Description:
        return self._read(await _object(response))

    async def _listed(self, response: aiohttp.ClientResponse) -> tuple[tuple[Description, ...], str]:
        page = await _object(response)
        items = page.get("items")
        if not isinstance(items, list):
            raise ValueError("there is no list in it")
        return tuple(map(self._read, items)), str(page.get("nextCursor") or "")

    def _read(self, document: Any) -> Description:
        """Read an endpoint. Its message may repeat the container's output, which may contain our secrets."""
        described = Description.read(document)
        return replace(described, message=self.secrets.hidden_in(described.message))

    async def _check(self, call: str, response: aiohttp.ClientResponse) -> None:
        """Raise the failure that an answer outside 200 to 299 stands for."""
        status = response.status
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return
        content, _ = await beginning(response, _MOST_BYTES)
        said = self.secrets.hidden_in(failures.words(content))
        if status in _TRANSIENT_4XX or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _Trouble(f"{status} ({said})", failures.retry_after(response.headers))
        raise self._refusal(call, status, said)

    def _refusal(self, call: str, status: int, said: str) -> OrchestratorError:
        answered = f"{call} was answered {status} ({said})"
        if status < HTTPStatus.BAD_REQUEST:
            return EndpointRefused(f"{call} was redirected; redirects are not followed, check the API's URL")
        match status:
            case HTTPStatus.UNAUTHORIZED:
                reason = f"{self.token.source} holds no valid token; {self.token.remedy}"
                if self._accepted:
                    reason = f"{self.namespace} has no billing, or does not show its endpoints to this token"
                return EndpointRefused(f"{answered}: {reason}")
            case HTTPStatus.FORBIDDEN if "payment" in said.lower():
                return EndpointRefused(f"{answered}: add a payment method at https://huggingface.co/settings/billing")
            case HTTPStatus.FORBIDDEN:
                return EndpointRefused(
                    f"{answered}: the token in {self.token.source} needs the scope inference.endpoints.write, "
                    f"and access to {self.namespace}; {self.token.remedy}"
                )
            case HTTPStatus.PAYMENT_REQUIRED:
                return OutOfCredit(f"{answered}: add credit, then run the same command again to continue")
        return Declined(call, status, said)

    async def _chunk(self, response: aiohttp.ClientResponse, url: str, seconds: float | None) -> bytes:
        try:
            with anyio.fail_after(seconds):
                return await response.content.readany()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            said = self.secrets.hidden_in(str(error)) or type(error).__name__
            raise EndpointSilent(f"GET {url} broke off ({said}); ask again") from error


def api_url_of(api_url: str | None) -> str:
    """Return the API's base URL: this one, else the one in the environment, else Hugging Face's own."""
    if api_url is not None:
        return _checked(api_url, "api_url")
    return _checked(os.environ.get(API_URL_ENV) or API_URL, API_URL_ENV)


def _hub_url() -> str:
    return _checked(os.environ.get("HF_ENDPOINT") or _HUB_URL, "HF_ENDPOINT")


def keeps_secrets(url: URL) -> bool:
    """Whether a token may be sent to this URL: it is encrypted, or on this machine."""
    return url.scheme == "https" or (url.scheme == "http" and is_loopback(url.host))


def _checked(url: str, what: str) -> str:
    try:
        usable = keeps_secrets(URL(url)) and URL(url).host
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(f"{what} must be an https URL (http only on this machine), not {url!r}")
    return url.rstrip("/")


# -- reading answers: each raises `ValueError` if the answer is malformed ----------------------------------------------


async def _content(response: aiohttp.ClientResponse) -> bytes:
    content, whole = await beginning(response, _MOST_BYTES)
    if not whole:
        raise ValueError(f"it is larger than {_MOST_BYTES:,} bytes")
    return content


async def _object(response: aiohttp.ClientResponse) -> Mapping[str, Any]:
    content = await _content(response)
    try:
        document: object = orjson.loads(content)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ValueError(failures.words(content))
    return document


async def _account(response: aiohttp.ClientResponse) -> Account:
    account = await _object(response)
    name, organizations = account.get("name"), account.get("orgs")
    if not isinstance(name, str):
        raise ValueError("there is no account in it")
    names = (
        [entry.get("name") for entry in organizations if isinstance(entry, dict)]
        if isinstance(organizations, list)
        else []
    )
    return Account(name, tuple(organization for organization in names if isinstance(organization, str)))


async def _text(response: aiohttp.ClientResponse) -> str:
    return (await _content(response)).decode(errors="replace")


async def _stream(response: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
    return response
