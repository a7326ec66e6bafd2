"""Check whether a server can be reached: its name resolves, it accepts connections, its certificate is valid.

Every run over HTTP imports this. It imports aiohttp only where it asks with it.
"""

from __future__ import annotations

import os
import socket
import ssl
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

import anyio
import orjson
from anyio.streams.tls import TLSAttribute
from yarl import URL

from orchestrator.domain.errors import EndpointFailed
from orchestrator.domain.proxies import proxy_for
from orchestrator.endpoints.bodies import beginning
from orchestrator.wires import failures

if TYPE_CHECKING:
    from collections.abc import Mapping

    import aiohttp

_MOST_BYTES = 100_000  # of an answer
_DEADLINE = 10.0  # seconds for each check
_PROBE = 5.0  # seconds for checking whether it answers at all
_OF_PROXIES = {  # a proxy's answers if the server does not answer it, or if it refuses to forward
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """The server that a URL points to."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> ServerAddress:
        """Return the server of this URL."""
        parsed = URL(url)
        return cls(parsed.scheme, parsed.host or "", parsed.port or 0)

    @property
    def proxy(self) -> str | None:
        """The proxy for this server, or None if there is none."""
        return proxy_for(self._origin, os.environ)

    async def reached_by_proxy(self) -> str:
        """Request the server's root through the proxy. Raises `EndpointFailed` unless the server answers anything."""
        url = URL(self._origin)
        if (reason := await why_silent(url, None, {})) is not None:
            raise EndpointFailed(reason)
        return f"{self.host}:{self.port} answers"

    @property
    def _origin(self) -> str:
        return str(URL.build(scheme=self.scheme, host=self.host, port=self.port or None))

    async def addresses(self) -> list[str]:
        """Return the server's IP addresses. Raises `EndpointFailed` if its name does not resolve."""
        try:
            with anyio.fail_after(_DEADLINE):
                resolved = await anyio.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except TimeoutError as error:
            raise EndpointFailed(f"{self.host} did not resolve within {_DEADLINE:g} s: check the network") from error
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise EndpointFailed(f"{self.host} does not resolve ({why}): check the URL and the network") from error
        return sorted({str(address[4][0]) for address in resolved})

    async def protocol(self) -> str | None:
        """Connect, and return the TLS version or, for plain HTTP, None. Raises `EndpointFailed` if that fails."""
        try:
            with anyio.fail_after(_DEADLINE):
                if self.scheme != "https":
                    async with await anyio.connect_tcp(self.host, self.port):
                        return None
                secure = anyio.connect_tcp(self.host, self.port, tls=True, tls_standard_compatible=False)
                async with await secure as stream:
                    version = stream.extra_attributes[TLSAttribute.tls_version]()
                    return f"{version}, the certificate is valid for {self.host}"
        except TimeoutError as error:
            raise EndpointFailed(f"{self.host}:{self.port} did not answer within {_DEADLINE:g} s") from error
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", "") or error.reason or error
            raise EndpointFailed(f"no TLS with {self.host}:{self.port}: {reason}") from error
        except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
            why = getattr(error, "strerror", None) or str(error.__cause__ or error) or type(error).__name__
            raise EndpointFailed(f"no connection to {self.host}:{self.port}: {why}") from error


async def why_silent(server: URL, health: str | None, headers: Mapping[str, str]) -> str | None:
    """Return why the server would not answer now, or None if it would.

    It would answer if its health route says so (`says_ready`) or, if it has none, if it accepts a connection. The
    headers are sent only to its own origin.
    """
    url = server.with_path("/") if health is None else server.join(URL(health))
    proxy = proxy_for(str(url), os.environ)
    if health is None and proxy is None:
        return await _why_not_connected(ServerAddress.of(str(server)))
    import aiohttp

    from orchestrator.wires.aiohttp_failures import why_not_connected

    own = headers if health is not None and url.origin() == server.origin() else {}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_PROBE)) as session,
            session.get(url, headers=own, allow_redirects=False, proxy=proxy) as response,
        ):
            answered = f"GET {url.path} is answered {response.status}"
            if health is not None:
                return None if await says_ready(response) else answered
            return f"{answered} through the proxy" if response.status in _OF_PROXIES else None
    except TimeoutError:
        return f"{url.host}:{url.port} does not answer within {_PROBE:g} s"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return why_not_connected(error) or f"GET {url.path} fails ({type(error).__name__})"


async def says_ready(response: aiohttp.ClientResponse) -> bool:
    """Whether a health route says that the server is ready: it answers 200, or it is refused as the server is full."""
    if response.status == HTTPStatus.OK:
        return True
    content, _ = await beginning(response, _MOST_BYTES)
    return failures.is_full(response.status, response.headers, content)


async def served_models(base: URL, headers: Mapping[str, str]) -> list[str]:
    """Return the models that the server lists at /v1/models, or an empty list if it has no such route."""
    import aiohttp

    parts = base.path.partition("/v1")
    url = base.with_path(parts[0].rstrip("/") + "/v1/models")
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_PROBE)) as session,
            session.get(url, headers=headers, allow_redirects=False, proxy=proxy_for(str(url), os.environ)) as response,
        ):
            content, whole = await beginning(response, _MOST_BYTES)
            listing = orjson.loads(content) if whole and response.status == HTTPStatus.OK else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return []
    match listing:
        case {"data": [*entries]}:
            return [entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
    return []


async def _why_not_connected(server: ServerAddress) -> str | None:
    where = f"cannot connect to {server.host}:{server.port}"
    try:
        with anyio.fail_after(_PROBE):
            async with await anyio.connect_tcp(server.host, server.port):
                return None
    except TimeoutError:
        return f"{where} (nothing within {_PROBE:g} s)"
    except (OSError, UnicodeError) as error:
        return f"{where} ({failures.reason_of(error)})"


async def said_to_get(url: str, headers: Mapping[str, str]) -> str:
    """Return the answer to a GET as text: "200 (Ok)". Redirects are not followed, so that headers go nowhere else."""
    import aiohttp

    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_DEADLINE)) as session,
            session.get(url, headers=headers, allow_redirects=False, proxy=proxy_for(url, os.environ)) as response,
        ):
            content, _ = await beginning(response, _MOST_BYTES)
            return f"{response.status} ({failures.words(content)})"
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return f"not at all ({str(error) or type(error).__name__})"
