"""A server's answer, or that there is none -> our failure. Statuses as in the Hugging Face and engine sources."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from math import isfinite

import orjson

from orchestrator.domain.errors import EndpointLost, EndpointRefused, FailureKind, NoRoom, OutOfCredit, RequestFailed
from orchestrator.domain.waiting import LONGEST
from orchestrator.wires.quota import used_up_for

_LACKS = {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS}  # this machine has run out
Failure = RequestFailed | EndpointLost | EndpointRefused | OutOfCredit

_MOMENT = 1e9  # seconds: larger numbers count from 1970
_SHOWN = 500  # characters of a server's message that are kept

# every request would be answered alike: continuing costs money and changes nothing
_REFUSED: Mapping[int, str] = {
    HTTPStatus.UNAUTHORIZED: "check the token",
    HTTPStatus.FORBIDDEN: "check what the token may do",
    HTTPStatus.NOT_FOUND: "check the URL and the model's name",
    HTTPStatus.METHOD_NOT_ALLOWED: "check the URL",
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: "HTTP_PROXY has to name a user: http://USER:PASSWORD@HOST:PORT",
    HTTPStatus.REQUEST_URI_TOO_LONG: "the URL is too long for the server",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "the headers are too long for the server: check the token",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "the server does not take what this wire sends",
    HTTPStatus.NOT_IMPLEMENTED: "the server cannot do that; check the wire and the model",
}
_TRANSIENT = {HTTPStatus.NO_CONTENT, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY}
# 503: RFC 9110, 15.6.4; uvicorn, Envoy and Knative answer it beyond their limit. The engine finds out whether the
# server is really down
_OVERLOADED = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE, 529}
_FULL = {"Server": "uvicorn", "Connection": "close"}  # sets uvicorn's own 503 apart from an application's
_NOTHING_BEHIND = {HTTPStatus.NOT_FOUND, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE}  # a proxy's answers
_TOO_MANY = re.compile(  # TEI; Infinity
    r"""batch size \d+ > maximum allowed batch size (?P<tei>\d+)"""
    r"""|"inputs?",.{0,80}?"msg":"List should have at most (?P<infinity>\d+) items""",
    re.IGNORECASE,
)
# Refusals that hold for every request: of TEI, the toolkit, llama.cpp, Infinity, LiteLLM and transformers
_EVERY_REQUEST = re.compile(
    r"model is not an? (?!multimodal)|content type .{0,80} not supported|no content type provided"
    r"|pooling type .{0,40} not OAI|ModelNotDeployedError|invalid model name passed|server is pinned to ",
    re.IGNORECASE,
)
_BLAMES_INPUT = re.compile(  # errors of the server (500) in which llama.cpp means the request
    r"too large to process|input is not supported|failed to parse tools", re.IGNORECASE
)
_TOO_LARGE = re.compile(r"\brequest (?:is |was )?too large\b", re.IGNORECASE)  # OpenAI, Groq
_LIMIT = re.compile(r"\blimit\W{1,3}(\d[\d,_]{0,20})", re.IGNORECASE)
_REQUESTED = re.compile(r"\brequested\W{1,3}(\d[\d,_]{0,20})", re.IGNORECASE)
# what is out of order, not full: `transformers serve` with continuous batching (503); LiteLLM if all servers of a model
# rest because they have failed (429 with Retry-After)
_OUT_OF_ORDER = re.compile(r"\bCB worker (?:is dead|died)\b|\bdeployments\b.{0,60}\bin cooldown\b")
_LONG_HEADERS = re.compile(r"request header or cookie too large", re.IGNORECASE)  # nginx, with 400
_LOGIN = "Not authenticated"  # Gradio with `auth=`, and FastAPI
_LOADING = re.compile(r"\bloading model\b|\bcurrently loading\b", re.IGNORECASE)  # llama.cpp; the hosted API
_NOT_THE_PLACE = re.compile(r"(?<=//)[^/?#]*@|[?#].*", re.DOTALL)  # of a URL: who asks, and what for
_OUT_OF_MEMORY = re.compile(r"out of memory|\bCUDA\b|\bOOM\b", re.IGNORECASE)
_ASLEEP = (
    "endpoint is paused",
    "invalid state",
    "is in error",
)  # messages of the platform's 400 when no input is to blame


def from_platform_answer(url: str, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """Return the failure for a status other than 200 if Hugging Face's proxy is in front of the server.

    The platform's own answers have a `code`; the server's answers do not, and are read as anywhere else.
    """
    said, fields = words(body), fields_of(body)
    if status == HTTPStatus.BAD_REQUEST and fields is not None and "code" not in fields:
        return _in_doubt(from_answer(url, status, headers, body))  # the toolkit's own bugs are 400 too
    match status, fields.get("code") if fields is not None else None:
        case (HTTPStatus.SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE"):
            return EndpointLost(f"{url} is not ready ({said})", starting=True, retry_after=retry_after(headers))
        case (HTTPStatus.BAD_REQUEST, "BAD_REQUEST") if any(sign in said.lower() for sign in _ASLEEP):
            return EndpointLost(f"{url} answered {status} ({said})")
        case (HTTPStatus.NOT_FOUND, "NOT_FOUND"):
            return EndpointLost(f"{url} is not there ({said})")
        case (HTTPStatus.BAD_GATEWAY, None) if fields is None:
            return EndpointLost(f"nobody answers behind {url} ({said})")
    return from_answer(url, status, headers, body)


def from_proxied_answer(url: str, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """Return the failure for a status other than 200 if the proxy of jobs and Spaces is in front of the server.

    The proxy's own answers, if nothing runs behind it, are no JSON.
    """
    if status in _NOTHING_BEHIND and not body.lstrip().startswith((b"{", b"[")):
        return EndpointLost(f"nothing answers behind {url} ({status})")
    return from_answer(url, status, headers, body)


def is_full(status: int, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether a server has loaded, but is at the limit of its connections (`--limit-concurrency` of uvicorn)."""
    own = all(headers.get(name, "").lower() == value for name, value in _FULL.items())
    return own and status == HTTPStatus.SERVICE_UNAVAILABLE and body == b"Service Unavailable"


def from_answer(url: str, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """Return the failure for a status other than 200."""
    said = words(body)
    if is_full(status, headers, body):
        said = f"{said}: overloaded, uvicorn's --limit-concurrency is reached"
    if status == HTTPStatus.PAYMENT_REQUIRED:
        return OutOfCredit(f"{url} answered {status} ({said}): add credit, then run the same command again to continue")
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        where = on_one_line(_NOT_THE_PLACE.sub("", headers.get("Location", "nowhere")))
        return EndpointRefused(f"{url} redirects to {where}; redirects are not followed, name the final URL")
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        seconds = _estimated_time(body)
        if seconds is not None or _LOADING.search(said):
            return EndpointLost(f"{url} is not ready ({said})", starting=True, retry_after=seconds)
    if status == HTTPStatus.TOO_MANY_REQUESTS and "insufficient_quota" in body.decode(errors="replace"):
        return OutOfCredit(f"{url} answered {status} ({said}): raise the quota, then run the same command again")
    if (remedy := _remedy(status, said)) is not None:
        refused = EndpointRefused(f"{url} answered {status} ({said}): {remedy}")
        refused.forbidden = status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
        return refused
    too_many = _TOO_MANY.search(said)
    return RequestFailed(
        _kind(status, said),
        said,
        status=status,
        retry_after=None if _OUT_OF_ORDER.search(said) else retry_after(headers),
        most=None if too_many is None else max(1, int(too_many[too_many.lastgroup or 0])),
    )


def _remedy(status: int, said: str) -> str | None:
    """Return what to do if every request would be answered alike; None if that is not known."""
    if status == HTTPStatus.UNAUTHORIZED and said == _LOGIN:
        return "check the token; a login of the app itself (auth= of Gradio) has to be removed"
    if status == HTTPStatus.BAD_REQUEST and _LONG_HEADERS.search(said):
        return _REFUSED[HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE]
    client_error = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    return "check the wire and the model" if client_error and _EVERY_REQUEST.search(said) else _REFUSED.get(status)


def _kind(status: int, said: str) -> FailureKind:
    """Return what a status means for one request, according to the servers' sources and documentation."""
    if status == HTTPStatus.TOO_MANY_REQUESTS and _is_too_large(said):
        return FailureKind.DUBIOUS
    if status in _OVERLOADED and not _OUT_OF_ORDER.search(said):
        return FailureKind.RATE_LIMITED
    if status == HTTPStatus.INTERNAL_SERVER_ERROR and _BLAMES_INPUT.search(said):
        return FailureKind.DUBIOUS
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _TRANSIENT | _OVERLOADED:
        return FailureKind.UNAVAILABLE
    if status == HTTPStatus.FAILED_DEPENDENCY or _OUT_OF_MEMORY.search(said):
        return FailureKind.DUBIOUS
    return FailureKind.REJECTED if status >= HTTPStatus.BAD_REQUEST else FailureKind.BAD_ANSWER


def _is_too_large(said: str) -> bool:
    """Whether this request alone exceeds the limit, so that an idle server would refuse it too."""
    if _TOO_LARGE.search(said):
        return True
    limit, requested = _LIMIT.search(said), _REQUESTED.search(said)
    return limit is not None and requested is not None and _number(requested[1]) > _number(limit[1])


def _number(digits: str) -> int:
    return int(re.sub(r"\D", "", digits))


def _in_doubt(failure: Failure) -> Failure:
    if isinstance(failure, RequestFailed) and failure.kind is FailureKind.REJECTED and failure.most is None:
        failure.kind = FailureKind.DUBIOUS
    return failure


def check_room(error: Exception) -> None:
    """Raise `NoRoom` if this machine is the cause: it has no more descriptors, ports or buffers."""
    if isinstance(error, OSError) and error.errno in _LACKS:
        raise NoRoom(os.strerror(error.errno)) from error


def too_slow() -> RequestFailed:
    """Return the failure for a request without a complete answer in time."""
    return RequestFailed(FailureKind.TIMEOUT, "no complete answer before the attempt's time-out")


def no_connection_in_time(url: str) -> EndpointLost:
    """Return the failure for a server to which no connection was made in time."""
    return EndpointLost(f"cannot connect to {url}: no connection before the time-out")


def unreachable(host: str | None, port: int | None, error: OSError) -> str:
    """Return that this server cannot be connected to, and why."""
    return f"cannot connect to {host}:{port} ({reason_of(error)})"


def no_url(url: str) -> EndpointRefused:
    """Return the failure for a URL to which nothing can be sent."""
    return EndpointRefused(f"{url!r} is not a URL")


def broken(why: str) -> RequestFailed:
    """Return the failure for a connection that broke after a request was sent, perhaps in the middle of its answer."""
    return RequestFailed(FailureKind.CONNECTION, f"the connection broke: {why}")


def reason_of(error: BaseException) -> str:
    """Return why a connection could not be made: of several tries at several addresses, the first known reason."""
    while isinstance(error, BaseExceptionGroup) or isinstance(error.__cause__, OSError | BaseExceptionGroup):
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__ or error
    if isinstance(error, socket.gaierror | UnicodeError):
        return f"the name does not resolve: {getattr(error, 'strerror', None) or error}"
    number = getattr(error, "errno", None)
    return os.strerror(number) if number and number > 0 else str(error) or type(error).__name__


def words(body: bytes) -> str:
    """Return a server's message on one line: the text inside its JSON if there is one."""
    beginning = body[: 4 * _SHOWN].decode(errors="replace")
    try:
        said: object = orjson.loads(body)
        while isinstance(said, Mapping):
            said = said.get("error") or said.get("message") or said.get("detail") or orjson.dumps(said).decode()
        text = said if isinstance(said, str) else orjson.dumps(said).decode()
    except (ValueError, TypeError):  # not JSON, or nested deeper than orjson writes
        text = beginning
    return on_one_line(text) or "no words"


def on_one_line(text: str) -> str:
    """Return the beginning of a text, on one line."""
    return re.sub(r"\s+", " ", text).strip()[:_SHOWN]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait: `retry-after-ms`, `Retry-After` (a number or a date), or the quota's headers."""
    now = _moment(headers.get("Date", "")) or datetime.now(UTC)  # by the server's own clock, if its time is known
    with suppress(ValueError):
        return _wait(float(headers.get("retry-after-ms", "")) / 1000)
    value = headers.get("Retry-After")
    if value is None:
        seconds = used_up_for(headers)
        return _wait(_from(now, seconds) + 1) if seconds else None
    with suppress(ValueError):
        return _wait(_from(now, float(value)))
    if (then := _moment(value)) is None:
        return None
    return _wait((then - now).total_seconds())


def _moment(text: str) -> datetime | None:
    """Parse an HTTP date in any of its three forms (RFC 9110, 5.6.7); one of them names no zone, but all are UTC."""
    try:
        moment = parsedate_to_datetime(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, TypeError, OverflowError):  # not a date, or one with an absurd zone or year
        return None


def _from(now: datetime, seconds: float) -> float:
    """Return the seconds from now; a number of more than 30 years is a moment, as some gateways send it."""
    return seconds - now.timestamp() if seconds > _MOMENT else seconds


def _wait(seconds: float) -> float | None:
    """Return seconds that can be waited for, or None if the text is not such a number."""
    return min(max(0.0, seconds), LONGEST) if isfinite(seconds) else None


def _estimated_time(body: bytes) -> float | None:
    """Return the seconds until a model has loaded, as the hosted API estimates them: `"estimated_time": 20.0`."""
    seconds = (fields_of(body) or {}).get("estimated_time")
    return _wait(float(seconds)) if isinstance(seconds, int | float) and not isinstance(seconds, bool) else None


def fields_of(body: bytes) -> Mapping[str, object] | None:
    """Return a body's JSON object, or None if it is not one."""
    try:
        said: object = orjson.loads(body)
    except ValueError:
        return None
    return said if isinstance(said, Mapping) else None
