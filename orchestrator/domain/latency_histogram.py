"""LatencyHistogram: how many requests were answered within how many seconds."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

# Upper bounds in seconds: from a classifier on this machine to a long answer of a large model. Ledgers keep counts in
# this order, so a change needs a migration.
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0)


@dataclass(slots=True)
class LatencyHistogram:
    """Counts of answered requests by duration. `seconds`: the sum of all durations.

    `counts[n]`: requests that took at most `BOUNDS[n]` seconds and longer than the bound before it. The last count is
    of those that took longer than every bound.
    """

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one request."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    def copy(self) -> LatencyHistogram:
        """Return the counts as they are now."""
        return LatencyHistogram(self.counts.copy(), self.seconds)
