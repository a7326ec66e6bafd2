"""Comparison: how a run did beside the one of its job before it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SAME = 0.05  # of what it was: less than this is chance


class Verdict(StrEnum):
    """How it is now."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "same"


@dataclass(frozen=True, slots=True)
class Figures:
    """What is compared. None where it cannot be said. `failures`: the part of the settled items that was discarded."""

    rate: float | None = None  # items per second
    cost_per_1000: float | None = None  # dollars
    failures: float | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One figure, before and now. `by`: the part by which it is more (or less, below 0); None where it was 0."""

    what: str
    before: float
    now: float
    by: float | None
    verdict: Verdict


def compare(before: Figures, now: Figures) -> Sequence[Change]:
    """Every figure that is known of both."""
    pairs = [
        ("items/s", before.rate, now.rate, True),
        ("cost per 1,000", before.cost_per_1000, now.cost_per_1000, False),
        ("failures", before.failures, now.failures, False),
    ]
    return [
        change(what, then, later, more_is_better=more)
        for what, then, later, more in pairs
        if then is not None and later is not None
    ]


def change(what: str, before: float, now: float, *, more_is_better: bool) -> Change:
    """Compare one figure; a difference within `SAME` of what it was is none."""
    by = (now - before) / before if before else None
    if abs(now - before) <= SAME * abs(before):
        verdict = Verdict.SAME
    else:
        verdict = Verdict.BETTER if (now > before) == more_is_better else Verdict.WORSE
    return Change(what, before, now, by, verdict)
