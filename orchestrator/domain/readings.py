"""Readings: the counters of a run, taken every few seconds, and the rates derived from them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from orchestrator.domain.latency_histogram import LatencyHistogram

EVERY = 5.0  # seconds between two readings


@dataclass(frozen=True, slots=True)
class Reading:
    """The counters of a process since it began to work on a run, and its state at that moment.

    `at`: seconds since 1970 UTC. `latency`: seconds, the median over requests that ended since the last reading; None
    if none did. Tokens are None if no server has reported them. `lost`: requests without an answer, by `LossCause`.
    `statuses`: all others by HTTP status, "none" if they failed without one.
    `latency_counts`, `commits` and `commit_seconds` are None in readings of older versions.
    """

    at: float
    process_id: int
    completed: int = 0
    discarded: int = 0
    requests: int = 0
    tokens_in: int | None = None
    tokens_out: int | None = None
    in_flight: int = 0
    latency: float | None = None
    latency_counts: LatencyHistogram | None = None
    commits: int | None = None
    commit_seconds: float | None = None
    lost: Mapping[str, int] = field(default_factory=dict)
    statuses: Mapping[str, int] = field(default_factory=dict)

    @property
    def settled(self) -> int:
        """The number of items that this process has settled."""
        return self.completed + self.discarded

    @property
    def tokens(self) -> int | None:
        """The tokens of requests and answers together; None if unknown."""
        known = [count for count in (self.tokens_in, self.tokens_out) if count is not None]
        return sum(known) if known else None


@dataclass(frozen=True, slots=True)
class Span:
    """What happened from `since` to `until`. Rates are per second, `latency` is in seconds."""

    since: float
    until: float
    items: int
    tokens: int | None
    asking: float  # seconds during which requests were in flight
    in_flight: float
    latency: float | None

    @property
    def seconds(self) -> float:
        """The length of the span."""
        return self.until - self.since

    @property
    def items_per_second(self) -> float:
        """Settled items per second."""
        return self.items / self.seconds

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens per second; None if no server has reported them."""
        return None if self.tokens is None else self.tokens / self.seconds


@dataclass(frozen=True, slots=True)
class Asked:
    """What all processes together did for a run. `asking`: seconds in which requests were in flight or settled."""

    completed: int = 0
    discarded: int = 0
    requests: int = 0
    tokens_in: int | None = None
    tokens_out: int | None = None
    asking: float = 0.0
    peak: float = 0.0  # items per second, in the best span

    @property
    def settled(self) -> int:
        """The number of items that were asked, or shared the answer of another item."""
        return self.completed + self.discarded

    @property
    def rate(self) -> float | None:
        """Items per second of asking; None if nothing was asked yet."""
        return self.settled / self.asking if self.settled and self.asking else None

    @property
    def token_rate(self) -> float | None:
        """Tokens per second of asking; None if unknown."""
        known = [count for count in (self.tokens_in, self.tokens_out) if count is not None]
        return sum(known) / self.asking if known and self.asking else None


def spans(readings: Sequence[Reading]) -> list[Span]:
    """Return the spans between consecutive readings of each process, sorted by time.

    If a process ends and another one continues later, there is a gap. A span is left out if the clock was set back.
    """
    by_time = []
    for process_id in dict.fromkeys(reading.process_id for reading in readings):
        own = sorted((reading for reading in readings if reading.process_id == process_id), key=_moment)
        by_time += [_between(before, after) for before, after in pairwise(own) if after.at > before.at]
    return sorted(by_time, key=lambda span: span.since)


def merged(spans_: Sequence[Span], most: int) -> list[Span]:
    """Merge adjacent spans so that about `most` are left; spans are never merged across a gap."""
    group = -(-len(spans_) // max(1, most))
    if group <= 1:
        return list(spans_)
    merged_spans: list[Span] = []
    pile: list[Span] = []
    for span in spans_:
        if pile and (len(pile) == group or span.since > pile[-1].until):
            merged_spans.append(_together(pile))
            pile = []
        pile.append(span)
    return [*merged_spans, _together(pile)]


def asked(readings: Sequence[Reading]) -> Asked:
    """Return the totals of a run from its readings."""
    lasts = _lasts(readings)
    between = spans(readings)
    totals = Asked(
        completed=sum(last.completed for last in lasts),
        discarded=sum(last.discarded for last in lasts),
        requests=sum(last.requests for last in lasts),
        tokens_in=sum_known(last.tokens_in for last in lasts),
        tokens_out=sum_known(last.tokens_out for last in lasts),
        asking=sum(span.asking for span in between),
        peak=max((span.items_per_second for span in between if span.seconds >= 1.0), default=0.0),
    )
    # the spans of a short run are too short to count one by one, and no run's best is below its average
    return replace(totals, peak=max(totals.peak, totals.rate or 0.0))


def lost_requests(readings: Sequence[Reading]) -> dict[str, int]:
    """Return the requests of a run that got no answer, by cause, the most frequent first."""
    lost = Counter[str]()
    for last in _lasts(readings):
        lost.update(last.lost)
    return dict(lost.most_common())


def requests_by_status(readings: Sequence[Reading]) -> dict[str, int]:
    """Return the requests of a run by HTTP status, in the order of the statuses."""
    statuses = Counter[str]()
    for last in _lasts(readings):
        statuses.update(last.statuses)
    return dict(sorted(statuses.items()))


def _lasts(readings: Sequence[Reading]) -> list[Reading]:
    """Return the last reading of each process, which has all its counts."""
    return list({reading.process_id: reading for reading in sorted(readings, key=_moment)}.values())


def _moment(reading: Reading) -> float:
    return reading.at


def _between(before: Reading, after: Reading) -> Span:
    items = max(0, after.settled - before.settled)  # the counter falls if items are released: the endpoint was at fault
    moved = items or after.requests > before.requests or before.in_flight or after.in_flight
    tokens = None if after.tokens is None else max(0, after.tokens - (before.tokens or 0))
    seconds = after.at - before.at
    return Span(
        before.at,
        after.at,
        items,
        tokens,
        seconds if moved else 0.0,
        (before.in_flight + after.in_flight) / 2,
        after.latency,
    )


def _together(pile: Sequence[Span]) -> Span:
    latencies = [span.latency for span in pile if span.latency is not None]
    seconds = sum(span.seconds for span in pile)
    return Span(
        pile[0].since,
        pile[-1].until,
        sum(span.items for span in pile),
        sum_known(span.tokens for span in pile),
        sum(span.asking for span in pile),
        sum(span.in_flight * span.seconds for span in pile) / seconds,
        median(latencies) if latencies else None,
    )


def sum_known(counts: Iterable[int | None]) -> int | None:
    """Add up the counts that are known; None if none is."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
