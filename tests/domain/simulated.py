"""Model servers in virtual time, and clients that keep as many requests in flight as they are allowed."""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING

from orchestrator.domain.engine_metrics import EngineSample

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.domain.limiter import Limiter

FIXED = (4, 8, 12, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 512, 768, 1024)
_REFUSED_AFTER = 0.02
_DRAWN = 2000  # requests, whose sizes then come again


@dataclass(frozen=True, slots=True)
class Shape:
    """A server: `pace(n, now)` is the work per second it does when it works on n requests, shared evenly among them.

    `spread`: sigma of the lognormal work of a request (mean 1), times `size` of its number; `weighed`: the limiter is
    told that size, else that each is one. `slots`: requests worked on at once, the rest queue.
    `cap(now)`: requests it takes in; one more is refused, and then the client sends nothing for `cooldown` seconds.
    What depends on time may change at whole seconds only, and `seconds` are whole.
    """

    name: str
    pace: Callable[[int, float], float]
    spread: float = 0.05
    size: Callable[[int], float] = lambda _: 1.0
    weighed: bool = False
    slots: int = 1 << 30
    cap: Callable[[float], int] = lambda _: 1 << 30
    cooldown: float = 0.5
    seconds: float = 120.0


@dataclass(slots=True)
class Run:
    """What a run did: completions per whole second, refusals, and the limit over time."""

    completed: list[int]
    refused: int = 0
    limits: list[tuple[float, int]] = field(default_factory=list)

    def rate(self, start: float = 0.0, end: float | None = None) -> float:
        part = self.completed[int(start) : int(len(self.completed) if end is None else end)]
        return sum(part) / len(part)


class _Server:
    """Work is shared evenly, so requests finish in the order of the service that they still lack.

    Written for speed: tests run millions of requests, and a call costs the most where coverage is measured.
    """

    def __init__(self, shape: Shape, seed: int) -> None:
        chance = random.Random(seed)
        sizes = [shape.size(number) for number in range(_DRAWN)]
        mean, spread = -shape.spread * shape.spread / 2, shape.spread
        self._coming = cycle([(size, size * chance.lognormvariate(mean, spread)) for size in sizes])
        self.shape = shape
        self._slots = shape.slots
        self._served = 0.0  # work that each request in service since the start would have received
        self._at = 0.0
        self._share = 0.0  # work per second for each of those in service
        self._shares: dict[int, float] = {}  # the same for each of so many, in this very second
        self._active: list[tuple[float, float, float]] = []  # (finished when `served` is, begun, size)
        self._queue: deque[tuple[float, float, float]] = deque()  # (work, begun, size)
        self._cap = shape.cap(0.0)
        self.refused: deque[float] = deque()  # begun then

    def sample(self) -> EngineSample:
        running = len(self._active)
        return EngineSample(min(1.0, running / self._slots), len(self._queue), running, 0)

    def tick(self, now: float) -> None:
        """A second has passed: the server may have changed."""
        self._served += self._share * (now - self._at)
        self._at = now
        self._shares.clear()
        self._cap = self.shape.cap(now)

    def add(self, now: float) -> None:
        running = len(self._active)
        if running + len(self._queue) >= self._cap:
            self.refused.append(now)
            return
        self._served += self._share * (now - self._at)
        self._at = now
        size, work = next(self._coming)
        if running < self._slots:
            heapq.heappush(self._active, (self._served + work, now, size))
        else:
            self._queue.append((work, now, size))

    def next_end(self) -> float:
        """To be asked after every change."""
        running = len(self._active)
        if not running:
            self._share = 0.0
            return math.inf
        if running not in self._shares:
            self._shares[running] = self.shape.pace(running, self._at) / running
        self._share = self._shares[running]
        return self._at + max(0.0, self._active[0][0] - self._served) / self._share

    def finish(self, now: float) -> tuple[float, float]:
        """When the request that ends now was begun, and its size."""
        self._served += self._share * (now - self._at)
        self._at = now
        _, begun, size = heapq.heappop(self._active)
        if self._queue:
            work, *waiting = self._queue.popleft()
            heapq.heappush(self._active, (self._served + work, waiting[0], waiting[1]))
        return begun, size


class Fixed:
    """A limit that stays."""

    def __init__(self, limit: int) -> None:
        self.limit, self.in_flight = limit, 0

    def begin(self, _: float) -> None:
        self.in_flight += 1

    def end(self, _: float, __: float, ___: float = 1.0) -> None:
        self.in_flight -= 1

    reject = end

    def observe(self, _: float, __: EngineSample) -> None: ...


def simulate(shape: Shape, limiter: Limiter | Fixed, seed: int = 0, *, watched: bool = False) -> Run:
    """Run the shape with clients that obey the limiter.

    `watched`: the limiter sees every second what the server would say of itself, its slots being its KV cache.
    """
    server = _Server(shape, seed)
    run = Run([0] * int(shape.seconds), limits=[(0.0, limiter.limit)])
    now, second, paused_at, resume_at = 0.0, 1.0, -1.0, 0.0  # all pause together after a refusal
    while now < shape.seconds:
        if now >= resume_at:
            while limiter.in_flight < limiter.limit:
                limiter.begin(now)
                server.add(now)
        ending = server.next_end()
        refusal = server.refused[0] + _REFUSED_AFTER if server.refused else math.inf
        resuming = resume_at if resume_at > now else math.inf
        now = min(ending, refusal, resuming, second)
        if now == second:
            server.tick(now)
            second += 1.0
            if watched:
                limiter.observe(now, server.sample())
        elif now == refusal:
            run.refused += 1
            begun = server.refused.popleft()
            limiter.reject(now, begun)
            if begun > paused_at:
                paused_at, resume_at = now, now + shape.cooldown
        elif now == ending:
            begun, size = server.finish(now)
            limiter.end(now, begun, size if shape.weighed else 1.0)
            run.completed[int(now)] += 1
        if run.limits[-1][1] != limiter.limit:
            run.limits.append((now, limiter.limit))
    return run


def best_fixed(shape: Shape, seed: int = 0, among: tuple[int, ...] = FIXED) -> tuple[int, Run]:
    """The best number of requests in flight for the whole run, and that run."""
    runs = [(limit, simulate(shape, Fixed(limit), seed)) for limit in among]
    return max(runs, key=lambda pair: pair[1].rate())


def _to_the_knee(knee: float, latency: float = 1.0) -> Callable[[int, float], float]:
    return lambda n, _: min(n, knee) / latency


def _cliff(knee: Callable[[float], float], depth: float = 0.25) -> Callable[[int, float], float]:
    """Flat to 1.3 times the knee; from there to 1.6 times it falls to `depth` of what it was (thrashing)."""

    def pace(n: int, now: float) -> float:
        top = knee(now)
        over = min(1.0, max(0.0, n / top - 1.3) / 0.3)
        return min(n, top) * (1 - (1 - depth) * over)

    return pace


def _step(at: float, before: float, after: float) -> Callable[[float], float]:
    return lambda now: before if now < at else after


def _moving(knee: Callable[[float], float]) -> Callable[[int, float], float]:
    return lambda n, now: min(n, knee(now))


def _squeezed(cap: int, less: int, every: float = 20, lasting: float = 4) -> Callable[[float], int]:
    """A cap that is lower for the first few seconds of every so many, but for the first time."""
    return lambda now: less if now >= every and now % every < lasting else cap


def _longest_first(number: int) -> float:
    """As the engine sorts what it has leased: in each thousand from 1.9 times the mean down to a tenth of it."""
    return 1.9 - 1.8 * (number % 1000) / 1000


def _smooth(half: float) -> Callable[[int, float], float]:
    return lambda n, _: n / (1 + n / half)


SHAPES: dict[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape("saturating", _to_the_knee(64)),
        Shape("queueing", _to_the_knee(200), slots=200),
        Shape("fast", _to_the_knee(24, 0.1), spread=0.3),
        Shape("one at a time", _to_the_knee(1, 0.3), slots=1),
        Shape("smooth", _smooth(24)),
        Shape("linear", _to_the_knee(900)),
        Shape("cliff", _cliff(_step(0, 64, 64))),
        Shape("small cliff", _cliff(_step(0, 6, 6))),
        Shape("noisy", _to_the_knee(64), spread=0.8),
        Shape("noisy cliff", _cliff(_step(0, 100, 100)), spread=0.6),
        Shape("refusing", _to_the_knee(400), cap=lambda _: 48, spread=0.3),
        Shape("refusing late", _to_the_knee(400), cap=lambda _: 200, spread=0.3),
        Shape("bursts", _to_the_knee(400), cap=_squeezed(64, 16), spread=0.3),
        Shape("outages", _to_the_knee(64), cap=_squeezed(1 << 30, 8, every=30, lasting=2), spread=0.3),
        Shape("halved", _moving(_step(60, 96, 48)), spread=0.3),
        Shape("doubled", _moving(_step(60, 48, 96)), spread=0.3),
        Shape("cliff moves", _cliff(_step(60, 96, 48)), spread=0.3),
        Shape("cap moves", _to_the_knee(400), cap=lambda now: 96 if now < 60 else 48, spread=0.3),
        Shape("sorted", _to_the_knee(64), size=_longest_first, weighed=True, spread=0.3),
        Shape("sorted cliff", _cliff(_step(0, 100, 100)), size=_longest_first, weighed=True, spread=0.3),
        Shape("sorted cap", _to_the_knee(400), cap=lambda _: 100, size=_longest_first, weighed=True, spread=0.3),
        Shape("sorted, unweighed", _to_the_knee(64), size=_longest_first, spread=0.3),
        Shape("slow 32", _to_the_knee(32, 20.0), spread=0.35, seconds=600),
        Shape("slow 256", _to_the_knee(256, 20.0), spread=0.35, seconds=600),
        Shape("slow cliff", lambda n, now: _cliff(_step(0, 96, 96))(n, now) / 15, spread=0.35, seconds=600),
    )
}
