"""Load: how requests are offered to an endpoint in a load test: on a schedule, by a number of clients, or in steps."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from math import floor, inf
from typing import TYPE_CHECKING

from orchestrator.domain.moment import seconds_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from random import Random

MINUTE = 60.0  # seconds of arrivals that may be in flight: with more, the endpoint cannot keep up
STEPS = 10  # of a sweep, which has the same time for each
SETTLING = 0.25  # the first part of a step is not counted: the requests that were added are not answered yet
_GROWS = 1.1  # times the best throughput so far: below that, more requests in flight bring nothing
_NEAR = 0.95  # of the best throughput: what the knee reaches
_OBJECTIVE = re.compile(r"p(\d{1,2}(?:\.\d+)?)\s*=\s*(.+)")


class Arrivals(StrEnum):
    """How the moments of arrival are spaced, at the same rate."""

    POISSON = "poisson"  # by chance, as from many users who know nothing of each other
    UNIFORM = "uniform"  # evenly


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """`rate` requests a second, on schedule, whatever comes back."""

    rate: float
    spaced: Arrivals = Arrivals.POISSON

    def __str__(self) -> str:
        return f"open loop, {self.rate:g} arrivals a second ({self.spaced})"


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """`concurrency` requests in flight: an answer makes room for the next request."""

    concurrency: int = 1

    def __str__(self) -> str:
        return f"closed loop, {self.concurrency:,} in flight"


@dataclass(frozen=True, slots=True)
class Sweep:
    """Closed loops of 1, 2, 4, 8 ... requests in flight, until more bring nothing."""

    def __str__(self) -> str:
        return "sweep of closed loops"


Load = OpenLoop | ClosedLoop | Sweep
_MOST = 100_000  # arrivals a second, or requests in flight


def load_of(rate: float | None, spaced: Arrivals, concurrency: int | None, *, sweep: bool) -> Load:
    """Return the load that these options mean; one request in flight without any. Raises `ValueError`."""
    if (rate is not None) + (concurrency is not None) + sweep > 1:
        raise ValueError("give one of --rate, --concurrency and --sweep")
    if rate is not None:
        if not 0 < rate <= _MOST:
            raise ValueError(f"--rate must be above 0 and at most {_MOST:,}, not {rate:g}")
        return OpenLoop(rate, spaced)
    if concurrency is not None and not 1 <= concurrency <= _MOST:
        raise ValueError(f"--concurrency must be from 1 to {_MOST:,}, not {concurrency}")
    return Sweep() if sweep else ClosedLoop(concurrency or 1)


def arrivals(loop: OpenLoop, seconds: float, chance: Random) -> Iterator[float]:
    """Yield when requests arrive: seconds since the beginning, in order, below `seconds`."""
    at = 0.0
    number = 0
    while True:
        if loop.spaced is Arrivals.UNIFORM:
            at = number / loop.rate  # no sum, whose rounding errors would add up
        elif number:
            at += chance.expovariate(loop.rate)
        if at >= seconds:
            return
        yield at
        number += 1


def most_in_flight(rate: float, room: int | None) -> int:
    """Return how many requests of an open loop may be in flight. `room`: as many connections as this machine has."""
    return max(1, floor(min(rate * MINUTE, inf if room is None else room)))


@dataclass(frozen=True, slots=True)
class Objective:
    """A service level objective: `percent` of the requests are answered within `seconds`, from their arrival."""

    percent: float
    seconds: float

    def __str__(self) -> str:
        return f"p{self.percent:g}={self.seconds:g}s"

    @staticmethod
    def read(text: str) -> Objective:
        """Parse `p95=2s` or `p99=300ms`. Raises `ValueError` for anything else."""
        match = _OBJECTIVE.fullmatch(text.strip())
        percent, seconds = 0.0, 0.0
        if match is not None:
            percent, number = float(match[1]), match[2].strip()
            with suppress(ValueError):
                seconds = float(number[:-2]) / 1000 if number.endswith("ms") else seconds_of(number)
        if not (percent > 0 and 0 < seconds < inf):
            raise ValueError(f"{text!r} is not an objective such as p95=2s or p99=300ms")
        return Objective(percent, seconds)


@dataclass(frozen=True, slots=True)
class Stair:
    """A step of a sweep: what so many requests in flight brought. `kept`: whether every objective was met."""

    concurrency: int
    throughput: float  # items a second
    kept: bool = True


def next_concurrency(stairs: Sequence[Stair], most: int | None = None) -> int | None:
    """Return with how many requests in flight a sweep goes on; None if there is nothing to find out any more.

    It doubles them until two steps in a row bring nothing, or an objective is missed. Then it looks a quarter below the
    knee and a half above it. `most`: as many as this machine has connections for.
    """
    if not stairs:
        return 1
    tried = {stair.concurrency for stair in stairs}
    if _climbs(stairs):
        doubled = 2 * stairs[-1].concurrency
        if most is None or doubled <= most:
            return doubled
    found = knee(stairs)
    if found is None:
        return None
    around = (round(found.concurrency * factor) for factor in (0.75, 1.5))
    return next((one for one in around if one not in tried and 1 <= one <= (most or one)), None)


def _climbs(stairs: Sequence[Stair]) -> bool:
    """Whether the concurrency has only been doubled so far, and more of it may bring more."""
    if any(after.concurrency != 2 * before.concurrency for before, after in pairwise(stairs)):
        return False
    if not stairs[-1].kept:
        return False
    best, flat = 0.0, 0
    for stair in stairs:
        flat = 0 if stair.throughput >= best * _GROWS else flat + 1
        best = max(best, stair.throughput)
    return flat < 2


def knee(stairs: Sequence[Stair]) -> Stair | None:
    """Return the least concurrency with nearly the best throughput, among those that keep the objectives.

    None if none keeps them, or nothing was answered.
    """
    kept = [stair for stair in stairs if stair.kept and stair.throughput > 0]
    best = max((stair.throughput for stair in kept), default=0.0)
    return min(
        (stair for stair in kept if stair.throughput >= _NEAR * best),
        key=lambda stair: stair.concurrency,
        default=None,
    )
