"""Numbers of 32 bits that are held in 64: 0.1 has become 0.10000000149011612."""

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
