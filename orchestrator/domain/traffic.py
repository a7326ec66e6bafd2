"""Traffic: how the requests of a run went, those that failed and were made again, too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.domain.phrases import count
from orchestrator.domain.readings import asked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.domain.readings import Reading


@dataclass(frozen=True, slots=True)
class Failed:
    """Attempts that failed alike; after `retried` of them the item was, or will be, asked again."""

    kind: str
    status: int | None
    attempts: int
    retried: int

    def __str__(self) -> str:
        said = f"{self.attempts:,} {self.kind}{f' {self.status}' if self.status else ''}"
        return f"{said} ({self.retried:,} retried)" if self.retried else said


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds within which so many percent of the answers came, and the longest."""

    p50: float
    p90: float
    p99: float
    longest: float

    def __str__(self) -> str:
        return f"{self.p50:.3g} s (median), {self.p90:.3g} s (90 %), {self.p99:.3g} s (99 %)"


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went out for a run, and how it went. `in_flight`: requests, as of a few seconds ago."""

    requests: int = 0
    in_flight: int = 0
    latency: Latency | None = None
    failed: Sequence[Failed] = ()


def traffic_of(
    readings: Sequence[Reading], latency: Latency | None, failed: Sequence[Failed], *, executing: bool
) -> Traffic:
    """What the ledger says of a run's requests. `executing`: a process is at work on it."""
    in_flight = readings[-1].in_flight if readings and executing else 0
    return Traffic(asked(readings).requests, in_flight, latency, failed)


def latency_of(seconds: Sequence[float]) -> Latency | None:
    """What these come to, which are sorted; None without any."""
    if not seconds:
        return None
    p50, p90, p99 = (seconds[-(-len(seconds) * part // 100) - 1] for part in (50, 90, 99))
    return Latency(p50, p90, p99, seconds[-1])


def traffic_lines(traffic: Traffic) -> list[str]:
    """In words: `120 requests; answers took 0.5 s (median), ...`, and what failed.

    While some are in flight, how many these are: the sum is a few seconds old, and behind the items that are settled.
    """
    lines = []
    if traffic.requests:
        flying = count(traffic.in_flight, "request") + " in flight"
        said = flying if traffic.in_flight else count(traffic.requests, "request")
        lines.append(f"{said}; answers took {traffic.latency}" if traffic.latency else said)
    if traffic.failed:
        lines.append(f"failed attempts: {', '.join(map(str, traffic.failed))}")
    return lines
