"""Which HTTP client asks an endpoint: aiohttp, which does everything, or `ry`, which is faster and does less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ChosenClient = Literal["auto", "aiohttp"]  # the setting `http_client`
Watch: TypeAlias = "Callable[[bytes], None]"  # sees the parts of an answer as they come


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's answer. `content`: the beginning of its decompressed body; `whole`: whether that is all of it."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    whole: bool


def is_plain(url: str, proxy: str | None) -> bool:
    """Whether `ry` treats such requests as aiohttp does: over plain HTTP and without a proxy.

    With TLS it trusts other certificates than OpenSSL does, and prints lines of its own to standard error.
    """
    return url.startswith("http://") and proxy is None
