"""Values that JSON does not carry as they are: 32-bit floats, and halves of surrogate pairs."""

from __future__ import annotations

import struct

_MOST = 9  # digits tell any two numbers of 32 bits apart


def shortest(value: object) -> object:
    """The value, with each float in it as the shortest one that is the same in 32 bits; all else as it is."""
    if isinstance(value, list):
        return list(map(shortest, value))
    if not isinstance(value, float):
        return value
    candidates = (float(f"{value:.{digits}g}") for digits in range(1, _MOST + 1))
    return next((one for one in candidates if _narrow(one) == value), value)


def _narrow(value: float) -> float | None:
    try:
        (narrow,) = struct.unpack("f", struct.pack("f", value))
    except OverflowError:  # rounded up beyond the largest
        return None
    return float(narrow)


def whole(value: object) -> object:
    """The value with U+FFFD for half a surrogate pair, which no UTF-8 holds; two halves become their character."""
    if isinstance(value, str):
        return value if _encodes(value) else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {whole(key): whole(part) for key, part in value.items()}
    return list(map(whole, value)) if isinstance(value, list) else value


def _encodes(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
