"""Readings: how a run went, every few seconds of it, and what can be said from them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EVERY = 5.0  # seconds between two readings


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters since a process began to work on a run, and what was so just then.

    `at`: seconds since 1970 UTC. `latency`: seconds, the median of the requests that ended since the last reading; None
    where none did. Tokens are None where no server has said how many.
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

    @property
    def settled(self) -> int:
        """Items that this process has settled."""
        return self.completed + self.discarded

    @property
    def tokens(self) -> int | None:
        """Of requests and answers together."""
        known = [count for count in (self.tokens_in, self.tokens_out) if count is not None]
        return sum(known) if known else None


@dataclass(frozen=True, slots=True)
class Span:
    """What happened from `since` to `until`. Rates are per second, `latency` is in seconds."""

    since: float
    until: float
    items: int
    tokens: int | None
    asking: float  # seconds of it in which something was asked
    in_flight: float
    latency: float | None

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.until - self.since

    @property
    def items_per_second(self) -> float:
        """Settled items."""
        return self.items / self.seconds

    @property
    def tokens_per_second(self) -> float | None:
        """None where no server has said how many."""
        return None if self.tokens is None else self.tokens / self.seconds


@dataclass(frozen=True, slots=True)
class Asked:
    """What all processes together did for a run. `asking`: seconds in which something was asked or settled."""

    completed: int = 0
    discarded: int = 0
    requests: int = 0
    tokens_in: int | None = None
    tokens_out: int | None = None
    asking: float = 0.0
    peak: float = 0.0  # items per second, in the best span

    @property
    def settled(self) -> int:
        """Items that were asked, or shared the answer of one that was."""
        return self.completed + self.discarded

    @property
    def rate(self) -> float | None:
        """Items per second of asking; None where nothing can be said."""
        return self.settled / self.asking if self.settled and self.asking else None

    @property
    def token_rate(self) -> float | None:
        """Tokens per second of asking."""
        known = [count for count in (self.tokens_in, self.tokens_out) if count is not None]
        return sum(known) / self.asking if known and self.asking else None


def spans(readings: Sequence[Reading]) -> list[Span]:
    """What happened between one reading of a process and its next, in the order of time.

    Where a process ends and another goes on later, there is a gap. A clock that was requeued loses that span.
    """
    found = []
    for process_id in dict.fromkeys(reading.process_id for reading in readings):
        own = sorted((one for one in readings if one.process_id == process_id), key=lambda one: one.at)
        found += [_between(before, after) for before, after in pairwise(own) if after.at > before.at]
    return sorted(found, key=lambda span: span.since)


def merged(spans_: Sequence[Span], most: int) -> list[Span]:
    """At most `most` spans that tell the same, neighbours together; never across a gap."""
    group = -(-len(spans_) // max(1, most))
    if group <= 1:
        return list(spans_)
    found: list[Span] = []
    pile: list[Span] = []
    for span in spans_:
        if pile and (len(pile) == group or span.since > pile[-1].until):
            found.append(_together(pile))
            pile = []
        pile.append(span)
    return [*found, _together(pile)]


def asked(readings: Sequence[Reading]) -> Asked:
    """What the readings of a run add up to."""
    lasts = {one.process_id: one for one in sorted(readings, key=lambda one: one.at)}.values()
    between = spans(readings)
    return Asked(
        completed=sum(last.completed for last in lasts),
        discarded=sum(last.discarded for last in lasts),
        requests=sum(last.requests for last in lasts),
        tokens_in=sum_known(last.tokens_in for last in lasts),
        tokens_out=sum_known(last.tokens_out for last in lasts),
        asking=sum(span.asking for span in between),
        peak=max((span.items_per_second for span in between if span.seconds >= 1.0), default=0.0),
    )


def _between(before: Reading, after: Reading) -> Span:
    items = max(0, after.settled - before.settled)  # items are given back where the endpoint was to blame
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
