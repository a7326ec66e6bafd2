"""Estimates: how long a run will ask and keep endpoints awake, and what that costs, from requests answered before.

Two models of a server's pace. With many samples, time is divided into bins, and `seconds = a * items + b * size` is
fitted to those in which as many requests as usual were in flight: what counts is what the server got done, so waiting
in its queue does not blur how time depends on length. With few samples, the service time of a request is fitted to
those that had the fewest others beside them; the number of requests that the server works on at once is then the one
with which a simulated queue takes as long.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.domain.phrases import count, duration, money
from orchestrator.domain.terms import cost_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orchestrator.domain.charges import UsePrice

FEWEST = 8  # samples below which nothing can be said
_BINS, _MOST_BINS, _PER_BIN = 8, 100, 8  # bins that a fit needs, the most that are made, and requests in one
# A server works on a request all the time, as others share it, or at the end only, after a queue: what fits best is so.
_WORKED = (1.0, 0.5, 0.1)
_BUSY = 0.7  # the fraction of the usual requests in flight below which a bin says nothing: ramp, end, gaps
_UNCROWDED = 0.25  # the fraction of samples, those with the fewest others beside them, that tell the service time
_SLACK = 0.01  # the fraction by which a simulation may be slower than what was measured, and still agree with it
_SATURATED = 0.9  # the fraction of the requests in flight that the server worked on, above which its limit is unknown


@dataclass(frozen=True, slots=True)
class Workload:
    """Items to ask, and the characters of their requests together."""

    items: int = 0
    size: int = 0

    def __add__(self, other: Workload) -> Workload:
        return Workload(self.items + other.items, self.size + other.size)


class Sample(NamedTuple):
    """One answered request: its characters, the seconds that it took, and when it ended, in seconds on any clock."""

    size: int
    seconds: float
    ended: float

    @property
    def begun(self) -> float:
        """The moment at which it was sent."""
        return self.ended - self.seconds


@dataclass(frozen=True, slots=True)
class MeasuredPace:
    """Seconds of asking per item and per character of its request, with so many requests in flight.

    `latency`: seconds that one request takes. `capped`: the server had reached its limit; if not, more requests in
    flight would be faster.
    """

    per_item: float
    per_size: float
    latency: float
    in_flight: float
    samples: int
    capped: bool = True

    def seconds(self, load: Workload) -> float:
        """Return the seconds of asking for this load; the last requests end half a latency later than on average."""
        if not load.items:
            return 0.0
        return self.per_item * load.items + self.per_size * load.size + self.latency / 2


def pace_of(samples: Sequence[Sample]) -> MeasuredPace | None:
    """Return the pace at which these requests were answered; None if they are too few to say."""
    timed = _without_gaps([one for one in samples if one.seconds > 0])
    if len(timed) < FEWEST:
        return None
    crowd = _Crowd(timed)
    return _pace_by_time(timed, crowd) or _pace_by_queue(timed, crowd)


def _without_gaps(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples in the order in which they ended, as if there had been no time without any in flight."""
    gaps, busy_until, moved = 0.0, -math.inf, []
    for one in sorted(samples, key=lambda one: one.begun):
        if one.begun > busy_until > -math.inf:
            gaps += one.begun - busy_until
        busy_until = max(busy_until, one.ended)
        moved.append(one._replace(ended=one.ended - gaps))
    return sorted(moved, key=lambda one: one.ended)


class _Crowd:
    """How many of the samples were in flight when."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        changes = sorted([(one.begun, 1) for one in samples] + [(one.ended, -1) for one in samples])
        self._at = [at for at, _ in changes]
        self._number, self._area = [0], [0.0]  # after each change; seconds in flight up to it
        self.most = 0
        for place, (at, change) in enumerate(changes):
            since = self._at[place - 1] if place else at
            self._area.append(self._area[-1] + self._number[-1] * (at - since))
            self._number.append(self._number[-1] + change)
            self.most = max(self.most, self._number[-1])

    def mean(self, since: float, until: float) -> float:
        """Return the mean number in flight between two moments."""
        return (self._up_to(until) - self._up_to(since)) / (until - since)

    def usual(self, samples: Sequence[Sample]) -> float:
        """Return how many were in flight beside and with the median sample, which few at the start do not change."""
        return median(self.mean(one.begun, one.ended) for one in samples)

    def _up_to(self, moment: float) -> float:
        place = bisect_right(self._at, moment)
        return self._area[place] + (self._number[place] * (moment - self._at[place - 1]) if place else 0.0)


# -- many samples -----------------------------------------------------------------------------------------------------


def _pace_by_time(samples: Sequence[Sample], crowd: _Crowd) -> MeasuredPace | None:
    """Fit the seconds of a bin to what was done in it, if there are enough bins."""
    number = min(_MOST_BINS, len(samples) // _PER_BIN)
    begun, ended = min(one.begun for one in samples), samples[-1].ended
    width = (ended - begun) / max(1, number)
    crowds = [crowd.mean(begun + place * width, begun + (place + 1) * width) for place in range(number)]
    usual = crowd.usual(samples)
    busy = [place for place in range(number) if crowds[place] >= max(_BUSY * usual, 1 / 2)]
    if len(busy) < _BINS:
        return None
    fits = []
    for worked in _WORKED:
        done = _done(samples, begun, width, worked)
        fits.append(_fit([done[place] for place in busy if done[place][0] > 0], width))
    _, per_item, per_size = min(fits)
    return MeasuredPace(per_item, per_size, median(one.seconds for one in samples), usual, len(samples))


def _done(samples: Sequence[Sample], begun: float, width: float, worked: float) -> list[tuple[float, float]]:
    """Return the items and characters done in each bin, if a request is worked on in this last fraction of its time."""
    done = [(0.0, 0.0)] * (int((samples[-1].ended - begun) / width) + 1)
    for one in samples:
        seconds = one.seconds * worked
        since = one.ended - seconds
        for place in range(int((since - begun) / width), int((one.ended - begun) / width) + 1):
            part = min(one.ended, begun + (place + 1) * width) - max(since, begun + place * width)
            items, size = done[place]
            done[place] = items + part / seconds, size + part / seconds * one.size
    return done


def _fit(done: Sequence[tuple[float, float]], width: float) -> tuple[float, float, float]:
    """Return how badly the best line fits, and the line: seconds per item and per character.

    A bin counts as seconds per item by mean size, so that the noise is in what is explained, with its relative error.
    """
    rows = []
    for items, size in done:
        weight = items**1.5 / width
        rows.append((weight, weight * size / items, weight * width / items))
    per_item, per_size = fitted(rows)
    badness = sum((per_item * x + per_size * y - z) ** 2 for x, y, z in rows) / sum(z * z for _, _, z in rows)
    scale = len(done) * width / sum(per_item * items + per_size * size for items, size in done)
    return badness, per_item * scale, per_size * scale


# -- few samples ------------------------------------------------------------------------------------------------------


def _pace_by_queue(samples: Sequence[Sample], crowd: _Crowd) -> MeasuredPace:
    """Fit the service time, and how many requests are worked on at once.

    Servers that share their work evenly end later in a simulated queue, and their requests take longer together, than
    they do in truth; so the mean of what the two say is taken.
    """
    by_crowd = sorted(samples, key=lambda one: crowd.mean(one.begun, one.ended))
    alone = by_crowd[: max(FEWEST // 2, round(len(samples) * _UNCROWDED))]
    base, slope = fitted([(1 / one.seconds, one.size / one.seconds, 1.0) for one in alone])
    seconds = sum(one.seconds for one in samples)
    instant = seconds / len(samples) / 10  # what began within it began at once: the longest first, as it is asked
    in_order = sorted(samples, key=lambda one: (one.begun // instant, -one.size))
    work = [(one.begun, base + slope * one.size) for one in in_order]
    by_seconds = _worked_on_at_once(lambda number: _queued(work, number)[0], seconds, crowd.most)
    span = samples[-1].ended - work[0][0]
    by_end = _worked_on_at_once(lambda number: _queued(work, number)[1], span, crowd.most)
    if _queued(work, crowd.most)[1] > span * (1 - _SLACK):
        by_end = by_seconds  # one long request ends last, however many are worked on at once
    at_once = math.sqrt(by_seconds * by_end)
    capped = by_seconds < _SATURATED * crowd.most
    return MeasuredPace(
        base / at_once, slope / at_once, seconds / len(samples), float(crowd.most), len(samples), capped
    )


def _worked_on_at_once(simulated: Callable[[int], float], measured: float, most: int) -> float:
    """Return the number of requests worked on at once with which the simulation gives what was measured.

    Between two whole numbers, it is interpolated.
    """
    before = math.inf
    for number in range(1, most + 1):
        found = simulated(number)
        if found <= measured * (1 + _SLACK):
            between = max(0.0, measured - found) / (before - found) if math.inf > before > found else 0.0
            return number - between
        before = found
    return float(most)


def _queued(work: Sequence[tuple[float, float]], servers: int) -> tuple[float, float]:
    """Return the seconds that requests take, added up and from first to last, if so many are worked on at once.

    `work`: when each was sent, and its service time.
    """
    free, total = [work[0][0]] * servers, 0.0
    for begun, service in work:
        ends = max(begun, heapq.heappop(free)) + service
        heapq.heappush(free, ends)
        total += ends - begun
    return total, max(free) - work[0][0]


def fitted(rows: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """Return the a and b, neither below 0, for which `a * x + b * y` is nearest to z. Rows are (x, y, z)."""
    xx, xy, yy = (sum(p * q for p, q in pairs) for pairs in _products(rows))
    xz, yz = sum(x * z for x, _, z in rows), sum(y * z for _, y, z in rows)
    determinant = xx * yy - xy * xy
    if determinant > 1e-9 * xx * yy:
        a, b = (xz * yy - yz * xy) / determinant, (yz * xx - xz * xy) / determinant
        if a >= 0 and b >= 0:
            return a, b
    only_x, only_y = (xz / xx if xx else 0.0, 0.0), (0.0, yz / yy if yy else 0.0)
    return min(only_x, only_y, key=lambda both: sum((both[0] * x + both[1] * y - z) ** 2 for x, y, z in rows))


def _products(
    rows: Sequence[tuple[float, float, float]],
) -> tuple[list[tuple[float, float]], list[tuple[float, float]], list[tuple[float, float]]]:
    return [(x, x) for x, _, _ in rows], [(x, y) for x, y, _ in rows], [(y, y) for _, y, _ in rows]


# -- money ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Billing:
    """What an endpoint that bills adds to the asking, as in its latest windows.

    `beside`: seconds that it is awake without being asked: cold start, pause, rests. `share`: the fraction of the
    asking for which it is awake. `price_per_hour`: dollars; None if it is not known.
    """

    endpoint: str
    beside: float
    share: float
    price_per_hour: float | None


@dataclass(frozen=True, slots=True)
class Usage:
    """How fast the policy lets a run ask, and what its endpoint charges for answers.

    `items_per_request`: None if that is chosen while the run goes on. `tokens`: of an item's requests and answers, as
    the server counted them so far; None if it did not. `price`: None if nothing is charged for answers.
    """

    items_per_request: int | None = 1
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    tokens: tuple[float, float] | None = None
    price: UsePrice | None = None

    def shortest(self, load: Workload) -> float:
        """Return the seconds that the policy's limits need for this load."""
        minutes = [0.0]
        if self.requests_per_minute is not None:
            minutes.append(load.items / (self.items_per_request or 1) / self.requests_per_minute)
        if self.tokens_per_minute is not None and self.tokens is not None:
            minutes.append(load.items * sum(self.tokens) / self.tokens_per_minute)
        return 60 * max(minutes)

    def dollars(self, load: Workload) -> float | None:
        """Return what the answers to this load cost; None if that cannot be told."""
        if self.price is None:
            return 0.0
        tokens = (0.0, 0.0) if self.price.per_million_tokens is None else self.tokens
        requests = 0.0 if self.price.per_request is None else self.items_per_request
        if tokens is None or requests is None:
            return None
        asked = load.items / (requests or 1)
        return self.price.charge(asked, load.items * tokens[0], load.items * tokens[1]).dollars


_NO_LIMITS = Usage()


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will take. `seconds`: of asking. `awake_seconds`: of all endpoints that bill, added up.

    `cost`: dollars for both the time awake and answers that are charged. What is not known is None, and `reason` says
    why. `basis`: what the figures come from, in words.
    """

    seconds: float | None = None
    awake_seconds: float | None = None
    cost: float | None = None
    basis: str | None = None
    reason: str | None = None

    def __str__(self) -> str:
        if self.seconds is None:
            charged = "none" if self.cost is None else f"{money(self.cost)} for answers; no time"
            return f"estimate: {charged}, {self.reason}"
        if self.awake_seconds is None:
            text = f"estimate: about {duration(self.seconds)} of asking"
        else:
            text = f"estimate: about {self.awake_seconds / 60:,.1f} min awake"
        text += "" if self.cost is None else f", {money(self.cost)}"
        text += "" if self.basis is None else f" ({self.basis})"
        return text if self.reason is None else f"{text}; {self.reason}"


NOTHING_TO_ASK = Estimate(0.0, 0.0, 0.0, "nothing is to be asked")


def estimated(
    load: Workload, pace: MeasuredPace | None, billing: Sequence[Billing], basis: str, usage: Usage = _NO_LIMITS
) -> Estimate:
    """Return the estimate for a load. `billing`: of the endpoints that bill; empty if none does.

    `basis`: which requests the pace is that of.
    """
    if not load.items:
        return NOTHING_TO_ASK
    charged = usage.dollars(load)
    if pace is None:
        why = "no earlier run of the job has asked enough with this endpoint: try --canary"
        return Estimate(cost=charged if usage.price is not None else None, reason=why)
    seconds, shortest = pace.seconds(load), usage.shortest(load)
    basis += f", at {round(pace.in_flight)} in flight"
    if shortest > seconds:
        seconds, basis = shortest, f"{basis}, as slow as the policy's limits"
    elif not pace.capped:
        basis += ", where the server was not at its limit: more at once would be faster"
    if not billing and usage.price is None:
        return Estimate(seconds, basis=basis, reason="no endpoint of the job is billed while it is awake")
    awake = sum(one.beside + one.share * seconds for one in billing) if billing else None
    costs = {one.endpoint: cost_of(one.beside + one.share * seconds, one.price_per_hour) for one in billing}
    unknown = [name for name, cost in costs.items() if cost is None]
    if unknown:
        why = f"the price of {', '.join(unknown)} is not known: set price_per_hour= on it"
        return Estimate(seconds, awake, None, basis, why)
    if charged is None:
        return Estimate(seconds, awake, None, basis, "what answers will cost cannot be told from earlier ones")
    return Estimate(seconds, awake, charged + sum(cost or 0.0 for cost in costs.values()), basis)


def without_waking(billing: Sequence[Billing]) -> list[Billing]:
    """Return the same for endpoints that are awake already."""
    return [replace(one, beside=0.0) for one in billing]


def basis_of(run: int, samples: int) -> str:
    """Return which requests an estimate comes from: `412 requests of run 7`."""
    return f"{count(samples, 'request')} of run {run}"
