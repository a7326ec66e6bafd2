"""Throughput: the work of requests per second, and its standard error."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Throughput:
    """Sums over requests. `work` is in any one unit; `seconds` is the sum of the requests' durations."""

    requests: int = 0
    work: float = 0.0
    seconds: float = 0.0
    _work2: float = 0.0
    _seconds2: float = 0.0
    _cross: float = 0.0

    def add(self, work: float, seconds: float) -> None:
        """Add one request."""
        self.requests += 1
        self.work += work
        self.seconds += seconds
        self._work2 += work * work
        self._seconds2 += seconds * seconds
        self._cross += work * seconds

    @property
    def rate(self) -> float:
        """Work per second of request time, which is that of one place in flight."""
        return self.work / self.seconds

    @property
    def error(self) -> float:
        """Relative standard error of the rate, computed for a ratio of sums."""
        slowness = self.seconds / self.work
        scatter = self._seconds2 - 2 * slowness * self._cross + slowness**2 * self._work2
        return math.sqrt(max(0.0, scatter)) / self.seconds
