"""Where the HTTP server listens: HOST:PORT, and the authorities under which a browser may name it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from orchestrator.domain.urls import is_loopback


@dataclass(frozen=True, slots=True)
class HttpAddress:
    """A host and a port; the port is 0 if any free one will do."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> HttpAddress:
        """Read HOST:PORT or [IPv6]:PORT. Raises a `ValueError` that says what is expected."""
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        bare = host[1:-1] if bracketed else host
        if not (colon and bare and port.isascii() and port.isdigit() and int(port) <= 65535):
            raise ValueError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:8377")
        if (":" in bare) != bracketed:
            raise ValueError(f"{text!r} is not HOST:PORT; an IPv6 address stands in brackets: [::1]:8377")
        return cls(bare, int(port))

    @property
    def loopback(self) -> bool:
        """Whether only processes of this machine can reach it."""
        return is_loopback(self.host)

    @property
    def wildcard(self) -> bool:
        """Whether it stands for all addresses of this machine."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False

    @property
    def url(self) -> str:
        """The address as a URL without a path."""
        return f"http://{self}"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def authorities(address: HttpAddress, hosts: tuple[str, ...]) -> frozenset[str]:
    """Return what the header Host may be, in lower case: the address, this machine's names for itself, and `hosts`.

    Any other name is one that somebody else made point here (DNS rebinding). Port 80 may be left out, as browsers do.
    """
    names = {"127.0.0.1", "localhost", "[::1]"}
    if not address.wildcard:
        names.add(str(HttpAddress(address.host, 0)).removesuffix(":0"))
    own = {f"{name}:{address.port}" for name in names} | (names if address.port == 80 else set())
    return frozenset(name.lower() for name in (*own, *hosts))
