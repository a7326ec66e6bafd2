"""Throughput: the work that requests got done per second, and how far that may be chance."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Throughput:
    """Sums over requests. `work` in whatever unit, always the same; `seconds` as each of them took."""

    requests: int = 0
    work: float = 0.0
    seconds: float = 0.0
    _work2: float = 0.0
    _seconds2: float = 0.0
    _cross: float = 0.0

    def add(self, work: float, seconds: float) -> None:
        """Count one request."""
        self.requests += 1
        self.work += work
        self.seconds += seconds
        self._work2 += work * work
        self._seconds2 += seconds * seconds
        self._cross += work * seconds

    @property
    def rate(self) -> float:
        """Work per second of a request, so of one place in flight."""
        return self.work / self.seconds

    @property
    def error(self) -> float:
        """Relative standard error of the rate, as of a ratio of sums."""
        slowness = self.seconds / self.work
        scatter = self._seconds2 - 2 * slowness * self._cross + slowness**2 * self._work2
        return math.sqrt(max(0.0, scatter)) / self.seconds
