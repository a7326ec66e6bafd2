"""An exception of aiohttp -> our failure."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING

import aiohttp

from orchestrator.domain.errors import EndpointLost, EndpointRefused, RequestFailed
from orchestrator.wires import failures

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROXY_REFUSES: Mapping[int, str] = {  # an answer to CONNECT
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: "HTTPS_PROXY has to name a user: http://USER:PASSWORD@HOST:PORT",
    HTTPStatus.FORBIDDEN: "it does not let this host through",
    HTTPStatus.METHOD_NOT_ALLOWED: "it makes no connections for HTTPS",
}
_QUERY = re.compile(r"(https?://[^\s?]+)\?\S*", re.IGNORECASE)


def from_exception(url: str, error: Exception) -> RequestFailed | EndpointLost | EndpointRefused:
    """Return the failure for an exception of aiohttp. Raises `NoRoom` if this machine is the cause."""
    failures.check_room(error)
    if isinstance(error, aiohttp.InvalidURL):
        return failures.no_url(url)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return failures.no_connection_in_time(url)
    if (reason := why_not_connected(error)) is not None:
        return _not_connected(url, error, reason)
    if isinstance(error, TimeoutError):
        return failures.too_slow()
    return failures.broken(_told(error) or type(error).__name__)


def _not_connected(url: str, error: Exception, reason: str) -> EndpointLost | EndpointRefused:
    match error:
        case aiohttp.ClientSSLError():
            return EndpointRefused(f"{url}: {reason}")
        case aiohttp.ClientHttpProxyError(status=status) if status in _PROXY_REFUSES:
            return EndpointRefused(f"{url}: {reason}: {_PROXY_REFUSES[status]}")
    return EndpointLost(reason)


def why_not_connected(error: BaseException) -> str | None:
    """Return why no connection could be made, naming the host, or None if that is not what happened."""
    match error:
        case aiohttp.ClientHttpProxyError():
            return f"the proxy answered {error.status} ({failures.on_one_line(error.message)}) to CONNECT"
        case aiohttp.ClientSSLError():
            return f"the TLS connection cannot be trusted ({error})"
        case aiohttp.ClientProxyConnectionError():
            return f"cannot connect to the proxy {error.host}:{error.port} ({failures.reason_of(error.os_error)})"
        case aiohttp.ClientConnectorError():
            return failures.unreachable(error.host, error.port, error.os_error)
    return None


def _told(error: Exception) -> str:
    """Return an exception's message on one line, without the queries of URLs, which may hold secrets.

    aiohttp quotes the URL if an answer is not HTTP, and if a body cannot be sent.
    """
    return failures.on_one_line(_QUERY.sub(r"\1", str(error)))
