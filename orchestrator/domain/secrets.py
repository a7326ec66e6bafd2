"""Secrets that we send, kept out of every word that is shown or stored."""

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

from orchestrator.domain.urls import holds_key, names_key

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")  # a line end would begin another header


def usable_headers(headers: Mapping[str, str], where: str = "headers") -> dict[str, str]:
    """The headers without the white space around values: a secret that was read from a file ends with its line.

    `ValueError` names one that cannot be sent, and does not show it.
    """
    usable = {}
    for name, value in headers.items():
        if not _NAME.fullmatch(str(name)):
            raise ValueError(f"{where}: {name!r} cannot be the name of a header")
        if not isinstance(value, str):
            raise ValueError(f"{where}[{name!r}] must be a text, not a value of the type {type(value).__name__}")
        usable[name] = value.strip()
        if _UNSENDABLE.search(usable[name]):
            raise ValueError(f"{where}[{name!r}] holds a line end or another character that no header may hold")
    return usable


MASK = "***"
_NAMED_AS_SECRET = re.compile(r"auth|token|secret|key|passw|pwd|cookie|credential|session|\bsig|\bcode$", re.IGNORECASE)
_PUBLIC = re.compile(r"accept|content-|user-agent|(api[-_])?version|model|deployment", re.IGNORECASE)
_SHORTEST = 4  # characters of a value whose name says that it is a secret: fewer would mask half of every message
_SHORTEST_UNNAMED = 8  # of any other value: `X-Debug: true` is no secret
_FRAGMENT = 8  # characters of a secret in a row that give it away: messages are cut, and so are the secrets in them
_SCHEME = re.compile(r"(bearer|basic|token|digest|negotiate|(api-?)?key) +", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Secrets:
    """Texts that must not be repeated to anybody. `repr` does not show them.

    `known`: every way in which a secret may be written -> how many of its characters in a row are hidden.
    """

    known: Mapping[str, int] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, values: Iterable[str]) -> Secrets:
        """Secrets of which every value is one, however it is quoted."""
        written = {form for value in values if len(value) >= _SHORTEST for form in _forms(value)}
        return cls({form: min(len(form), _FRAGMENT) for form in written})

    @classmethod
    def within(cls, headers: Mapping[str, str], query: Iterable[tuple[str, str]] = ()) -> Secrets:
        """Those in the headers and the query of a request: by their name, else by being too long for a mere switch."""
        secret, other = set[str](), set[str]()
        for name, value in (*headers.items(), *query):
            if _NAMED_AS_SECRET.search(name):
                secret |= _parts(value)
            elif len(value) >= _SHORTEST_UNNAMED and not _PUBLIC.match(name):
                other.add(value)
        whole = {form: len(form) for value in other for form in _forms(value)}
        return cls({**whole, **cls.of(secret).known})

    def hidden_in(self, text: str) -> str:
        """The text without them, should somebody have repeated one, or a part of one, in whatever case."""
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
    """Whether something in plain data looks like a secret: a URL with a key, or a text that is called like one.

    A key of an object names its value, and so does an option of a command line (`--api-key X`, `--api-key=X`).
    """
    match value:
        case str():
            return holds_key(value)
        case Mapping():
            return any(holds_secret(part) or (_is_text(part) and names_key(str(name))) for name, part in value.items())
        case list() | tuple():
            options = (word.partition("=")[0] for word in value if isinstance(word, str) and word.startswith("-"))
            return any(map(holds_secret, value)) or any(map(names_key, options))
    return False


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _lower(text: str) -> str:
    """In lower case, and as long as before: some letters become two."""
    lower = text.lower()
    return (
        lower if len(lower) == len(text) else "".join(part if len(part.lower()) > 1 else part.lower() for part in text)
    )


def _parts(value: str) -> set[str]:
    """A value, and what is secret in it by itself: `Bearer TOKEN`, `Basic BASE64`, `name=VALUE; name=VALUE`."""
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
    """The secret as it is, and as URLs, JSON, HTML and base64 write it."""
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
