"""PercentileHistogram: percentiles of any number of durations, with a bounded error and in bounded memory."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

_WIDTH = math.log(1.01)  # of a bucket, on a logarithmic scale
ERROR = math.sqrt(1.01) - 1  # at most this fraction lies between a percentile and the duration that it stands for
_LEAST, _MOST = 1e-6, 1e6  # seconds; shorter and longer ones are counted as these


@dataclass(slots=True)
class PercentileHistogram:
    """Counts of durations in seconds, in at most 2,800 buckets of one percent each."""

    number: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    _shortest: float = math.inf
    _counts: Counter[int] = field(default_factory=Counter)

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[math.floor(math.log(min(max(seconds, _LEAST), _MOST)) / _WIDTH)] += 1
        self.number += 1
        self.seconds += seconds
        self.longest = max(self.longest, seconds)
        self._shortest = min(self._shortest, seconds)

    def percentile(self, percent: float, beyond: int = 0) -> float | None:
        """Return the duration that this percentage of all do not exceed; None if there are none.

        `beyond`: this many more were longer than all that are counted; infinite if the percentile is one of these.
        """
        everything = self.number + beyond
        if not everything:
            return None
        rank, passed = max(1, math.ceil(everything * percent / 100 - 1e-9)), 0
        for bucket, count in sorted(self._counts.items()):
            passed += count
            if passed >= rank:
                return min(max(math.exp((bucket + 0.5) * _WIDTH), self._shortest), self.longest)
        return math.inf

    def within(self, seconds: float) -> int:
        """Return how many took at most this long; those of the same bucket count."""
        if seconds >= self.longest:
            return self.number
        last = math.floor(math.log(min(max(seconds, _LEAST), _MOST)) / _WIDTH)
        return sum(count for bucket, count in self._counts.items() if bucket <= last)

    def merged(self, other: PercentileHistogram) -> PercentileHistogram:
        """Return the durations of both."""
        return PercentileHistogram(
            self.number + other.number,
            self.seconds + other.seconds,
            max(self.longest, other.longest),
            min(self._shortest, other._shortest),
            self._counts + other._counts,
        )

    @property
    def mean(self) -> float | None:
        """The mean; None if there are none."""
        return self.seconds / self.number if self.number else None
