"""How long a server's quota allows nothing more, from the headers beside a good answer.

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
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')  # a window's name, which may hold anything
_PARAMETER = re.compile(r";\s*([a-z][a-z0-9_*.-]*)\s*=\s*(\d{1,15})(?![\d.])")  # RFC 9651: an integer has 15 digits
_COUNTED = [(f"x-ratelimit-remaining-{what}", f"x-ratelimit-reset-{what}") for what in ("requests", "tokens")]
_COUNTED.append(("RateLimit-Remaining", "RateLimit-Reset"))  # the draft's first versions


def used_up_for(headers: Mapping[str, str]) -> float:
    """Return the seconds until something is allowed again; 0 if something is left or no header says."""
    wait = 0.0
    for remaining, reset in _COUNTED:
        if headers.get(remaining) == "0":
            wait = max(wait, _seconds(headers.get(reset, "")))
    return wait or refilled_in(headers) or 0.0


def refilled_in(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until the last used-up window of the IETF draft's header ends; None if none is used up."""
    getall = getattr(headers, "getall", None)  # a list may come in several lines
    lines = getall("RateLimit", []) if getall is not None else [headers.get("RateLimit", "")]
    windows = [dict(_PARAMETER.findall(window)) for line in lines for window in _TEXT.sub("", line).split(",")]
    ends = [float(window["t"]) for window in windows if "t" in window and int(window.get("r", "1")) == 0]
    return max(ends, default=None)


def _seconds(duration: str) -> float:
    """Return durations such as `6m0.5s` in seconds; a bare number is seconds; 0 for anything else."""
    if re.fullmatch(r"\d{1,10}(\.\d{1,9})?", duration):
        return float(duration)
    parts = list(_PART.finditer(duration))
    if "".join(part[0] for part in parts) != duration:
        return 0.0
    return sum(float(part[1]) * _SECONDS[part[2]] for part in parts)
