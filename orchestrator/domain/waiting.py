"""Waiting: until when nothing can be asked, when to report it, and whether to pause the endpoint meanwhile.

If nothing can be asked for longer than waking costs, `fan_out` returns a `Waiting`: the
session ends, so the endpoint is paused, and rests. It is woken again in the same shift while others work. If all
rest, or every item waits, the run waits with nothing awake, and a queued run is requeued (`Snoozed`). Waits use the
monotonic clock; a wait stored in the ledger is never read as longer than it was when written.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from orchestrator.domain.phrases import count

LONGEST = 86_400.0  # seconds: a server that names a longer wait is asked again after a day anyway
WORTH_SAYING = 5.0  # seconds: waits of at least this length are reported to the user
WORTH_PAUSING = 120.0  # seconds: the longest idle wait for which an endpoint stays awake, unless waking takes longer


@dataclass(frozen=True, slots=True)
class Waiting:
    """`items` that are not asked before `until` (seconds since 1970 UTC), and why."""

    items: int
    until: float
    why: str

    def differs(self, other: Waiting) -> bool:
        """Whether this wait differs enough from the other one to be reported."""
        return (self.items, self.why) != (other.items, other.why) or abs(self.until - other.until) >= 1.0

    def __str__(self) -> str:
        until = f"{datetime.fromtimestamp(self.until, UTC):%Y-%m-%d %H:%M:%S} UTC"
        return f"{count(self.items, 'item')} to be asked, not before {until}: {self.why}"


@dataclass(frozen=True, slots=True)
class Rest:
    """An endpoint gets no requests before `until`, on the monotonic clock.

    `fruitless`: how many times in a row it was woken without anything getting done.
    """

    until: float
    waiting: Waiting
    fruitless: int


def pays_to_pause(seconds: float, cold_start: float) -> bool:
    """Whether staying awake for the wait costs more than waking the endpoint again (`cold_start` seconds)."""
    return seconds > longest_idle(cold_start)


def longest_idle(cold_start: float) -> float:
    """Return the seconds for which an endpoint stays awake without requests: then waking it again costs no more."""
    return max(WORTH_PAUSING, cold_start)


def after_failure(kind: str, status: int | None) -> str:
    """Return the reason why an item is asked later: how its last attempt ended."""
    return f"the last attempt failed ({kind}{f' {status}' if status else ''}), and its retry is not due yet"
