"""`concurrency="auto"` against fixed numbers, in real time: runs of the command line against simulated GPU servers.

Each server is a process of its own that answers over HTTP and works by the event loop's timers, so that neither it nor
the client is held up by a CPU (the columns `server` and `client` say what parts of a core they took). `auto` starts
cold: nothing is remembered. Everything is relative to the best of the fixed numbers, which nobody knows beforehand:
`ratio` is all that `auto` got done from the first request on, `0-10 s` and `8-10 s` are those seconds, `last` the last
15. Fixed numbers are measured once they run evenly. Where the server changes, they are measured over a whole round of
its changes, early seconds of `auto` are compared with the same seconds, and `last` is the last round.

`python -m bench.auto [SHAPE ...] [--seconds 60]` prints the table; rounds are of 20 and of 60 seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import math
import random
import signal
import sys
import tempfile
import time
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from aiohttp import web

from bench.served import said, serve, served, told
from tests.commands import Running, Workplace, rows
from tests.domain.simulated import Shape

FIXED = (8, 16, 32, 64, 128, 256)
STEADY = 2.0  # seconds until a fixed number runs evenly
LASTING = 15.0  # seconds for which it is measured then
EARLY, ARRIVED = 10.0, 8.0
BUCKET = 0.5  # seconds
FASTEST = 700  # answers per second that no server here reaches
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Case:
    """A server, a number of requests that suits it, and how long a round of its changes takes."""

    shape: Shape
    suits: int
    round: float | None = None

    @property
    def fixed_seconds(self) -> float:
        """How long a fixed number is measured, once it runs evenly."""
        return self.round or LASTING


def _drifting(now: float) -> float:
    """From 32 up to 96 and back, in a minute."""
    return 64 - 32 * math.cos(2 * math.pi * now / 60)


def _squeezed(now: float) -> int:
    """64, but 16 in four of 20 seconds."""
    return 16 if 12 <= now % 20 < 16 else 64


def _thrashing(requests: int, _: float) -> float:
    """As fast as 40 at once can be up to 48; a quarter of that from 64 on."""
    over = min(1.0, max(0.0, (requests - 48) / 16))
    return min(requests, 40) * (1 - 0.75 * over) / 0.1


CASES = {
    case.shape.name: case
    for case in (
        Case(Shape("saturating", lambda n, _: min(n, 32) / 0.1), 32),
        Case(Shape("linear", lambda n, _: n / 0.5, slots=256), 256),
        Case(Shape("cliff", _thrashing), 44),
        Case(Shape("noisy", lambda n, _: min(n, 64) / 0.2, spread=0.8), 80),
        Case(Shape("bursty 429", lambda n, _: n / 0.15, spread=0.3, cap=_squeezed), 48, 20.0),
        Case(Shape("drifting", lambda n, now: min(n, _drifting(now)) / 0.15, spread=0.3), 96, 60.0),
    )
}


# -- the server --------------------------------------------------------------------------------------------------------


class _Service:
    """Work is shared evenly among the requests in service; the rest queue, or are refused."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._dice = random.Random(1)
        self._begun: float | None = None
        self._served = 0.0  # work that each request in service since the start would have received
        self._at = 0.0
        self._active: list[tuple[float, int, asyncio.Future[None]]] = []  # finished when `served` is; number
        self._queue: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._cpu = 0.0
        self._taken_in = self._refused = 0
        self._answered: Counter[int] = Counter()  # by half seconds

    @property
    def _now(self) -> float:
        """Seconds since the first request."""
        if self._begun is None:
            self._begun, self._cpu = time.monotonic(), time.process_time()
        return time.monotonic() - self._begun

    async def infer(self, request: web.Request) -> web.Response:
        await request.read()
        self._advance()
        if len(self._active) + len(self._queue) >= self._shape.cap(self._at):
            self._refused += 1
            return web.Response(text="overloaded", status=429)
        spread, done = self._shape.spread, asyncio.get_running_loop().create_future()
        self._queue.append((self._dice.lognormvariate(-spread * spread / 2, spread), done))
        self._plan()
        await done
        self._answered[int(self._now / BUCKET)] += 1
        return said([{"label": "POSITIVE", "score": 0.5}])

    def _advance(self) -> None:
        now, active = self._now, len(self._active)
        if active:
            self._served += self._shape.pace(active, self._at) / active * (now - self._at)
        self._at = now

    def _plan(self) -> None:
        """Take in what there is a place for, and wait for whatever is finished first."""
        while self._queue and len(self._active) < self._shape.slots:
            work, done = self._queue.popleft()
            self._taken_in += 1
            heapq.heappush(self._active, (self._served + work, self._taken_in, done))
        if self._timer is not None:
            self._timer.cancel()
        if self._active:
            active = len(self._active)
            rest = max(0.0, self._active[0][0] - self._served) / self._shape.pace(active, self._at) * active
            self._timer = asyncio.get_running_loop().call_later(rest, self._finish)

    def _finish(self) -> None:
        self._advance()
        while self._active and self._active[0][0] <= self._served + 1e-9:
            heapq.heappop(self._active)[2].set_result(None)
        self._plan()

    async def stats(self, _: web.Request) -> web.Response:
        if self._begun is None:
            return said({"seconds": None})
        buckets = [self._answered[bucket] for bucket in range(int(self._now / BUCKET) + 1)]
        cpu = time.process_time() - self._cpu
        return said({"seconds": self._now, "answered": buckets, "refused": self._refused, "cpu": cpu})


def main_of_server(shape: str) -> None:
    """Serve until stdin ends."""
    service, app = _Service(CASES[shape].shape), web.Application()
    app.add_routes([web.post("/", service.infer), web.get("/stats", service.stats)])
    asyncio.run(serve(app))


# -- the client --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """What a run got done in each half second; `cpu` of server and client, as parts of a core; the limit at its end."""

    answered: list[int]
    refused: int
    cpu: tuple[float, float]
    limit: int | None

    def rate(self, start: float, end: float) -> float:
        """Answers per second."""
        return sum(self.answered[int(start / BUCKET) : int(end / BUCKET)]) / (end - start)


def measure(case: Case, concurrency: int | str, seconds: float) -> Found:
    """One run, from nothing, that is stopped so many seconds after its first request."""
    with tempfile.TemporaryDirectory() as folder, served("bench.auto", "serve", case.shape.name) as url:
        place = Workplace(Path(folder), url)
        place.write_rows(rows(range(int(FASTEST * (seconds + 2)))))
        job = place.job(policy=f"concurrency={concurrency!r}")
        with place.start("run", job, "--quiet") as running:
            stats, client = _watched(running, f"{url}stats", seconds)
            running.send(signal.SIGINT)
            ended = running.end()
        if ended.code != INTERRUPTED:
            sys.exit(f"the run ended with {ended.code}: {ended.err}")
        limits = place.query("SELECT concurrency FROM tuning")
        cpu = stats["cpu"] / stats["seconds"], client / stats["seconds"]
        return Found(stats["answered"], stats["refused"], cpu, limits[0][0] if limits else None)


def _watched(running: Running, url: str, seconds: float) -> tuple[dict[str, Any], float]:
    """What the server says so many seconds after the first request, and the seconds of CPU that the client took."""
    client = psutil.Process(running.pid)
    while (passed := told(url)["seconds"]) is None:
        if running.process.poll() is not None:
            sys.exit(f"the run ended before it began: {running.end().err}")
        time.sleep(0.02)
    before = client.cpu_times()
    time.sleep(max(0.0, seconds + BUCKET - passed))
    after = client.cpu_times()
    return told(url), after.user + after.system - before.user - before.system


def compare(case: Case, seconds: float) -> None:
    """Measure the fixed numbers and `auto`, and print one line."""
    end = STEADY + case.fixed_seconds
    fixed = {limit: measure(case, limit, end) for limit in sorted({*FIXED, case.suits})}
    rates = {limit: found.rate(STEADY, end) for limit, found in fixed.items()}
    limit = max(rates, key=rates.__getitem__)
    best, usual = fixed[limit], rates[limit]
    auto = measure(case, "auto", seconds)

    def ratio(start: float, end: float) -> float:
        return auto.rate(start, end) / (best.rate(start, end) if case.round else usual)

    late = auto.rate(seconds - case.fixed_seconds, seconds) / usual
    server, client = auto.cpu
    print(
        f"{case.shape.name:11} {limit:5} {usual:7.1f} {auto.rate(0, seconds):7.1f} "
        f"{auto.rate(0, seconds) / usual:6.3f} {ratio(0, EARLY):7.3f} {ratio(ARRIVED, EARLY):7.3f} {late:6.3f} "
        f"{auto.refused / sum(auto.answered):8.4f} {auto.limit or 0:6} {server:5.2f} {client:5.2f}  ",
        " ".join(f"{limit}: {rate / usual:.2f}" for limit, rate in rates.items()),
        flush=True,
    )


def main() -> None:
    """Print one line a shape."""
    options = argparse.ArgumentParser(prog="python -m bench.auto")
    options.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"{', '.join(CASES)}; all without")
    options.add_argument("--seconds", type=float, default=60.0, help="how long `auto` runs")
    chosen = options.parse_args()
    print(f"answers/s; auto from cold for {chosen.seconds:g} s")
    print(f"{'shape':11} {'best':>5} {'best/s':>7} {'auto/s':>7} {'ratio':>6} {'0-10 s':>7} {'8-10 s':>7} ", end="")
    print(f"{'last':>6} {'refused':>8} {'limit':>6} {'server':>5} {'client':>5}  fixed numbers, of the best")
    for shape in chosen.shapes or CASES:
        compare(CASES[shape], chosen.seconds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        main_of_server(sys.argv[2])
    else:
        main()
