"""A moment as a person writes it: `+2h`, `22:00`, `22:00 Europe/Paris`, `2026-11-22 03:00`."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta
from math import inf
from typing import TYPE_CHECKING

from orchestrator.domain.age import seconds_of
from orchestrator.domain.wall_clock import LATEST, moment_of, shown_at, zone_named

if TYPE_CHECKING:
    from datetime import tzinfo

_DATED = re.compile(r"(\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2})?(?:Z|[+-]\d{2}:\d{2})?)(?:\s+(\S+))?")
_TIMED = re.compile(r"(\d{1,2}):(\d{2})(?:\s+(\S+))?")


def moment_at(text: str, now: float, zone: tzinfo) -> float:
    """The moment that the text means, seen from `now`; both in seconds since 1970 UTC.

    A time of day is the next one that the clocks show. `zone` is that of a text that names none. `ValueError` in one
    line for anything else.
    """
    try:
        moment = _moment_at(text.strip(), now, zone)
    except OverflowError:
        moment = inf
    if not 0 <= moment <= LATEST:
        raise ValueError(f"{text!r} is beyond all dates: write one from 1970 to 9999")
    return moment


def _moment_at(text: str, now: float, zone: tzinfo) -> float:
    if found := _DATED.fullmatch(text):
        return _dated(found[1], zone_named(found[2]) if found[2] else zone)
    if found := _TIMED.fullmatch(text):
        return _next(text, int(found[1]), int(found[2]), now, zone_named(found[3]) if found[3] else zone)
    try:
        return now + seconds_of(text.removeprefix("+"))
    except ValueError:
        forms = "`+2h`, `22:00`, `22:00 Europe/Paris` or `2026-11-22 03:00`"
        raise ValueError(f"{text!r} is no moment; write {forms}") from None


def _dated(text: str, zone: tzinfo) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no moment: {error}") from error
    try:
        return moment.timestamp() if moment.tzinfo is not None else moment_of(moment, zone)
    except ValueError:  # a clock that shows a year without four digits
        return inf


def _next(text: str, hour: int, minute: int, now: float, zone: tzinfo) -> float:
    """The next time that clocks in the zone show it."""
    try:
        at = time(hour, minute)
    except ValueError as error:
        raise ValueError(f"{text!r} is no time of day: {error}") from error
    today = shown_at(now, zone).date()
    days = (moment_of(datetime.combine(today + timedelta(days=ahead), at), zone) for ahead in range(3))
    return next(day for day in days if day > now)
