"""Schedules: the cron slots of a job, and what to do about slots that are due.

A slot is a moment in whole seconds since 1970 UTC. Clock changes follow the rule of ISC and Debian cron. If neither the
minute nor the hour field begins with `*`, the schedule follows the wall clock: a slot in a gap comes once, when the gap
ends, and one that the wall clock shows twice comes once, the first time. Every other schedule follows elapsed time: it
has a slot whenever the wall clock shows one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from math import floor, isfinite
from typing import TYPE_CHECKING, Literal, get_args

from cronsim import CronSim, CronSimError

from orchestrator.domain.moment import seconds_of
from orchestrator.domain.wall_clock import moment_of, shown_at, zone_named

if TYPE_CHECKING:
    from collections.abc import Iterator

Overlap = Literal["skip", "buffer_one", "allow", "cancel_other"]
CatchUp = Literal["latest", "all", "none"]

ON_TIME = 60.0  # seconds by which a slot may be late before it counts as missed or caught up
STEP = 200  # slots decided in one transaction
_DAY = 86400
_FIELDS = 5
_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - wall clocks are naive here


@dataclass(frozen=True, slots=True)
class Cron:
    """When a job runs.

    `expression`: minute, hour, day of month, month, day of week, as in crontab(5), or `@daily` and the like.
    `tz`: the time zone of the expression.
    `overlap`: what happens at a slot while an earlier run of the job is queued or executed. "skip": nothing;
    "buffer_one": one run may wait for its turn; "allow": runs queue up; "cancel_other": the earlier one is cancelled.
    `catch_up`: which slots that passed while no process was running are caught up, of those no older than
    `catch_up_window` (seconds, or "1h"; at least a minute): the "latest", "all", or "none". The others count as missed.
    `jitter`: delays each slot by up to this many seconds, so that jobs do not all begin at once. The delay of a slot is
    always the same.
    """

    expression: str
    tz: str = "UTC"
    overlap: Overlap = "skip"
    catch_up: CatchUp = "latest"
    catch_up_window: float | str = "1h"
    jitter: float | str = 0

    def __post_init__(self) -> None:
        for name, allowed in (("overlap", get_args(Overlap)), ("catch_up", get_args(CatchUp))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}")
        if self.window < ON_TIME:
            raise ValueError(f"catch_up_window must be at least {ON_TIME:g} seconds, not {self.catch_up_window!r}")
        if self.spread < 0:
            raise ValueError(f"jitter must be at least 0 seconds, not {self.jitter!r}")
        if not isinstance(self.tz, str):
            raise ValueError(f"tz must be the name of a time zone, not {self.tz!r}")
        zone_named(self.tz)
        _check(self.expression)
        if next_after(self, _EPOCH.replace(year=2000, tzinfo=UTC).timestamp()) is None:
            raise ValueError(f"cron {self.expression!r}: there is no such day")

    @property
    def window(self) -> float:
        """`catch_up_window` in seconds."""
        return seconds("catch_up_window", self.catch_up_window)

    @property
    def spread(self) -> float:
        """`jitter` in seconds."""
        return seconds("jitter", self.jitter)

    @property
    def fields(self) -> str:
        """The five fields, with names like `@daily` replaced."""
        return _NICKNAMES.get(self.expression.strip().lower(), self.expression)

    @property
    def by_the_clock(self) -> bool:
        """Whether the slots are fixed times of the wall clock rather than following elapsed time."""
        minute, hour, *_ = self.fields.split()
        return not minute.startswith("*") and not hour.startswith("*")


class Decision(StrEnum):
    """What was decided about a slot."""

    FIRED = "fired"
    SKIPPED = "skipped"  # blocked by an earlier run, or a job that it waits for has no run
    MISSED = "missed"  # no process was running in time


class Start(StrEnum):
    """How a slot that fires treats earlier runs."""

    QUEUE = "queue"
    SKIP = "skip"
    REPLACE = "replace"  # cancel them and queue this one


@dataclass(frozen=True, slots=True)
class Due:
    """Slots that are due, each with whether it fires; `following` is the first slot after them."""

    slots: tuple[tuple[float, bool], ...]
    following: float | None


def next_after(cron: Cron, moment: float) -> float | None:
    """Return the first slot after `moment`; None if there is none within fifty years."""
    return next(slots_after(cron, moment), None)


def slots_after(cron: Cron, moment: float) -> Iterator[float]:
    """Return an iterator over all slots after `moment`, strictly increasing."""
    zone = zone_named(cron.tz)
    if cron.by_the_clock or zone is UTC:
        return _fixed_times(cron, floor(moment), zone)
    return _elapsed_times(cron, floor(moment), zone)


def decide(cron: Cron, first: float, now: float, most: int = STEP) -> Due:
    """Decide about the slots from `first` up to `now`, but only the `most` earliest. `first` must be a slot."""
    decided: list[tuple[float, bool]] = []
    slot: float | None = first
    later = slots_after(cron, first)
    while slot is not None and slot <= now and len(decided) < most:
        following = next(later, None)
        decided.append((slot, _fires(cron, slot, following, now)))
        slot = following
    return Due(tuple(decided), slot)


def overlap(policy: Overlap, executed: int, waiting: int) -> Start:
    """Return what a slot that fires does, given how many runs of its job are `executed` and `waiting` in the queue."""
    match policy:
        case "allow":
            return Start.QUEUE
        case "cancel_other":
            return Start.REPLACE if executed + waiting else Start.QUEUE
        case "buffer_one":
            return Start.SKIP if waiting else Start.QUEUE
        case "skip":
            return Start.SKIP if executed + waiting else Start.QUEUE


def delay(cron: Cron, job: str, slot: float) -> float:
    """Return the seconds in [0, jitter) by which this slot's run is delayed; the same in every process."""
    digest = hashlib.sha256(f"{job}\n{slot:.0f}".encode()).digest()
    return cron.spread * int.from_bytes(digest[:6]) / 2**48


def remark(cron: Cron, slot: float) -> str:
    """Explain what is unusual about the wall clock at this slot; "" if nothing is."""
    zone = zone_named(cron.tz)
    at, before = shown_at(slot, zone), shown_at(slot - 1, zone) + timedelta(seconds=1)
    if before < at and cron.by_the_clock:
        meant = next(_walls(cron, before - timedelta(seconds=1)))
        if meant < at:
            return f"{meant:%H:%M} does not exist that day: the slot is when the clocks go forward"
    first, second = (at.replace(tzinfo=zone, fold=fold).timestamp() for fold in (0, 1))
    if first < second:
        if cron.by_the_clock:
            return f"{at:%H:%M} comes twice that day: the first one counts"
        return f"the {'first' if slot == first else 'second'} {at:%H:%M} of that day"
    return ""


def seconds(name: str, value: float | str) -> float:
    """Return the seconds of a setting: a number, or "90s", "30m", "1h30m", "2d". Raises a one-line `ValueError`."""
    if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
        return float(value)
    try:
        return seconds_of(str(value))
    except ValueError as error:
        raise ValueError(f"{name} must be seconds or a duration: {error}") from error


def in_zone(cron: Cron, slot: float) -> datetime:
    """Return the slot as a datetime in the schedule's time zone."""
    return datetime.fromtimestamp(slot, zone_named(cron.tz))


# -- rules ------------------------------------------------------------------------------------------------------------


def _fires(cron: Cron, slot: float, following: float | None, now: float) -> bool:
    age = now - slot
    match cron.catch_up:
        case "none":
            return age <= ON_TIME
        case "all":
            return age <= cron.window
        case "latest":
            return age <= cron.window and (following is None or following > now)


def _check(expression: str) -> None:
    if not isinstance(expression, str):
        raise ValueError(f"a cron expression is a string like '0 2 * * *', not {expression!r}")
    text = _NICKNAMES.get(expression.strip().lower(), expression)
    if len(text.split()) != _FIELDS:
        raise ValueError(f"cron {expression!r} needs 5 fields: minute, hour, day of month, month, day of week")
    try:
        CronSim(text, _EPOCH)
    except CronSimError as error:
        raise ValueError(f"cron {expression!r}: {str(error).lower()}") from error


# -- the wall clock ---------------------------------------------------------------------------------------------------


def _fixed_times(cron: Cron, last: float, zone: tzinfo) -> Iterator[float]:
    """Yield the slots at fixed times of the wall clock; `>` merges the times of a gap and drops repeated ones."""
    for wall in _walls(cron, shown_at(last, zone)):
        slot = moment_of(wall, zone)
        if slot > last:
            yield slot
            last = slot


def _elapsed_times(cron: Cron, seen: float, zone: tzinfo) -> Iterator[float]:
    """Yield the slots by elapsed time, which equals wall clock time between one clock change and the next."""
    offset = _offset(seen, zone)
    start = shown_at(seen, zone)
    while True:
        for wall in _walls(cron, start):
            slot = (wall - _EPOCH).total_seconds() - offset
            change = _change(seen, slot, zone)
            if change is not None:
                break
            yield slot
            seen = slot
        else:
            return
        seen, offset = change, _offset(change, zone)
        start = shown_at(change, zone) - timedelta(seconds=1)


def _walls(cron: Cron, after: datetime) -> Iterator[datetime]:
    return CronSim(cron.fields, after)


def _offset(moment: float, zone: tzinfo) -> float:
    return (shown_at(moment, zone) - _EPOCH).total_seconds() - moment


def _change(after: float, until: float, zone: tzinfo) -> float | None:
    """Return the first moment in (after, until] with another offset than `after`. No zone changes twice in a day."""
    offset, low = _offset(after, zone), after
    while low < until:
        high = min(low + _DAY, until)
        if _offset(high, zone) != offset:
            while high - low > 1:
                middle = floor((low + high) / 2)
                low, high = (middle, high) if _offset(middle, zone) == offset else (low, middle)
            return high
        low = high
    return None
