"""How far one gets towards a server: its name resolves, a connection is encrypted, a GET is answered."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
import anyio
from anyio.streams.tls import TLSAttribute
from yarl import URL

from orchestrator.domain.errors import EndpointFailed
from orchestrator.endpoints.bodies import beginning
from orchestrator.wires import failures

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST_BYTES = 100_000  # of an answer
_DEADLINE = 10.0  # seconds for each of them


@dataclass(frozen=True, slots=True)
class Server:
    """Where a URL leads."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Server:
        """The server of this URL."""
        parsed = URL(url)
        return cls(parsed.scheme, parsed.host or "", parsed.port or 0)

    async def addresses(self) -> list[str]:
        """Its addresses. `EndpointFailed` where its name does not resolve."""
        try:
            with anyio.fail_after(_DEADLINE):
                found = await anyio.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except TimeoutError as error:
            raise EndpointFailed(f"{self.host} did not resolve within {_DEADLINE:g} s: look at the network") from error
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise EndpointFailed(f"{self.host} does not resolve ({why}): check the URL and the network") from error
        return sorted({str(address[4][0]) for address in found})

    async def protocol(self) -> str | None:
        """Connect: the TLS version, or None for plain HTTP. `EndpointFailed` where that does not succeed."""
        try:
            with anyio.fail_after(_DEADLINE):
                if self.scheme != "https":
                    async with await anyio.connect_tcp(self.host, self.port):
                        return None
                secure = anyio.connect_tcp(self.host, self.port, tls=True, tls_standard_compatible=False)
                async with await secure as stream:
                    version = stream.extra_attributes[TLSAttribute.tls_version]()
                    return f"{version}, the certificate is good for {self.host}"
        except TimeoutError as error:
            raise EndpointFailed(f"{self.host}:{self.port} did not answer within {_DEADLINE:g} s") from error
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", "") or error.reason or error
            raise EndpointFailed(f"no TLS with {self.host}:{self.port}: {reason}") from error
        except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
            why = getattr(error, "strerror", None) or str(error.__cause__ or error) or type(error).__name__
            raise EndpointFailed(f"no connection to {self.host}:{self.port}: {why}") from error


async def said_to_get(url: str, headers: Mapping[str, str]) -> str:
    """What a GET is answered, in words: "200 (Ok)". Redirects are not followed, so that headers go nowhere else."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_DEADLINE)) as session,
            session.get(url, headers=headers, allow_redirects=False) as response,
        ):
            content, _ = await beginning(response, _MOST_BYTES)
            return f"{response.status} ({failures.words(content)})"
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return f"not at all ({str(error) or type(error).__name__})"
