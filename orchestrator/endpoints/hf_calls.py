"""Calls of Hugging Face's REST APIs, with their own deadlines and retries."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self, TypeVar

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
from orchestrator.domain.proxies import proxy_for, proxy_headers
from orchestrator.domain.secrets import Secrets
from orchestrator.endpoints.api_calls import ApiTimeouts, Trouble, keeps_secrets, session_of_calls, until_answered
from orchestrator.endpoints.bodies import beginning
from orchestrator.endpoints.hf_token import HF_TOKEN, find_token
from orchestrator.wires import failures
from orchestrator.wires.aiohttp_failures import why_not_connected

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from orchestrator.endpoints.hf_token import Token

T = TypeVar("T")
_logger = logging.getLogger(__name__)

API_URL = "https://api.endpoints.huggingface.cloud/v2"
API_URL_ENV = "ORCHESTRATOR_HF_API_URL"
_HUB_URL = "https://huggingface.co"
_MOST_BYTES = 16_000_000  # of an answer; the list of all hardware is about 100,000 bytes
_MOST_OF_LINE = 100_000  # bytes of a log line; a longer line is split
_TRANSIENT_4XX = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


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


class HfCalls:
    """Makes calls with one token.

    Every call ends within its `ApiTimeouts`. It is tried again after rate limits, server errors, time-outs, broken
    connections and malformed answers; when the time is up, it raises `EndpointSilent` (`ApiBusy` if the last answer was
    a rate limit or a server error). It raises `EndpointRefused` if the token lacks permission, and `Declined` if the
    API refuses the call. No redirect is followed. The token is sent where a call goes, and nowhere else.

    `namespace`: whose endpoints the calls are about. `scope`: what the token needs for them. `accepted`: whether the
    Hub has accepted the token. `secrets` are in no message.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        token: Token,
        namespace: str,
        api_url: str | None = None,
        timeouts: ApiTimeouts | None = None,
        scope: str = "inference.endpoints.write",
    ) -> None:
        self.token = token
        self._scope = scope
        self.namespace = namespace
        self.api_url = api_url_of(api_url)
        self.timeouts = timeouts or API_TIMEOUTS
        self.accepted = False
        self.secrets = Secrets({})
        self.hide()
        self._session = session
        self._unreachable_reported = False

    def of(self, namespace: str) -> HfCalls:
        """Return the same for another namespace."""
        other = HfCalls(self._session, self.token, namespace, self.api_url, self.timeouts, self._scope)
        other.accepted = self.accepted
        return other

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        namespace: str | None,
        *,
        token_env: str = HF_TOKEN,
        api_url: str | None = None,
        timeouts: ApiTimeouts | None = None,
        scope: str = "inference.endpoints.write",
    ) -> AsyncIterator[Self]:
        """Find the token and open a session. The default namespace is the token owner's."""
        token = await find_token(token_env)
        async with session_of_calls() as session:
            calls = cls(session, token, namespace or "", api_url, timeouts, scope)
            if namespace is None:
                calls.namespace = (await calls.whoami()).name
            yield calls

    async def whoami(self) -> Account:
        """Return the account that the token belongs to. Asks the Hub."""
        account = await self.call("GET", f"{hub_url()}/api/whoami-v2", _account)
        self.accepted = True
        return account

    def hide(self, *others: str) -> None:
        """Hide the token, a proxy's password and these secrets in every message from now on."""
        secrets = dict(Secrets.of([self.token.value, *others]).known)
        for url in (self.api_url, hub_url()):
            secrets |= Secrets.within(proxy_headers(proxy_for(url, os.environ))).known
        self.secrets = Secrets(secrets)

    async def call(
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
        """Return what `read` makes of the answer. `conflicts`: how often to try again while another change goes on."""

        async def one_try(number: int) -> T:
            try:
                return await self._try(method, url, read, params, body)
            except Declined as declined:
                if declined.conflict and number <= conflicts:
                    raise Trouble(str(declined)) from declined
                raise Declined(f"{method} {url}", declined.status, declined.said, number) from None
            except Trouble as trouble:
                hidden = self.secrets.hidden_in(str(trouble))
                self._warn_if_unreachable(trouble, hidden)
                raise Trouble(hidden, trouble.wait) from None

        return await until_answered(f"{method} {url}", one_try, self.timeouts, tries=tries)

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
            with anyio.fail_after(self.timeouts.one):
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
            raise Trouble(f"nothing within {self.timeouts.one:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Trouble(why_not_connected(error) or str(error) or type(error).__name__) from error
        except RecursionError as error:  # JSON nested deeper than Python shows in a message
            raise Trouble("a malformed answer: it is nested too deeply") from error
        except ValueError as error:
            raise Trouble(f"a malformed answer: {error}") from error

    def _warn_if_unreachable(self, trouble: Trouble, message: str) -> None:
        """Warn at once, but only once, of what waiting may not fix: a name that does not resolve, an unknown proxy."""
        if not self._unreachable_reported and why_not_connected(trouble.__cause__ or trouble) is not None:
            self._unreachable_reported = True
            _logger.warning("cannot reach Hugging Face, trying again: %s", message)

    async def _check(self, call: str, response: aiohttp.ClientResponse) -> None:
        """Raise the failure that an answer outside 200 to 299 stands for."""
        status = response.status
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return
        content, _ = await beginning(response, _MOST_BYTES)
        said = self.secrets.hidden_in(failures.words(content))
        if status in _TRANSIENT_4XX or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Trouble(f"{status} ({said})", failures.retry_after(response.headers) or 0.0)
        raise self._refusal(call, status, said)

    def _refusal(self, call: str, status: int, said: str) -> OrchestratorError:
        answered = f"{call} was answered {status} ({said})"
        if status < HTTPStatus.BAD_REQUEST:
            return EndpointRefused(f"{call} was redirected; redirects are not followed, check the API's URL")
        match status:
            case HTTPStatus.UNAUTHORIZED:
                reason = f"{self.token.source} holds no valid token; {self.token.remedy}"
                if self.accepted:
                    reason = f"{self.namespace} has no billing, or does not show its endpoints to this token"
                return EndpointRefused(f"{answered}: {reason}")
            case HTTPStatus.FORBIDDEN if "payment" in said.lower():
                return EndpointRefused(f"{answered}: add a payment method at https://huggingface.co/settings/billing")
            case HTTPStatus.FORBIDDEN:
                return EndpointRefused(
                    f"{answered}: the token in {self.token.source} needs the scope {self._scope}, "
                    f"and access to {self.namespace}; {self.token.remedy}"
                )
            case HTTPStatus.PAYMENT_REQUIRED:
                return OutOfCredit(f"{answered}: add credit, then run the same command again to continue")
        return Declined(call, status, said)

    async def chunk(self, response: aiohttp.ClientResponse, url: str, seconds: float | None) -> bytes:
        """Return the next bytes of an answer that is read as a stream; none at its end."""
        try:
            with anyio.fail_after(seconds):
                return await response.content.readany()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            said = self.secrets.hidden_in(str(error)) or type(error).__name__
            raise EndpointSilent(f"GET {url} broke off ({said}); ask again") from error

    async def lines(
        self, response: aiohttp.ClientResponse, url: str, seconds: float | None
    ) -> AsyncGenerator[str, None]:
        """Yield the lines of an answer that is read as a stream. `seconds`: for each part of it."""
        rest = b""
        while chunk := await self.chunk(response, url, seconds):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > _MOST_OF_LINE:
                lines, rest = [*lines, rest], b""
            for line in lines:
                yield line.decode(errors="replace")
        if rest:
            yield rest.decode(errors="replace")


async def health_status(
    probe: aiohttp.ClientSession, url: URL, headers: Mapping[str, str]
) -> tuple[int | None, str | None]:
    """Return the status that a health route answers, or None and, if it is known, why we cannot connect."""
    try:
        proxy = proxy_for(str(url), os.environ)
        async with probe.get(url, headers=headers, allow_redirects=False, proxy=proxy) as response:
            return response.status, None
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return None, why_not_connected(error)


def api_url_of(api_url: str | None) -> str:
    """Return the API's base URL: this one, else the one in the environment, else Hugging Face's own."""
    if api_url is not None:
        return _checked(api_url, "api_url")
    return base_url(API_URL_ENV, API_URL)


def hub_url() -> str:
    """Return the Hub's base URL."""
    return base_url("HF_ENDPOINT", _HUB_URL)


def base_url(variable: str, default: str) -> str:
    """Return the URL in an environment variable, without a slash at its end, or the default. Raises `UsageError`."""
    return _checked(os.environ.get(variable) or default, variable)


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


async def as_object(response: aiohttp.ClientResponse) -> Mapping[str, Any]:
    """Read a JSON object."""
    content = await _content(response)
    try:
        document: object = orjson.loads(content)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ValueError(failures.words(content))
    return document


async def as_list(response: aiohttp.ClientResponse) -> Sequence[Mapping[str, Any]]:
    """Read a JSON list of objects."""
    content = await _content(response)
    try:
        document: object = orjson.loads(content)
    except ValueError:
        document = None
    if not isinstance(document, list) or not all(isinstance(entry, dict) for entry in document):
        raise ValueError(failures.words(content))
    return document


async def as_text(response: aiohttp.ClientResponse) -> str:
    """Read text."""
    return (await _content(response)).decode(errors="replace")


async def as_stream(response: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
    """Leave the answer to be read by `HfCalls.chunk`."""
    return response


async def _account(response: aiohttp.ClientResponse) -> Account:
    account = await as_object(response)
    name, organizations = account.get("name"), account.get("orgs")
    if not isinstance(name, str):
        raise ValueError("there is no account in it")
    names = (
        [entry.get("name") for entry in organizations if isinstance(entry, dict)]
        if isinstance(organizations, list)
        else []
    )
    return Account(name, tuple(organization for organization in names if isinstance(organization, str)))
