"""What aiohttp raised or a server answered -> the failure it is. Statuses as in the Hugging Face and engine sources."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import aiohttp
import orjson

from orchestrator.domain.errors import EndpointLost, EndpointRefused, FailureKind, RequestFailed

_SHOWN = 500  # characters of a server's words that are kept

# every request would be answered alike: going on costs money and changes nothing
_REFUSED = {
    HTTPStatus.UNAUTHORIZED: "check the token",
    HTTPStatus.PAYMENT_REQUIRED: "the account has no credit left",
    HTTPStatus.FORBIDDEN: "check what the token may do",
    HTTPStatus.NOT_FOUND: "check the URL and the model's name",
    HTTPStatus.METHOD_NOT_ALLOWED: "check the URL",
}
_TRANSIENT_4XX = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY}


def from_answer(url: str, status: int, headers: Mapping[str, str], body: bytes) -> RequestFailed | EndpointRefused:
    """Name the failure that a status other than 200 is."""
    said = words(body)
    if status in _REFUSED:
        return EndpointRefused(f"{url} answered {status} ({said}): {_REFUSED[HTTPStatus(status)]}")
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        where = headers.get("Location", "nowhere")
        return EndpointRefused(f"{url} redirects to {where}; redirects are not followed, name the final URL")
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        kind = FailureKind.RATE_LIMITED
    elif status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _TRANSIENT_4XX:
        kind = FailureKind.UNAVAILABLE
    elif status >= HTTPStatus.BAD_REQUEST:
        kind = FailureKind.REJECTED
    else:
        kind = FailureKind.BAD_ANSWER  # 204 and the like: success without an answer
    return RequestFailed(kind, said, status=status, retry_after=_retry_after(headers))


def from_exception(url: str, error: Exception) -> RequestFailed | EndpointLost | EndpointRefused:
    """Name the failure that an exception of aiohttp is."""
    if isinstance(error, aiohttp.InvalidURL):
        return EndpointRefused(f"{url!r} is not a URL")
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return EndpointRefused(f"{url}: the TLS connection cannot be trusted ({error})")
    if isinstance(error, aiohttp.ClientConnectorError):
        return EndpointLost(f"cannot connect to {error.host}:{error.port} ({error.strerror or error})")
    if isinstance(error, TimeoutError):
        return RequestFailed(FailureKind.TIMEOUT, "no complete answer before the attempt's time-out")
    return RequestFailed(FailureKind.CONNECTION, f"the connection broke: {str(error) or type(error).__name__}")


def words(body: bytes) -> str:
    """What a server said, on one line: the text inside its JSON where there is one."""
    try:
        said: object = orjson.loads(body)
    except ValueError:
        said = body[: 4 * _SHOWN].decode(errors="replace")
    while isinstance(said, Mapping):
        said = said.get("error") or said.get("message") or said.get("detail") or orjson.dumps(said).decode()
    text = said if isinstance(said, str) else orjson.dumps(said).decode()
    return re.sub(r"\s+", " ", text).strip()[:_SHOWN] or "no words"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a `Retry-After` header asks for, as a number or as a date."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
