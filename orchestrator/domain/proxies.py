"""Selects the proxy for a URL from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, as curl does.

The proxy for a URL is a pure function of the environment: aiohttp's own `trust_env` would send loopback
through it and read `~/.netrc`.
"""

from __future__ import annotations

import base64
import ipaddress
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from orchestrator.domain.errors import UsageError
from orchestrator.domain.urls import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

_PORTS = {"http": 80, "https": 443}


def proxy_for(url: str, environment: Mapping[str, str]) -> str | None:
    """Return the proxy's URL; None if the server is reached directly, as servers on this machine always are.

    Lower-case variables take precedence. Raises `UsageError` if the variable that applies is not the URL of an HTTP
    proxy.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    if _is_here(host) or _is_exempt(host, parts.port or _PORTS.get(parts.scheme), _value("no_proxy", environment)):
        return None
    for name in (f"{parts.scheme}_proxy", "all_proxy"):
        if value := _value(name, environment):
            return _checked(value, name.upper())
    return None


def proxy_headers(proxy: str | None) -> dict[str, str]:
    """Return the header that authenticates us to the proxy, if it needs one. Its value is a secret."""
    parts = urlsplit(proxy or "")
    if not parts.username:
        return {}
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}


def _value(name: str, environment: Mapping[str, str]) -> str:
    return (environment.get(name) or environment.get(name.upper(), "")).strip()


def _checked(value: str, variable: str) -> str:
    proxy = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(proxy)
        fine = parts.scheme in _PORTS and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fine = False
    if not fine:
        raise UsageError(
            f"{variable} must be the URL of an HTTP proxy, like http://proxy:3128 (SOCKS is not supported)"
        )
    return proxy


def _is_here(host: str) -> bool:
    if is_loopback(host) or host.endswith(".localhost"):
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_unspecified
    return False


def _is_exempt(host: str, port: int | None, no_proxy: str) -> bool:
    return any(_fits(host, port, entry.strip().lower()) for entry in no_proxy.split(","))


def _fits(host: str, port: int | None, entry: str) -> bool:
    """Whether a NO_PROXY entry covers this host: `*`, a domain with its subdomains, an address, a network; `:port`."""
    if entry in {"", "*"}:
        return entry == "*"
    with suppress(ValueError):  # if the entry is not an address or a network, it is a name
        network = ipaddress.ip_network(entry.strip("[]"), strict=False)
        return ipaddress.ip_address(host) in network
    name, _, only = entry.rpartition(":") if entry.rpartition(":")[2].isdecimal() else (entry, "", "")
    if only and int(only) != port:
        return False
    name = name.strip("[]").removeprefix("*").removeprefix(".").rstrip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))
