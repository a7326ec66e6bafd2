"""The wall clock of a time zone: which moment it shows what at, also on the days on which it is changed."""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime, tzinfo
from functools import cache
from zoneinfo import ZoneInfo

LATEST = 253_402_214_400.0  # 9999-12-31, the last moment that has a date in every zone


@cache
def zone_named(name: str) -> tzinfo:
    """The zone. `ValueError` in one line where there is none. Read once: who asks later is on an event loop."""
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"there is no time zone {name!r} here; zones are named like 'Europe/Paris'") from error


def dated(moment: float, zone: tzinfo | None) -> datetime:
    """The moment in a zone, None for this machine's; one that is beyond all dates as the first or last of them."""
    return datetime.fromtimestamp(min(max(0.0, moment), LATEST), UTC).astimezone(zone)


def shown_at(moment: float, zone: tzinfo) -> datetime:
    """What the wall clock shows at a moment, naive."""
    return datetime.fromtimestamp(moment, zone).replace(tzinfo=None, fold=0)


def moment_of(wall: datetime, zone: tzinfo) -> float:
    """The first moment at which the wall clock shows that, in whole seconds; where it skips that, the end of the gap.

    Later wall times never have earlier moments.
    """
    early, late = sorted(round(wall.replace(tzinfo=zone, fold=fold).timestamp()) for fold in (0, 1))
    if shown_at(early, zone) == wall:
        return float(early)
    # in a gap: its two readings lie on either side of the change, between which the clock only goes forward
    at = bisect_left(range(early, late + 1), wall, key=lambda moment: shown_at(moment, zone))
    return float(early + at)
