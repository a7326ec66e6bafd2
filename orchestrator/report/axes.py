"""Axes: round numbers and round moments between two ends."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import tzinfo

_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark at a value, with its label."""

    value: float
    label: str


def numbers(top: float, most: int = 4) -> list[Tick]:
    """Return ticks from 0 to a round number that is at least `top`, in at most `most` steps."""
    if top <= 0:
        top = 1.0
    raw = top / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999999)
    count = math.ceil(top / step - 1e-9)
    return [Tick(number * step, _number(number * step, step)) for number in range(count + 1)]


def moments(since: float, until: float, zone: tzinfo | None, most: int = 8) -> Sequence[Tick]:
    """Return ticks at round times of the zone's clock. The labels have the day if there is more than one."""
    length = until - since
    step = next((step for step in _STEPS if length / step <= most), _DAY * math.ceil(length / _DAY / most))
    offset = datetime.fromtimestamp(since, UTC).astimezone(zone).utcoffset()
    shift = 0.0 if offset is None else offset.total_seconds()
    first = math.ceil((since + shift) / step) * step - shift
    count = max(0, math.floor((until - first) / step) + 1)
    ticks, day = [], None
    for number in range(count):
        at = first + number * step
        shown = datetime.fromtimestamp(at, UTC).astimezone(zone)
        label = f"{shown:%H:%M:%S}" if step < 60 else f"{shown:%H:%M}"
        if length > _DAY / 2 and shown.date() != day:
            label = f"{shown:%b} {shown.day} {shown:%H:%M}" if step < _DAY else f"{shown:%b} {shown.day}"
        day = shown.date()
        ticks.append(Tick(at, label))
    return ticks


def _number(value: float, step: float) -> str:
    if value >= 1000 and step >= 100:
        return f"{value / 1000:g}k"
    return f"{value:.10g}"
