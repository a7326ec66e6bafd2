"""What a server says of its quota beside a good answer: how long nothing more is allowed.

Sources: OpenAI, "Rate limits in headers" (`x-ratelimit-remaining-requests: 0`, `x-ratelimit-reset-requests: 6m0.5s`,
the same for tokens; others have taken it over); the IETF draft that Hugging Face follows (`RateLimit: "api";r=0;t=55`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|[smhd])")
_WINDOW = re.compile(r";\s*r=0\s*;\s*t=(\d{1,6})")
_COUNTED = [(f"x-ratelimit-remaining-{what}", f"x-ratelimit-reset-{what}") for what in ("requests", "tokens")]


def used_up_for(headers: Mapping[str, str]) -> float:
    """Seconds until something is allowed again; 0 where something is left, or nothing is said."""
    wait = 0.0
    for remaining, reset in _COUNTED:
        if headers.get(remaining) == "0":
            wait = max(wait, _seconds(headers.get(reset, "")))
    return wait or refilled_in(headers) or 0.0


def refilled_in(headers: Mapping[str, str]) -> float | None:
    """Seconds until the window of the IETF draft's headers ends, where nothing is left in it."""
    said = headers.get("RateLimit")
    window = None if said is None else _WINDOW.search(said)
    return None if window is None else float(window[1])


def _seconds(duration: str) -> float:
    """`6m0.5s` and its like in seconds; a bare number is seconds; 0 for anything else."""
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", duration):
        return float(duration)
    parts = list(_PART.finditer(duration))
    if "".join(part[0] for part in parts) != duration:
        return 0.0
    return sum(float(part[1]) * _SECONDS[part[2]] for part in parts)
