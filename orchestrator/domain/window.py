"""Run windows: the hours of the day, on certain days of the week, in which a run may keep endpoints awake."""

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
    """Open from `opens` until `closes` by the wall clock, on the next day if `closes` is not later in the day.

    `days`: the weekdays on which it opens, Monday is 0. A time that the clock skips means the end of the gap, and one
    that it shows twice means the first: so a night is an hour shorter or longer when the clocks change, and the window
    never opens twice.
    """

    opens: timedelta
    closes: timedelta
    days: frozenset[int]
    zone: tzinfo

    def is_open(self, now: float) -> bool:
        """Whether the window is open at that moment; at its closing time it is not."""
        return self.opens_at(now) <= now

    def opens_at(self, now: float) -> float:
        """Return when it opened, if it is open, else when it opens next. All moments are seconds since 1970 UTC."""
        return next(opens for opens, closes in self._spans(now) if closes > now)

    def closes_at(self, now: float) -> float:
        """Return when it closes next; infinite if it never does."""
        return next(closes for _, closes in self._spans(now) if closes > now)

    def _spans(self, now: float) -> Iterator[tuple[float, float]]:
        """Yield the spans during which it is open without a break, from at least a day before now."""
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
        if span is not None:  # it has continued without a break for weeks, so it never closes
            yield span[0], math.inf

    def _span_of(self, day: date) -> tuple[float, float]:
        """Return the span that opens on that day; if its end is not after its beginning, it does not open."""
        if day.weekday() not in self.days:
            return 0.0, 0.0
        midnight = datetime.combine(day, time())
        closes = self.closes if self.closes > self.opens else self.closes + _WHOLE
        return moment_of(midnight + self.opens, self.zone), moment_of(midnight + closes, self.zone)


@cache
def window_of(text: str) -> Window:
    """Parse a text like `mon-fri 22:00-06:00 Europe/Paris`; UTC if no zone is named. Raises a one-line `ValueError`."""
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a time window; write one like {_FORM}")
    opens, closes = _time(match["opens"], text), _time(match["closes"], text)
    if opens in {closes, _WHOLE}:
        raise ValueError(f"{text!r} opens when it closes; a whole day is 00:00-24:00")
    return Window(opens, closes, _days(match["days"], text), zone_named(match["zone"] or "UTC"))


def _time(text: str, whole: str) -> timedelta:
    match = _TIME.fullmatch(text)
    if match is not None:
        hours, minutes, seconds = (int(part or 0) for part in match.groups())
        of_day = timedelta(hours=hours, minutes=minutes, seconds=seconds)
        if minutes < 60 and seconds < 60 and of_day <= _WHOLE:
            return of_day
    raise ValueError(f"{whole!r}: {text!r} is not a time of day; write one like {_FORM}")


def _days(text: str | None, whole: str) -> frozenset[int]:
    days: set[int] = set()
    for part in (text or "mon-sun").lower().split(","):
        first, *last = part.split("-")
        if len(last) > 1 or not {first, *last} <= set(_DAYS):
            raise ValueError(f"{whole!r}: {part!r} is not a day of the week; write {', '.join(_DAYS)} or mon-fri")
        begins = _DAYS.index(first)
        days |= {
            day % _WEEK for day in range(begins, begins + (_DAYS.index((last or [first])[0]) - begins) % _WEEK + 1)
        }
    return frozenset(days)
