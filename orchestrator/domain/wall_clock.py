"""Converts between moments and the wall clock of a time zone, including on days with clock changes."""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime, tzinfo
from functools import cache
from zoneinfo import ZoneInfo

LATEST = 253_402_214_400.0  # 9999-12-31, the last moment that has a date in every zone


@cache
def zone_named(name: str) -> tzinfo:
    """Return the time zone; raises a one-line `ValueError` if there is none.

    Zone files are read only once, since later callers are on an event loop.
    """
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"there is no time zone {name!r} here; use a name like 'Europe/Paris'") from error


def dated(moment: float, zone: tzinfo | None) -> datetime:
    """Return the moment in a zone (None: this machine's); moments out of range become the first or last date."""
    return datetime.fromtimestamp(min(max(0.0, moment), LATEST), UTC).astimezone(zone)


def shown_at(moment: float, zone: tzinfo) -> datetime:
    """Return what the wall clock shows at a moment, as a naive datetime."""
    return datetime.fromtimestamp(moment, zone).replace(tzinfo=None, fold=0)


def moment_of(wall: datetime, zone: tzinfo) -> float:
    """Return the first moment at which the wall clock shows `wall`, in whole seconds; in a gap, the end of the gap.

    Later wall times never give earlier moments.
    """
    early, late = sorted(round(wall.replace(tzinfo=zone, fold=fold).timestamp()) for fold in (0, 1))
    if shown_at(early, zone) == wall:
        return float(early)
    # In a gap, the two readings of `wall` are on either side of the change, and the clock is monotonic between them.
    at = bisect_left(range(early, late + 1), wall, key=lambda moment: shown_at(moment, zone))
    return float(early + at)
