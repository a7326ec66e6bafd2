"""Masks the secrets that we send in all text that is shown or stored."""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from orchestrator.domain.urls import holds_key, names_key, names_option, without_settings

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")  # a line end would begin another header


def usable_headers(headers: Mapping[str, str], where: str = "headers") -> dict[str, str]:
    """Return the headers with whitespace around values removed: a secret read from a file ends with a line end.

    Raises a `ValueError` that names a header that cannot be sent, without showing its value.
    """
    usable = {}
    for name, value in headers.items():
        if not _NAME.fullmatch(str(name)):
            raise ValueError(f"{where}: {name!r} cannot be the name of a header")
        if not isinstance(value, str):
            raise ValueError(f"{where}[{name!r}] must be a string, not a value of the type {type(value).__name__}")
        usable[name] = value.strip()
        if _UNSENDABLE.search(usable[name]):
            raise ValueError(f"{where}[{name!r}] contains a line end or another character not allowed in a header")
    return usable


MASK = "***"
_NAMED_AS_SECRET = re.compile(r"auth|token|secret|key|passw|pwd|cookie|credential|session|\bsig|\bcode$", re.IGNORECASE)
_PUBLIC = re.compile(r"accept|content-|user-agent|(api[-_])?version|model|deployment", re.IGNORECASE)
_SHORTEST = 4  # characters of a value whose name marks it as a secret: masking shorter ones would garble messages
_SHORTEST_UNNAMED = 8  # characters of any other value: `X-Debug: true` is not a secret
_FRAGMENT = 8  # consecutive characters of a secret that are masked: messages, and secrets in them, may be truncated
_SCHEME = re.compile(r"(bearer|basic|token|digest|negotiate|(api-?)?key) +", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Secrets:
    """Texts that must never be shown; not even their `repr` shows them.

    `known`: every form in which a secret may be written -> the number of consecutive characters of it that are masked.
    """

    known: Mapping[str, int] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, values: Iterable[str]) -> Secrets:
        """Treat every value as a secret, in all forms of quoting."""
        written = {form for value in values if len(value) >= _SHORTEST for form in _forms(value)}
        return cls({form: min(len(form), _FRAGMENT) for form in written})

    @classmethod
    def within(cls, headers: Mapping[str, str], query: Iterable[tuple[str, str]] = ()) -> Secrets:
        """Find the secrets in the headers and query of a request, by name, or as values too long to be a mere flag."""
        secret, other = set[str](), set[str]()
        for name, value in (*headers.items(), *query):
            if _NAMED_AS_SECRET.search(name):
                secret |= _parts(value)
            elif len(value) >= _SHORTEST_UNNAMED and not _PUBLIC.match(name):
                other.add(value)
        whole = {form: len(form) for value in other for form in _forms(value)}
        return cls({**whole, **cls.of(secret).known})

    def hidden_in(self, text: str) -> str:
        """Return the text with all secrets masked, including parts of them and in any letter case."""
        hidden, folded = bytearray(len(text)), _lower(text)
        for secret, length in self.known.items():
            lower = _lower(secret)
            for start in range(len(lower) - length + 1):
                piece, at = lower[start : start + length], -1
                while (at := folded.find(piece, at + 1)) >= 0:
                    hidden[at : at + length] = b"\1" * length
        if not any(hidden):
            return text
        return "".join(
            text[part.start() : part.end()] if not part[0][0] else MASK for part in re.finditer(rb"\x00+|\x01+", hidden)
        )


def holds_secret(value: object) -> bool:
    """Whether plain data contains something that looks like a secret: a URL with a key, or a text named like a secret.

    Names are the keys of objects and those of options, variables and headers in a command line (`--api-key X`,
    `--api-key=X`, `API_KEY=X`, `Authorization: X`).
    """
    match value:
        case str():
            return holds_key(value)
        case Mapping():
            return any(holds_secret(part) or (_is_text(part) and names_key(str(name))) for name, part in value.items())
        case list() | tuple():
            words = [word for word in value if isinstance(word, str)]
            return any(names_option(word) or without_settings(word) != word for word in words) or any(
                map(holds_secret, value)
            )
    return False


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _lower(text: str) -> str:
    """Return the text in lower case at the same length: letters whose lower case has two characters are kept."""
    lower = text.lower()
    return (
        lower if len(lower) == len(text) else "".join(part if len(part.lower()) > 1 else part.lower() for part in text)
    )


def _parts(value: str) -> set[str]:
    """Return a value and the secrets inside it: `Bearer TOKEN`, `Basic BASE64`, `name=VALUE; name=VALUE`."""
    scheme = _SCHEME.match(value)
    bare = value[scheme.end() :] if scheme else value
    parts = {bare}
    for pair in re.split(r"[;,]\s*", bare):
        name, _, inside = pair.partition("=")
        parts.add(inside.strip('"') if inside and name else pair)
    with_user = _decoded(bare)
    return parts | {with_user, with_user.partition(":")[2]}


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        return ""


def _forms(secret: str) -> set[str]:
    """Return the secret as it is, and as written in URLs, JSON, HTML and base64."""
    in_json = json.dumps(secret)[1:-1]
    return {
        secret,
        quote(secret, safe=""),
        quote_plus(secret),
        in_json,
        in_json.replace("/", "\\/"),
        html.escape(secret),
        base64.b64encode(secret.encode(errors="replace")).decode(),
    }
