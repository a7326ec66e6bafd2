"""Estimates from a canary against what the rest then takes, in virtual time: no other work of the machine is in them.

`python -m bench.canary` prints a line for each server of `bench/estimate.py` and each size of a canary of 800 items:
the median, the least and the largest of `estimate / truth - 1` over 20 corpora, for the minutes awake. The canary is
asked as a run asks it, and the rest by the limiter from its beginning, as after `plan --canary`.
"""

from __future__ import annotations

import random
from statistics import median
from typing import TYPE_CHECKING

from bench.estimate import BASE, COLD_START, NOISE, PAUSING, PER_CHARACTER, ROWS
from orchestrator.domain.limiter import Limiter
from orchestrator.domain.measured_pace import Sample, Workload, pace_of

if TYPE_CHECKING:
    from collections.abc import Sequence

CORPORA, LEASED = 20, 500


class Server:
    """One model server. It works on a fixed number of requests at once, or divides its capacity among all of them."""

    def __init__(self, slots: int, seed: int, *, shared: bool) -> None:
        self.now = 0.0
        self._slots, self._shared, self._chance = slots, shared, random.Random(seed)
        self._active: list[list[float]] = []  # work that is left, when it was sent, its length
        self._waiting: list[list[float]] = []

    def ask(self, limiter: Limiter, sizes: Sequence[int], most: int = ROWS) -> list[Sample]:
        """Answer requests of these lengths, as many at once as the limiter allows."""
        answered, coming = list[Sample](), list(reversed(sizes))
        while len(answered) < len(sizes):
            while coming and limiter.in_flight < min(limiter.limit, most):
                limiter.begin(self.now)
                self._take(coming.pop())
            answered.append(found := self._finish())
            limiter.end(self.now, found.begun)
        return answered

    def _take(self, size: int) -> None:
        work = (BASE + PER_CHARACTER * size) * self._chance.uniform(1 - NOISE, 1 + NOISE)
        at_once = self._shared or len(self._active) < self._slots
        (self._active if at_once else self._waiting).append([work, self.now, size])

    def _finish(self) -> Sample:
        share = min(1.0, self._slots / len(self._active)) if self._shared else 1.0
        work, begun, size = first = min(self._active)
        self.now += work / share
        for one in self._active:
            one[0] -= work
        self._active.remove(first)
        if self._waiting:
            self._active.append(self._waiting.pop(0))
        return Sample(int(size), self.now - begun, self.now)


def parts(sizes: Sequence[int], number: int) -> list[Sequence[int]]:
    """Divide a list into parts of so many."""
    return [sizes[at : at + number] for at in range(0, len(sizes), number)]


def error(slots: int, items: int, seed: int, *, shared: bool) -> float:
    """Ask a canary of the given size, then the rest, and compare the estimate with the result."""
    chance = random.Random(seed)
    sizes = sorted(int(chance.lognormvariate(6, 0.8)) for _ in range(ROWS))
    chosen = {int((place + 0.5) * ROWS / items) for place in range(items)}
    canary = [sizes[place] for place in sorted(chosen)]
    rest = [size for place, size in enumerate(sizes) if place not in chosen]
    chance.shuffle(rest)
    server, limiter = Server(slots, seed, shared=shared), Limiter()
    samples = [one for pair in parts(canary[::4], 2) for one in server.ask(limiter, pair, 2)]
    others = [size for place, size in enumerate(canary) if place % 4]
    pace = pace_of([*samples, *server.ask(limiter, others[::-1])])
    assert pace is not None
    truth = Server(slots, seed + 1, shared=shared)
    truth.ask(Limiter(), [size for leased in parts(rest, LEASED) for size in sorted(leased, reverse=True)])
    beside = COLD_START + PAUSING
    return (pace.seconds(Workload(len(rest), sum(rest))) + beside) / (truth.now + beside) - 1


def main() -> None:
    """Print one line a server and size."""
    print(f"{'server':>12}{'canary':>8}{'median':>9}{'least':>9}{'largest':>9}")
    for kind in ("queue", "shared"):
        for slots in (2, 4, 8, 16, 32):
            for items in (32, 64):
                found = [error(slots, items, seed, shared=kind == "shared") for seed in range(CORPORA)]
                cells = (f"{one:+9.1%}" for one in (median(found), min(found), max(found)))
                print(f"{f'{kind}-{slots}':>12}{items:>8}", *cells, sep="")


if __name__ == "__main__":
    main()
