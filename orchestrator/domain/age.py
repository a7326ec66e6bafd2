"""A length of time as people write it: 90s, 12h, 1h30m, 30d, 8w."""

from __future__ import annotations

import re

DAY = 86400.0  # seconds
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def seconds_of(text: str) -> float:
    """Seconds in `30d`, `1h30m` and the like. `ValueError` for anything else."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if not parts or "".join(map("".join, parts)) != text.strip():
        raise ValueError(f"{text!r} is not a length of time such as 90s, 12h, 30d or 8w")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
