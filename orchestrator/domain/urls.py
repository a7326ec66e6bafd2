"""What of a URL's query may be kept: a key in it is no part of what an answer depends on, and is written nowhere."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import unquote

_KEY = re.compile(  # api-version, model and deployment are none; Azure's functions call theirs `code`
    r"^(code|sig|sas|pat|pass|jwt)$|(key|token|secret|signature|credentials?|password|passwd|pwd|auth|authorization)$",
    re.IGNORECASE,
)
_URL = re.compile(r"https?://\S+", re.IGNORECASE)
_PART = re.compile(r"(?<=[?&])([^=&#\s]+=)?([^&#\s]+)")


def without_keys(url: str) -> str:
    """The URL without those parameters of its query that are called like a key; one that has none as it is."""
    before, mark, rest = url.partition("?")
    query, hash_, fragment = rest.partition("#")
    parts = query.split("&")
    kept = [part for part in parts if not names_key(part.partition("=")[0])]
    if len(kept) == len(parts):
        return url
    return before + (mark if kept else "") + "&".join(kept) + hash_ + fragment


def holds_key(text: str) -> bool:
    """Whether there is a URL in a text with a parameter that is called like a key."""
    return any(without_keys(url) != url for url in _URL.findall(text))


def is_loopback(host: str | None) -> bool:
    """Whether a host is this very machine, by its name or address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def shown(value: object) -> object:
    """Plain data with whatever stands in the query of a URL hidden: also what is not called like a key."""
    if isinstance(value, str):
        return _PART.sub(r"\1***", value) if _URL.fullmatch(value) else value
    if isinstance(value, Mapping):
        return {key: shown(part) for key, part in value.items()}
    return [shown(part) for part in value] if isinstance(value, list | tuple) else value


def names_key(name: str) -> bool:
    """Whether a parameter, a variable or an option of this name holds a key."""
    return _KEY.search(unquote(name)) is not None
