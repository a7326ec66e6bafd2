"""The pace at which requests were answered before, and how long others will take at it.

Two models of a server's pace. With many samples, time is divided into bins, and `seconds = a * items + b * size` is
fitted to those in which as many requests as usual were in flight: what counts is what the server got done, so waiting
in its queue does not blur how time depends on length. With few samples, the service time of a request is fitted to
those that had the fewest others beside them; the number of requests that the server works on at once is then the one
with which requests to a simulated server take as long.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

FEWEST = 8  # samples below which nothing can be said
_BINS, _MOST_BINS, _PER_BIN = 8, 100, 8  # bins that a fit needs, the most that are made, and requests in one
# A server works on a request all the time, as others share it, or at the end only, after a queue: what fits best is so.
_WORKED = (1.0, 0.5, 0.1)
_BUSY = 0.7  # the fraction of the usual requests in flight below which a bin says nothing: ramp, end, gaps
_UNCROWDED = 0.25  # the fraction of samples, those with the fewest others beside them, that tell the service time
_ROUNDS = 3  # in which the service time is fitted
_LEAST = 1e-6  # of what was measured: what is expected at least, so that nothing is divided by 0
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
    """Seconds of asking per item and per character of its request, while `in_flight` requests are in flight.

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
    return _pace_by_time(timed, crowd) or _pace_by_simulation(timed, crowd)


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


def _pace_by_simulation(samples: Sequence[Sample], crowd: _Crowd) -> MeasuredPace:
    """Fit the service time, and how many requests are worked on at once: as many as explain how long each one took.

    The server may let the others wait or share its work among all: the simulation that fits better is taken.
    """
    by_crowd = sorted(samples, key=lambda one: crowd.mean(one.begun, one.ended))
    alone = by_crowd[: max(FEWEST // 2, round(len(samples) * _UNCROWDED))]
    base, slope = _service_time(alone)
    mean = sum(one.seconds for one in samples) / len(samples)
    instant = sum(one.seconds for one in alone) / len(alone) / 10  # what began within it began at once
    in_order = sorted(samples, key=lambda one: (one.begun // instant, -one.size))  # the longest first, as it is asked
    work = [(one.begun, max(base + slope * one.size, mean * _LEAST)) for one in in_order]
    numbers = _numbers_up_to(crowd.most)
    simulations = [(_queued(work, round(number)), number) for number in numbers if number == round(number)]
    simulations += [(_shared(work, number), number) for number in numbers]
    _, at_once = min((_misfit(in_order, found), number) for found, number in simulations)
    capped = at_once < _SATURATED * crowd.most
    return MeasuredPace(base / at_once, slope / at_once, mean, float(crowd.most), len(samples), capped)


def _service_time(samples: Sequence[Sample]) -> tuple[float, float]:
    """Fit the seconds of a request to its size, with errors relative to what is expected.

    Relative to what was measured, as in the first round, requests that took long by chance would count too little.
    """
    expected = [one.seconds for one in samples]
    for _ in range(_ROUNDS):
        rows = [
            (1 / about, one.size / about, one.seconds / about) for one, about in zip(samples, expected, strict=True)
        ]
        base, slope = fitted(rows)
        expected = [max(base + slope * one.size, one.seconds * _LEAST) for one in samples]
    return base, slope


def _numbers_up_to(most: int) -> list[float]:
    """Return halves and wholes up to a number, with steps of a twentieth where these are larger."""
    numbers = [1.0]
    while (number := max(numbers[-1] + 0.5, round(numbers[-1] * 1.05))) <= most:
        numbers.append(number)
    return numbers


def _misfit(samples: Sequence[Sample], simulated: Sequence[float]) -> float:
    """Return how badly simulated seconds fit: the deviance of relative errors, least if these are 0 on average."""
    ratios = [one.seconds / found for one, found in zip(samples, simulated, strict=True)]
    return sum(ratio - 1 - math.log(ratio) for ratio in ratios)


def _queued(work: Sequence[tuple[float, float]], servers: int) -> list[float]:
    """Return each request's seconds if the server works on `servers` requests at a time and queues the others.

    `work`: when each was sent, and its service time.
    """
    free, seconds = [work[0][0]] * servers, []
    for begun, service in work:
        ends = max(begun, heapq.heappop(free)) + service
        heapq.heappush(free, ends)
        seconds.append(ends - begun)
    return seconds


def _shared(work: Sequence[tuple[float, float]], servers: float) -> list[float]:
    """Return each request's seconds if all requests in flight share the capacity of `servers` servers equally.

    `work`: when each was sent, and its service time.
    """
    seconds, active = [0.0] * len(work), list[tuple[float, int]]()
    coming = sorted(range(len(work)), key=lambda place: work[place][0], reverse=True)
    now, done = -math.inf, 0.0  # `done`: for a request that has been there from the beginning
    while coming or active:
        begun = work[coming[-1]][0] if coming else math.inf
        pace = min(1.0, servers / len(active)) if active else 1.0
        ends = now + (active[0][0] - done) / pace if active else math.inf
        if begun < ends:
            done += (begun - now) * pace if active else 0.0
            now, place = begun, coming.pop()
            heapq.heappush(active, (done + work[place][1], place))
        else:
            now, (done, place) = ends, heapq.heappop(active)
            seconds[place] = now - work[place][0]
    return seconds


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
