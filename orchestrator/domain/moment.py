"""Parses times and durations as users write them: `30d`, `+2h`, `22:00 Europe/Paris`, `yesterday`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta, tzinfo
from math import inf

from orchestrator.domain.wall_clock import LATEST, moment_of, shown_at, zone_named

DAY = 86400.0  # seconds
_DATED = re.compile(r"(\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2})?(?:Z|[+-]\d{2}:\d{2})?)(?:\s+(\S+))?")
_TIMED = re.compile(r"(\d{1,2}):(\d{2})(?:\s+(\S+))?")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def seconds_of(text: str) -> float:
    """Return the seconds in `30d`, `1h30m` and the like. Raises `ValueError` for anything else."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if not parts or "".join(map("".join, parts)) != text.strip():
        raise ValueError(f"{text!r} is not a duration such as 90s, 12h, 30d or 8w")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def moment_at(text: str, now: float, zone: tzinfo) -> float:
    """Return the moment that the text means, relative to `now`; both in seconds since 1970 UTC.

    A time of day means its next occurrence. `zone` applies if the text names none. Raises a one-line `ValueError` for
    anything else.
    """
    try:
        moment = _moment_at(text.strip(), now, zone)
    except OverflowError:
        moment = inf
    if not 0 <= moment <= LATEST:
        raise ValueError(f"{text!r} is out of range: write a date from 1970 to 9999")
    return moment


def _moment_at(text: str, now: float, zone: tzinfo) -> float:
    if match := _DATED.fullmatch(text):
        return _dated(match[1], zone_named(match[2]) if match[2] else zone)
    if match := _TIMED.fullmatch(text):
        return _next(text, int(match[1]), int(match[2]), now, zone_named(match[3]) if match[3] else zone)
    try:
        return now + seconds_of(text.removeprefix("+"))
    except ValueError:
        forms = "`+2h`, `22:00`, `22:00 Europe/Paris` or `2026-11-22 03:00`"
        raise ValueError(f"{text!r} is not a date or time; write {forms}") from None


def _dated(text: str, zone: tzinfo) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a date or time: {error}") from error
    try:
        return moment.timestamp() if moment.tzinfo is not None else moment_of(moment, zone)
    except ValueError:  # the year in that zone does not have four digits
        return inf


def _next(text: str, hour: int, minute: int, now: float, zone: tzinfo) -> float:
    """Return the next moment at which clocks in the zone show this time."""
    try:
        at = time(hour, minute)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time of day: {error}") from error
    today = shown_at(now, zone).date()
    days = (moment_of(datetime.combine(today + timedelta(days=ahead), at), zone) for ahead in range(3))
    return next(day for day in days if day > now)


def since(text: str, now: float, zone: tzinfo | None = None) -> float:
    """Parse `yesterday`, `today`, `12h`, `2d`, `2026-11-20` or `2026-11-20T18:00`; return seconds since 1970 UTC.

    Days begin at midnight in `zone` (None: that of this machine), which also applies to times without a zone. Raises a
    one-line `ValueError` for anything else and for moments in the future.
    """
    moment = _moment(text.strip().lower(), now, zone)
    if moment > now:
        raise ValueError(f"{text!r} is in the future")
    return moment


def _moment(text: str, now: float, zone: tzinfo | None) -> float:
    if text in {"today", "yesterday"}:
        # by the calendar rather than by 24 hours: days on which the clocks change have 23 or 25
        shown = datetime.fromtimestamp(now, zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
        return _read(shown - timedelta(days=text == "yesterday"), zone)
    try:
        return now - seconds_of(text)
    except ValueError:
        pass
    try:
        return _read(datetime.fromisoformat(text.upper()), zone)
    except ValueError:
        forms = "yesterday, today, 12h, 2d, 2026-11-20 or 2026-11-20T18:00"
        raise ValueError(f"{text!r} is not understood; write {forms}") from None


def _read(shown: datetime, zone: tzinfo | None) -> float:
    return (shown if shown.tzinfo is not None or zone is None else shown.replace(tzinfo=zone)).timestamp()


def deadline_at(text: str, submitted_at: float) -> float:
    """Return the moment that `8h` or `07:00 Europe/Paris` means for a run submitted then; both since 1970 UTC.

    A time of day means its next occurrence, in UTC if no zone is named. Raises a one-line `ValueError` for anything
    else.
    """
    return moment_at(text, submitted_at, UTC)
