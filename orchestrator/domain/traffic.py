"""Traffic: the requests of a run, including those that failed and were retried."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.domain.errors import FailureKind
from orchestrator.domain.phrases import count
from orchestrator.domain.readings import asked, lost_requests, requests_by_status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.domain.readings import Reading

SAMPLED = 40  # chunks whose answers tell how long answers take: 20,000 of them
NONE = "none"  # stands for the status of a request without an answer
_ANSWERED = frozenset({FailureKind.GARBLED, FailureKind.BAD_ANSWER})  # with a status of 200


@dataclass(frozen=True, slots=True)
class Failed:
    """Attempts that failed in the same way; after `retried` of them the item was, or will be, asked again."""

    kind: str
    status: int | None
    attempts: int
    retried: int

    def __str__(self) -> str:
        text = f"{self.attempts:,} {self.kind}{f' {self.status}' if self.status else ''}"
        return f"{text} ({self.retried:,} retried)" if self.retried else text


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of the time until an answer, in seconds, and the longest."""

    p50: float
    p90: float
    p99: float
    longest: float

    def __str__(self) -> str:
        return f"{self.p50:.3g} s (median), {self.p90:.3g} s (90 %), {self.p99:.3g} s (99 %)"


@dataclass(frozen=True, slots=True)
class Traffic:
    """The requests of a run and how they went. `in_flight`: requests, as of a few seconds ago.

    `lost`: requests without an answer, by cause. Their total is one of `failed`, too. `statuses`: all others by HTTP
    status, "none" if they failed without one.
    """

    requests: int = 0
    in_flight: int = 0
    latency: Latency | None = None
    failed: Sequence[Failed] = ()
    lost: Mapping[str, int] = field(default_factory=dict)
    statuses: Mapping[str, int] = field(default_factory=dict)


def traffic_of(
    readings: Sequence[Reading], latency: Latency | None, failed: Sequence[Failed], *, executing: bool
) -> Traffic:
    """Return the traffic of a run from its ledger data. `executing`: whether a process is working on it."""
    in_flight = readings[-1].in_flight if readings and executing else 0
    lost = lost_requests(readings)
    if total := sum(lost.values()):
        failed = [*failed, Failed("lost", None, total, total)]
    return Traffic(asked(readings).requests, in_flight, latency, failed, lost, requests_by_status(readings))


def status_of(kind: str, status: int | None) -> int | None:
    """Return the HTTP status of a failed request; None if it got no answer."""
    return 200 if status is None and kind in _ANSWERED else status


def status_words(statuses: Mapping[str, int]) -> str:
    """Return for example `1,200 x 200, 14 x 503, 2 without`."""
    return ", ".join(f"{number:,} {'without' if one == NONE else f'x {one}'}" for one, number in statuses.items())


def latency_of(seconds: Sequence[float]) -> Latency | None:
    """Return the percentiles of sorted durations; None if there are none."""
    if not seconds:
        return None
    p50, p90, p99 = (seconds[-(-len(seconds) * part // 100) - 1] for part in (50, 90, 99))
    return Latency(p50, p90, p99, seconds[-1])


def traffic_lines(traffic: Traffic) -> list[str]:
    """Return lines such as `120 requests; answers took 0.5 s (median), ...`, and one for failed attempts.

    While requests are in flight, their number is shown instead of the total: the total is a few seconds old and would
    lag behind the settled items.
    """
    lines = []
    if traffic.requests:
        in_flight = count(traffic.in_flight, "request") + " in flight"
        requests = in_flight if traffic.in_flight else count(traffic.requests, "request")
        lines.append(f"{requests}; answers took {traffic.latency}" if traffic.latency else requests)
    if traffic.statuses.keys() - {"200"}:
        lines.append(f"requests by status: {status_words(traffic.statuses)}")
    if traffic.failed:
        lines.append(f"failed attempts: {', '.join(map(str, traffic.failed))}")
    if traffic.lost:
        lines.append(f"lost requests: {', '.join(f'{number:,} {cause}' for cause, number in traffic.lost.items())}")
    return lines
