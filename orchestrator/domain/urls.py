"""Removes or masks keys in the queries of URLs: answers do not depend on them, and they must not be stored."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from urllib.parse import unquote

_KEY = re.compile(  # must not match api-version, model and deployment; Azure Functions names its key `code`
    r"^(code|sig|sas|pat|pass|jwt)$|(key|token|secret|signature|credentials?|password|passwd|pwd|auth|authorization)$",
    re.IGNORECASE,
)
_URL = re.compile(r"https?://\S+", re.IGNORECASE)
_PASSWORD = re.compile(r"://[^\s/?#@:]*:[^\s/?#@]+@")  # of a proxy, or of a database
_VALUE = r"(?:\"[^\"]*\"|'[^']*'|\S+)"
_SETTINGS = (  # in the arguments of a command, or in a line for a shell
    re.compile(rf"(?<![\w?&./-])(-{{0,2}}[A-Za-z][\w-]*)(=){_VALUE}"),  # --api-key=KEY, API_KEY=KEY
    re.compile(rf"(?<!\S)(--?[A-Za-z][\w-]*)(\s+){_VALUE}"),  # --api-key KEY
    re.compile(r"(?<![\w-])([A-Za-z][\w-]*)(:\s+)[^\"']+"),  # Authorization: Bearer KEY
)
_PART = re.compile(r"(?<=[?&])([^=&#\s]+=)?([^&#\s]+)")


def without_keys(url: str) -> str:
    """Return the URL without query parameters that are named like a key; unchanged if it has none."""
    before, mark, rest = url.partition("?")
    query, hash_, fragment = rest.partition("#")
    parts = query.split("&")
    kept = [part for part in parts if not names_key(part.partition("=")[0])]
    if len(kept) == len(parts):
        return url
    return before + (mark if kept else "") + "&".join(kept) + hash_ + fragment


def holds_key(text: str) -> bool:
    """Whether the text contains a URL with a password, or with a query parameter that is named like a key."""
    return _PASSWORD.search(text) is not None or any(without_keys(url) != url for url in _URL.findall(text))


def is_loopback(host: str | None) -> bool:
    """Whether the host is this machine: `localhost` or a loopback address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def shown(value: object) -> object:
    """Return plain data with all values in the queries of URLs masked, even those not named like a key.

    Texts under a name like a key's are masked too, and in lists, such as a command, what is set under such a name, as
    in `without_settings`.
    """
    if isinstance(value, str):
        return _PART.sub(r"\1***", value) if _URL.fullmatch(value) else value
    if isinstance(value, Mapping):
        return {name: "***" if _is_secret(name, part) else shown(part) for name, part in value.items()}
    return _arguments_shown(value) if isinstance(value, list | tuple) else value


def names_option(argument: object) -> bool:
    """Whether the next argument of a command is a key: `--api-key`."""
    return isinstance(argument, str) and argument.startswith("-") and names_key(argument)


def without_settings(argument: str) -> str:
    """Return an argument of a command with the values masked that it sets under a name like a key's.

    These are options, environment variables and headers: `--api-key=KEY`, `API_KEY=KEY`, `Authorization: Bearer KEY`.
    """
    for setting in _SETTINGS:
        argument = setting.sub(lambda one: f"{one[1]}{one[2]}***" if names_key(one[1]) else one[0], argument)
    return argument


def _arguments_shown(arguments: Sequence[object]) -> list[object]:
    """Return the parts of a list, which may be a command."""
    kept: list[object] = []
    for part in arguments:
        if kept and names_option(kept[-1]):
            kept.append("***")
        else:
            found = shown(part)
            kept.append(without_settings(found) if isinstance(found, str) else found)
    return kept


def without_secrets(value: object) -> object:
    """Return plain data, such as a request's template, with fixed texts under a name like a key's masked."""
    if isinstance(value, Mapping):
        return {name: "***" if _is_secret(name, part) else without_secrets(part) for name, part in value.items()}
    return [without_secrets(part) for part in value] if isinstance(value, list | tuple) else value


def _is_secret(name: object, value: object) -> bool:
    return isinstance(value, str) and "{" not in value and names_key(str(name))


def names_key(name: str) -> bool:
    """Whether a parameter, variable or option with this name holds a key."""
    return _KEY.search(unquote(name)) is not None
