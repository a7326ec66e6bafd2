"""Window: the hours of a day, on some days of the week, in which a run may keep endpoints awake."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from functools import cache
from typing import TYPE_CHECKING

from orchestrator.domain.wall_clock import moment_of, shown_at, zone_named

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date, tzinfo

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WEEK = len(_DAYS)
_WHOLE = timedelta(days=1)
_FORM = "'22:00-06:00', '22:00-06:00 Europe/Paris' or 'mon-fri 22:00-06:00 Europe/Paris'"
_TEXT = re.compile(
    r"(?:(?P<days>[a-z]{3}(?:[-,][a-z]{3})*)\s+)?(?P<opens>[\d:]+)\s*-\s*(?P<closes>[\d:]+)(?:\s+(?P<zone>[^\s,]+))?",
    re.IGNORECASE,
)
_TIME = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")


@dataclass(frozen=True, slots=True)
class Window:
    """Open from `opens` until `closes` of the wall clock, the next day's where that is not later in the day.

    `days`: on which it opens, Monday is 0. A time that the clock skips is the end of the gap, and one that it shows
    twice is the first: so a night is an hour shorter or longer when clocks change, and never opens twice.
    """

    opens: timedelta
    closes: timedelta
    days: frozenset[int]
    zone: tzinfo

    def is_open(self, now: float) -> bool:
        """Whether it is open at that moment; at the moment at which it closes it is not."""
        return self.opens_at(now) <= now

    def opens_at(self, now: float) -> float:
        """When it opened, where it is open; else when it opens next. Seconds since 1970 UTC, as all moments here."""
        return next(opens for opens, closes in self._spans(now) if closes > now)

    def closes_at(self, now: float) -> float:
        """When it closes, where it is open; else when it closes next. Infinite where it never does."""
        return next(closes for _, closes in self._spans(now) if closes > now)

    def _spans(self, now: float) -> Iterator[tuple[float, float]]:
        """What is open without a break, one span after the other: from at least a day before now."""
        today = shown_at(now, self.zone).date()
        span: tuple[float, float] | None = None
        for ahead in range(-_WEEK - 1, 4 * _WEEK):
            opens, closes = self._span_of(today + timedelta(days=ahead))
            if opens >= closes:
                continue
            if span is None:
                span = opens, closes
            elif opens <= span[1]:
                span = span[0], closes
            else:
                yield span
                span = opens, closes
        if span is not None:  # nothing but itself has come after it for weeks
            yield span[0], math.inf

    def _span_of(self, day: date) -> tuple[float, float]:
        """What opens on that day; nothing where its end is not after its beginning."""
        if day.weekday() not in self.days:
            return 0.0, 0.0
        midnight = datetime.combine(day, time())
        closes = self.closes if self.closes > self.opens else self.closes + _WHOLE
        return moment_of(midnight + self.opens, self.zone), moment_of(midnight + closes, self.zone)


@cache
def window_of(text: str) -> Window:
    """The window that a text like `mon-fri 22:00-06:00 Europe/Paris` means; UTC by itself. One-line `ValueError`."""
    found = _TEXT.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no window of the day; write one like {_FORM}")
    opens, closes = _time(found["opens"], text), _time(found["closes"], text)
    if opens in {closes, _WHOLE}:
        raise ValueError(f"{text!r} opens when it closes; a whole day is 00:00-24:00")
    return Window(opens, closes, _days(found["days"], text), zone_named(found["zone"] or "UTC"))


def _time(text: str, whole: str) -> timedelta:
    found = _TIME.fullmatch(text)
    if found is not None:
        hours, minutes, seconds = (int(part or 0) for part in found.groups())
        of_day = timedelta(hours=hours, minutes=minutes, seconds=seconds)
        if minutes < 60 and seconds < 60 and of_day <= _WHOLE:
            return of_day
    raise ValueError(f"{whole!r}: {text!r} is no time of day; write one like {_FORM}")


def _days(text: str | None, whole: str) -> frozenset[int]:
    days: set[int] = set()
    for part in (text or "mon-sun").lower().split(","):
        first, *last = part.split("-")
        if len(last) > 1 or not {first, *last} <= set(_DAYS):
            raise ValueError(f"{whole!r}: {part!r} is no day of the week; there is {', '.join(_DAYS)}, mon-fri")
        begins = _DAYS.index(first)
        days |= {
            day % _WEEK for day in range(begins, begins + (_DAYS.index((last or [first])[0]) - begins) % _WEEK + 1)
        }
    return frozenset(days)
