"""PercentileHistogram: percentiles of any number of durations, with a bounded error and in bounded memory."""

from __future__ import annotations

import math
from collections import Counter

_WIDTH = math.log(1.01)  # of a bucket, on a logarithmic scale
ERROR = math.sqrt(1.01) - 1  # at most this fraction lies between a percentile and the duration that it stands for
_LEAST, _MOST = 1e-6, 1e6  # seconds; shorter and longer ones are counted as these
_FIRST = 1_400  # buckets below that of one second
_AT_ONCE = 1_000  # durations that are counted together, for a tenth of the processor time and within a millisecond


class PercentileHistogram:
    """Counts of durations in seconds, in at most 2,800 buckets of one percent each."""

    __slots__ = ("_counts", "_longest", "_number", "_seconds", "_shortest", "_uncounted")

    def __init__(self) -> None:
        self._counts = Counter[int]()
        self._uncounted: list[float] = []
        self._number = 0
        self._seconds = self._longest = 0.0
        self._shortest = math.inf

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self._uncounted.append(seconds)
        if len(self._uncounted) >= _AT_ONCE:
            self._count()

    def _count(self) -> None:
        durations = self._uncounted
        if not durations:
            return
        self._number += len(durations)
        self._seconds += math.fsum(durations)
        self._longest = max(self._longest, *durations)
        self._shortest = min(self._shortest, *durations)
        self._counts.update(map(_bucket, durations))
        self._uncounted = []

    @property
    def number(self) -> int:
        """How many durations there are."""
        return self._number + len(self._uncounted)

    @property
    def longest(self) -> float:
        """The longest duration; 0 if there are none."""
        return max(self._longest, *self._uncounted, 0.0)

    @property
    def mean(self) -> float | None:
        """The mean; None if there are none."""
        self._count()
        return self._seconds / self._number if self._number else None

    def percentile(self, percent: float, beyond: int = 0) -> float | None:
        """Return the duration that this percentage of all do not exceed; None if there are none.

        `beyond`: this many more were longer than all that are counted; infinite if the percentile is one of these.
        """
        self._count()
        everything = self._number + beyond
        if not everything:
            return None
        rank, passed = max(1, math.ceil(everything * percent / 100 - 1e-9)), 0
        for bucket, count in sorted(self._counts.items()):
            passed += count
            if passed >= rank:
                return min(max(math.exp((bucket - _FIRST + 0.5) * _WIDTH), self._shortest), self._longest)
        return math.inf

    def within(self, seconds: float) -> int:
        """Return how many took at most this long; those of the same bucket count."""
        self._count()
        if seconds >= self._longest:
            return self._number
        last = _bucket(seconds)
        return sum(count for bucket, count in self._counts.items() if bucket <= last)

    def merged(self, other: PercentileHistogram) -> PercentileHistogram:
        """Return the durations of both."""
        both: PercentileHistogram = PercentileHistogram()
        both._include(self)
        both._include(other)
        return both

    def _include(self, other: PercentileHistogram) -> None:
        other._count()
        self._number += other._number
        self._seconds += other._seconds
        self._longest = max(self._longest, other._longest)
        self._shortest = min(self._shortest, other._shortest)
        self._counts.update(other._counts)


def _bucket(seconds: float) -> int:
    within = seconds if _LEAST <= seconds <= _MOST else min(max(seconds, _LEAST), _MOST)
    return int(math.log(within) / _WIDTH + _FIRST)
