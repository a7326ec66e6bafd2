"""The body of a 200 -> the answers in it. Whatever is not an answer becomes a failure."""

from __future__ import annotations

import base64
import binascii
import json
import struct
from math import isfinite
from typing import TYPE_CHECKING, TypeVar

from orchestrator import exact_json
from orchestrator.domain.answer import Answer, Note, tokens_of
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.domain.json_values import one_line
from orchestrator.domain.json_values import whole as whole_text

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_SHOWN = 200  # characters of an answer that a failure quotes
_NUMBERS = {int, float}
_FLOAT32 = 4  # bytes
_MOST_DIGITS = 308  # of an integer that is kept: other readers of JSON do not take more
_DEEPEST = 254  # levels of JSON that orjson writes; it reads 1024, which could then not be written


class NoNumber:
    """A placeholder for a number that strict readers refuse: NaN, Infinity, one of 400 digits. It is never written."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


def decoded(content: bytes, *, in_part: bool = False) -> object:
    """Return the body's JSON, with U+FFFD for half a surrogate pair. Raises `RequestFailed` if there is none.

    NaN and Infinity are not JSON. `in_part`: the caller reads only part of the body, so an invalid number elsewhere
    does no harm; a `NoNumber` takes its place.
    """
    return _decoded(content, in_part=in_part)[0]


def decoded_with_text(content: bytes) -> tuple[object, str | None]:
    """Return the body's JSON as `decoded` does, and the body itself on one line; None if it is not strict JSON."""
    answer, strict = _decoded(content, in_part=False)
    return answer, one_line(content.decode()) if strict else None


def _decoded(content: bytes, *, in_part: bool) -> tuple[object, bool]:
    strict = True
    try:
        answer: object = exact_json.loads(content)
    except ValueError as error:
        strict = False
        answer, exact = _read_leniently(content)
        if not exact and not in_part:
            raise garbled(f"the answer is not JSON: {_head(content)}") from error
    if _is_error(answer):
        raise garbled(f"an error inside a 200: {_head(content)}")
    if content.count(b"[") + content.count(b"{") > _DEEPEST:  # otherwise it cannot be that deep
        _check_depth(answer, content)
    return answer, strict


def _read_leniently(content: bytes) -> tuple[object, bool]:
    """Return the value of lenient JSON, and whether all its numbers are valid. Raises `RequestFailed`."""
    missing: list[NoNumber] = []

    def no_number(text: str) -> NoNumber:
        missing.append(NoNumber(text[:_SHOWN]))
        return missing[-1]

    try:
        value = json.loads(
            content,
            parse_constant=no_number,
            parse_float=lambda text: number if isfinite(number := float(text)) else no_number(text),
            parse_int=lambda text: int(text) if len(text) <= _MOST_DIGITS else no_number(text),
        )
        return whole_text(value), not missing
    except (ValueError, RecursionError) as error:
        raise garbled(f"the answer is not JSON: {_head(content)}") from error


def _check_depth(answer: object, content: bytes) -> None:
    try:
        exact_json.dumps(answer, default=str)
    except TypeError as error:
        raise bad(f"the answer is nested deeper than {_DEEPEST} levels: {_head(content)}") from error


def garbled(reason: str) -> RequestFailed:
    """Return the failure for a 200 without any answer: usually a temporary problem of the server."""
    return RequestFailed(FailureKind.GARBLED, reason, status=200)


def bad(reason: str) -> RequestFailed:
    """Return the failure for a 200 with an answer that is not the one requested."""
    return RequestFailed(FailureKind.BAD_ANSWER, reason, status=200)


def refused(reason: str) -> RequestFailed:
    """Return the failure for a 200 in which the model declines to answer: it would decline again."""
    return RequestFailed(FailureKind.REJECTED, f"the model refused: {reason}", status=200)


def shown(value: object) -> str:
    """Return the beginning of a value, for a failure's message."""
    return _head(exact_json.dumps(value, default=str))


def whole(value: object) -> object:
    """Return the value. Raises `RequestFailed` if it is null, an error, or numbers with a null among them (often NaN).

    An error may also be in a list: `[{"error": ...}]` (TGI). A label whose score is null is not a label.
    """
    if (reason := _spoilt(value)) is not None:
        raise garbled(f"{reason}: {shown(value)}")
    if isinstance(value, dict):
        for part in value.values():
            if isinstance(part, list):  # an object may have the field with the value null
                whole(part)
    elif isinstance(value, list):
        for part in value:
            if isinstance(part, list | dict):
                whole(part)
    return value


def exact(value: object) -> object:
    """Return a part of a body that was `decoded` in part. Raises `RequestFailed` if it contains a `NoNumber`."""
    try:
        exact_json.dumps(value)
    except TypeError as error:
        raise garbled(f"a number that is none: {shown(value)}") from error
    return value


def _spoilt(value: object) -> str | None:
    if value is None:
        return "the answer is null"
    if isinstance(value, dict):
        if _is_error(value):
            return "an error inside a 200"
        if "label" in value and value.get("score", 0.0) is None:
            return "a score is null"
    elif isinstance(value, list):
        kinds = set(map(type, value))
        if type(None) in kinds and kinds <= _NUMBERS | {type(None)}:
            return "null among the numbers"
    return None


def vector(value: object) -> list[object]:
    """Return the value if it is a list of numbers; raise `RequestFailed` otherwise."""
    if not isinstance(value, list) or not value or not set(map(type, value)) <= _NUMBERS:
        raise garbled(f"not a list of numbers: {shown(value)}")
    return value


def floats(text: str) -> list[float]:
    """Decode little-endian 32-bit floats in base64 (`encoding_format="base64"`). NaN and Infinity are refused."""
    try:
        content = base64.b64decode(text, validate=True)
        numbers = list(struct.unpack(f"<{len(content) // _FLOAT32}f", content))
    except (binascii.Error, struct.error, ValueError) as error:
        raise garbled(f"not 32-bit floats in base64: {shown(text)}") from error
    if not numbers or not all(map(isfinite, numbers)):
        raise garbled("no numbers, or not finite ones, in base64")
    return numbers


def in_order(entries: object, count: int, read: Callable[[object], object]) -> list[object]:
    """Return one answer per request from entries in the requests' order. A list of another length answers none."""
    if not isinstance(entries, list) or len(entries) != count:
        found = f"a list of {len(entries)}" if isinstance(entries, list) else f"a {type(entries).__name__}"
        raise bad(f"asked {count} inputs, got {found}")
    return [_one(read, entry) for entry in entries]


def by_index(entries: object, count: int, read: Callable[[object], object]) -> list[object]:
    """Return one answer per request from entries with an `index`; a missing entry fails alone.

    Entries without any index are taken in order. Raises `RequestFailed` for all if indices repeat or are out of range.
    If all have the same index, the server does not number its entries, so answers of one request cannot be told apart.
    """
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise bad(f"asked {count} inputs, got no list of objects: {shown(entries)}")
    places = [entry.get("index") for entry in entries]
    if all(place is None for place in places):
        return in_order(entries, count, read)
    if len(places) == count > 1 and places.count(places[0]) == count:
        failure = bad(
            f"asked {count} inputs, got answers that all have the index {shown(places[0])}: one at a time, then"
        )
        failure.most = 1
        raise failure
    if not all(type(place) is int and 0 <= place < count for place in places) or len(set(places)) < len(places):
        raise bad(f"asked {count} inputs, got answers to {shown(places)}")
    known = dict(zip(places, entries, strict=True))
    return [
        _one(read, known[place]) if place in known else bad(f"no answer has the index {place}")
        for place in range(count)
    ]


def with_usage(answers: list[object], tokens_in: object, tokens_out: object = None) -> list[object]:
    """Return the answers, each with its share of these tokens if they are valid counts; failures stay unchanged."""
    known_in, known_out = tokens_of(tokens_in), tokens_of(tokens_out)
    if not answers or (known_in is None and known_out is None):
        return answers
    count = len(answers)
    shares = zip(answers, _shares(known_in, count), _shares(known_out, count), strict=True)
    return [_costing(answer, *tokens) for answer, *tokens in shares]


def _costing(answer: object, tokens_in: int | None, tokens_out: int | None) -> object:
    if isinstance(answer, RequestFailed):
        return answer
    if isinstance(answer, Answer):
        return Answer(answer.value, tokens_in, tokens_out, answer.notes)
    return Answer(answer, tokens_in, tokens_out)


def noting(entry: object, note: Note) -> Answer:
    """Return the answer with one more note."""
    if isinstance(entry, Answer):
        return Answer(entry.value, entry.tokens_in, entry.tokens_out, entry.notes | {note})
    return Answer(entry, notes=frozenset({note}))


def usage_of(answer: object, tokens_in: str = "prompt_tokens", tokens_out: str = "completion_tokens") -> list[object]:
    """Return the two numbers under `usage`, whatever they are."""
    usage = answer.get("usage") if isinstance(answer, dict) else None
    return [usage.get(tokens_in), usage.get(tokens_out)] if isinstance(usage, dict) else [None, None]


def _shares(tokens: int | None, count: int) -> list[int | None]:
    if tokens is None:
        return [None] * count
    return [tokens // count + (place < tokens % count) for place in range(count)]


def _one(read: Callable[[object], object], entry: object) -> object:
    try:
        return read(entry)
    except RequestFailed as failure:
        return failure


def _is_error(answer: object) -> bool:
    """Whether it is `{"error": "..."}` or `{"error": {...}}`; a number with that name is a measurement."""
    error = answer.get("error") if isinstance(answer, dict) else None
    return bool(error) and (error is True or isinstance(error, str | dict | list))


def _head(content: bytes) -> str:
    return content[:_SHOWN].decode(errors="replace")
