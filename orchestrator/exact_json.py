"""JSON with exact integers of any length: orjson, with a fallback for integers that it does not support.

orjson reads integers beyond 64 bits as floats, and cannot write them. Checking for them takes about as long as
reading a short answer, and a third as long as reading embeddings.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_LONG = b"0" * 20  # the digits of 2**64, after all digits are replaced by 0
_BELOW = b"-" + b"0" * 19  # the same for -(2**63)
_RUN = re.compile(_LONG + b"0*")
_FRACTION = (b".", b"e", b"E")


def loads(content: bytes | str) -> Any:
    """Return the value of a JSON text. Raises `ValueError` if it is not valid, or has a number that cannot be read."""
    value = orjson.loads(content)
    if isinstance(value, str):
        return value
    if _may_be_wide(content if isinstance(content, bytes) else content.encode()):
        try:
            return json.loads(content)
        except RecursionError as error:
            raise orjson.JSONDecodeError("nested too deeply", "", 0) from error
    return value


def loads_all(contents: Sequence[str]) -> list[Any]:
    """Return the values of valid JSON texts. Reading all at once takes a fraction of the time of `loads` for each."""
    joined = f"[{','.join(contents)}]".encode()
    if not _may_be_wide(joined):
        with suppress(ValueError):  # one is nested as deeply as can be read
            values: list[Any] = orjson.loads(joined)
            if len(values) == len(contents):
                return values
    return [loads(content) for content in contents]


def repeated_key(content: bytes) -> str | None:
    """Return a key that occurs twice in the same object of a valid JSON text; None if there is none."""
    repeated: list[str] = []

    def note(pairs: list[tuple[str, object]]) -> None:
        counts = Counter(key for key, _ in pairs)
        repeated.extend(key for key, count in counts.items() if count > 1)

    with suppress(RecursionError):  # so deep a text is refused by its reader
        json.loads(content, object_pairs_hook=note)
    return repeated[0] if repeated else None


def dumps(value: object, default: Callable[[Any], object] | None = None, option: int = 0) -> bytes:
    """Return a value as JSON. Raises `TypeError` if it has no JSON form."""
    try:
        return orjson.dumps(value, default, option)
    except orjson.JSONEncodeError as error:
        if "64-bit" not in str(error):
            raise
    shown = None if default is None else lambda other: _written_out(default(other))
    try:
        return orjson.dumps(_written_out(value), shown, option)
    except RecursionError as error:
        raise orjson.JSONEncodeError("nested too deeply") from error


def _may_be_wide(content: bytes) -> bool:
    """Whether the text may have an integer beyond 64 bits. Digits inside a string can also make this true."""
    digits = content.translate(_DIGITS)
    if _BELOW in digits:
        return True
    if _LONG not in digits:
        return False
    for run in _RUN.finditer(digits):
        start, end = run.span()
        if digits[max(0, start - 1) : start] != b"." and digits[end : end + 1] not in _FRACTION:
            return True
    return False


def _written_out(value: object) -> object:
    """Return the value with integers that orjson cannot write replaced by fragments of JSON text."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -(2**63) <= value < 2**64 else orjson.Fragment(str(value))
    if isinstance(value, dict):
        return {key: _written_out(part) for key, part in value.items()}
    return [_written_out(part) for part in value] if isinstance(value, list | tuple) else value
