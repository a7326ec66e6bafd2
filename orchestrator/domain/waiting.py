"""Waiting: what nothing can be asked before, who hears of it, and whether an endpoint is paused meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from orchestrator.domain.phrases import count

LONGEST = 86_400.0  # seconds: a server that names a longer wait is asked again after a day all the same
WORTH_SAYING = 5.0  # seconds from which on a person is told
WORTH_PAUSING = 120.0  # seconds that an endpoint is kept awake for nothing at the most, unless it wakes more slowly


@dataclass(frozen=True, slots=True)
class Waiting:
    """`items` that are asked no sooner than `until` (seconds since 1970 UTC), and why."""

    items: int
    until: float
    why: str

    def differs(self, other: Waiting) -> bool:
        """Whether a person should hear of this instead of the other one."""
        return (self.items, self.why) != (other.items, other.why) or abs(self.until - other.until) >= 1.0

    def __str__(self) -> str:
        until = f"{datetime.fromtimestamp(self.until, UTC):%Y-%m-%d %H:%M:%S} UTC"
        return f"{count(self.items, 'item')} to be asked, not before {until}: {self.why}"


@dataclass(frozen=True, slots=True)
class Rest:
    """How long an endpoint is left alone: `until`, on the monotonic clock.

    `fruitless`: times in a row that it was woken with nothing done.
    """

    until: float
    waiting: Waiting
    fruitless: int


def pays_to_pause(seconds: float, cold_start: float) -> bool:
    """Whether so long a wait costs more awake than waking the endpoint again does, which takes `cold_start` seconds."""
    return seconds > max(WORTH_PAUSING, cold_start)


def after_failure(kind: str, status: int | None) -> str:
    """Why an item is asked later: how its last attempt ended."""
    return f"the last attempt failed ({kind}{f' {status}' if status else ''}), and its wait is not over"
