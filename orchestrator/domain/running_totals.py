"""Running totals: sums over all runs of a ledger, which processes increase and nothing decreases."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from orchestrator.domain.latency_histogram import BOUNDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.domain.latency_histogram import LatencyHistogram


class Total(StrEnum):
    """What is added up, and what its label says."""

    REQUESTS = "requests"
    LOST = "lost"  # requests without an answer; a `LossCause`
    STATUS = "status"  # requests; the HTTP status of the response, or `NONE` without one
    TOKENS = "tokens"  # "in" or "out"
    COMPLETED = "completed"  # items
    DISCARDED = "discarded"  # items; a `FailureKind`
    RETRIED = "retried"  # failed attempts after which the item is asked again; a `FailureKind`
    LATENCY = "latency"  # answered requests; the bound in seconds that they did not exceed
    LATENCY_SECONDS = "latency_seconds"
    COMMITS = "commits"
    COMMIT_SECONDS = "commit_seconds"
    AWAKE_SECONDS = "awake_seconds"  # of pruned awake windows; an endpoint
    DOLLARS = "dollars"  # of pruned awake windows; an endpoint
    CHARGES = "charges"  # dollars for answers that are paid by the request or the token; an endpoint


TotalKey = tuple[Total, str]  # with its label, "" if it has none
LATENCY_LABELS = (*(f"{bound:g}" for bound in BOUNDS), "inf")


@dataclass(frozen=True, slots=True)
class RunningTotals:
    """All totals of a ledger."""

    values: Mapping[TotalKey, float]

    def of(self, total: Total, label: str = "") -> float:
        """Return one total; 0 if nothing was added yet."""
        return self.values.get((total, label), 0.0)


def latency_totals(histogram: LatencyHistogram) -> dict[TotalKey, float]:
    """Return a histogram as totals."""
    counts = zip(LATENCY_LABELS, histogram.counts, strict=True)
    return {(Total.LATENCY, bound): count for bound, count in counts} | {(Total.LATENCY_SECONDS, ""): histogram.seconds}


def increase(before: Mapping[TotalKey, float], now: Mapping[TotalKey, float]) -> dict[TotalKey, float]:
    """Return by how much each total has grown. One that has fallen counts again once it exceeds its former value."""
    grown = {key: value - before.get(key, 0) for key, value in now.items()}
    return {key: by for key, by in grown.items() if by > 0}
