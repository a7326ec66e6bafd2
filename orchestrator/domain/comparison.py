"""Compares a run with the previous run of its job."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SAME = 0.05  # a smaller relative change counts as chance
ALIKE = 10  # times as many items: what depends on how many were asked at once is not compared beyond that


class Verdict(StrEnum):
    """How a figure changed."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "same"


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures to compare; None if unknown. `failures`: the fraction of settled items that was discarded."""

    rate: float | None = None  # items per second
    cost_per_1000: float | None = None  # dollars
    failures: float | None = None
    items: int | None = None  # that these figures are about


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure, before and now. `by`: the relative change, below 0 for a decrease; None if it was 0 before."""

    what: str
    before: float
    now: float
    by: float | None
    verdict: Verdict


def compare(before: Figures, now: Figures) -> Sequence[Difference]:
    """Return the changes of all figures that are known for both runs, and that say something about these two.

    The rate of a run that asked one item is the time of one request, and its cost that of a cold start.
    """
    pairs = [("failures", before.failures, now.failures, False)]
    if _of_like_size(before, now):
        pairs = [
            ("items/s", before.rate, now.rate, True),
            ("cost per 1,000", before.cost_per_1000, now.cost_per_1000, False),
            *pairs,
        ]
    return [
        change(what, then, later, more_is_better=more)
        for what, then, later, more in pairs
        if then is not None and later is not None
    ]


def _of_like_size(before: Figures, now: Figures) -> bool:
    if before.items is None or now.items is None:
        return True
    fewer, more = sorted((before.items, now.items))
    return more <= ALIKE * fewer


def change(what: str, before: float, now: float, *, more_is_better: bool) -> Difference:
    """Compare one figure; a relative change of at most `SAME` counts as no change."""
    by = (now - before) / before if before else None
    if abs(now - before) <= SAME * abs(before):
        verdict = Verdict.SAME
    else:
        verdict = Verdict.BETTER if (now > before) == more_is_better else Verdict.WORSE
    return Difference(what, before, now, by, verdict)
