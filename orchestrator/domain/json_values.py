"""Values that JSON cannot represent as they are: 32-bit floats and lone surrogates. JSON texts on one line."""

from __future__ import annotations

import struct

_MOST = 9  # digits distinguish any two 32-bit floats


def shortest(value: object) -> object:
    """Return the value with each float replaced by the shortest one that is equal in 32 bits; the rest is unchanged."""
    if isinstance(value, list):
        return list(map(shortest, value))
    if not isinstance(value, float):
        return value
    candidates = (float(f"{value:.{digits}g}") for digits in range(1, _MOST + 1))
    return next((candidate for candidate in candidates if _narrow(candidate) == value), value)


def _narrow(value: float) -> float | None:
    try:
        (narrow,) = struct.unpack("f", struct.pack("f", value))
    except OverflowError:  # it was rounded up beyond the largest 32-bit float
        return None
    return float(narrow)


def whole(value: object) -> object:
    """Return the value with lone surrogates, which UTF-8 cannot encode, as U+FFFD, and pairs as their character."""
    if isinstance(value, str):
        return value if _encodes(value) else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {whole(key): whole(part) for key, part in value.items()}
    return list(map(whole, value)) if isinstance(value, list) else value


def one_line(text: str) -> str:
    """Return a valid JSON text on one line: its line breaks can only be between values, and become spaces."""
    return text.replace("\r", " ").replace("\n", " ").strip()


def _encodes(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
