"""Limiter: finds the number of requests in flight with the highest throughput.

It is a hill climber: it holds a limit, tries another one, and keeps the one with the higher throughput. Latency does
not matter: a queue at the server costs a batch nothing, an idle place does. The limiter has no clock: callers
pass moments, as seconds on any monotonic clock. `bench/limiter.py` measures it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from orchestrator.domain.throughput import Throughput

if TYPE_CHECKING:
    from orchestrator.domain.engine_metrics import EngineSample

_BINDS = 0.8  # the fraction of the limit that must be in use; below it, throughput says nothing about the limit
_FAILING = 0.2  # a measurement in which more than this fraction of requests failed says nothing either
_FEWEST, _SHORTEST = 16, 0.1  # requests and seconds that a measurement needs at least
_LONGEST = 3  # an unclear measurement may take this many times the usual length
# The ramp waits for only a fraction of the limit: for the first measurement, when nothing was in flight before, and for
# later ones. A doubling takes one latency. One doubling too many costs less than one too few, so this many standard
# errors are added to the measured gain.
_RAMP_FIRST, _RAMP_NEXT, _RAMP_TRUST = 0.75, 0.5, 2
_SECOND = 16  # the second limit is at least this: a low start is for safety, not for measuring every step
# A limit f times as high must raise throughput by f**WORTH to be kept. During the ramp a small gain is enough, but only
# a steep one leads to another doubling; a lower limit may cost almost nothing.
_STEEP, _WORTH_RAMP, _WORTH, _WORTH_DOWN = 0.8, 0.3, 0.1, 0.05
_HURTS = 0.9  # a try that reaches less than this fraction of the throughput has found an edge
_FELL, _ROSE = 0.7, 1.1  # a change of throughput by these factors at the same limit: the server has changed
# If throughput is below this fraction after this many latencies, do not wait for the end of the measurement. A server
# that answers in bursts is also silent for long when it merely slows down, so an earlier check would confuse it with
# one that thrashes.
_COLLAPSED, _AFTER = 0.5, 1.7
_CUT = 0.8  # the fraction of the requests in flight that is allowed after a refusal
_REST, _LONGEST_REST = 8, 32  # measurements between two tries once the knee is found; doubled after a try that hurt
_STEP, _WARY_STEP, _BETWEEN = 1.25, 1.1, math.sqrt(2)
_DOWN_EVERY = 4  # every fourth try goes down, to notice if the limit has gradually become too high
_NEAR_REFUSAL, _NEAR_EDGE = 1.06, 1.45  # if bad / good limit is below this, stop: touching an edge costs more
_KV_ROOM, _KV_BUSY, _KV_FULL = 0.6, 0.8, 0.9  # fraction of the KV cache in use: grow freely, stop growing, cut
_CROWDED = 6  # samples in a row with more than half as many requests waiting as running
_FRESH = 15.0  # seconds for which a sample is valid


class LimiterPhase(StrEnum):
    """What the limiter is doing."""

    RAMP = "ramp"  # doubling: at the start, and on the way back to the limit at which a refusal came
    HOLD = "hold"  # measuring the base, which is the best limit known
    TRY = "try"  # measuring another limit


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the limit was changed, for display."""

    at: float
    limit: int
    why: str


@dataclass(frozen=True, slots=True)
class _Rate:
    """Work per second, its relative standard error, and work per second by counting (accurate only in the long run)."""

    work: float
    error: float
    counted: float


class _Measurement:
    """One measurement. It counts requests that end after `opened`, except those begun before `since` at another limit.

    `done` and `ended` are the work and the number of all requests that ended since the measurement was `made`.
    """

    def __init__(self, made: float, opened: float, since: float) -> None:
        self.made, self.opened, self.since = made, opened, since
        self.area = 0.0  # requests in flight, integrated over time
        self.ended = self.failed = 0
        self.done = 0.0
        self.counted = Throughput()

    def add(self, now: float, begun: float, work: float) -> None:
        self.ended += 1
        self.done += work
        if begun >= self.since and now >= self.opened:
            self.counted.add(work, now - begun)

    def rate(self, now: float, in_use: float, *, early: bool = False) -> _Rate:
        """Return the work per second of one place, times the places in use (Little's law).

        Counting completions would be off by half if a server answers in bursts. `early`: many requests have only just
        begun, and only the quick ones of those were answered. Little's law is then too high by about as much as the
        count is too low, so the geometric mean is used, with a larger error since a few requests may agree by chance.
        """
        error = self.counted.error
        work, counted = in_use * self.counted.rate, self.done / (now - self.made)
        if early:
            return _Rate(math.sqrt(work * counted), max(error, 1 / self.counted.requests), counted)
        return _Rate(work, error, counted)


class Limiter:
    """Call `begin` when a request takes its place, and one of `end`, `fail`, `reject` when it leaves; obey `limit`.

    While `in_flight < limit`, another request may begin. `limit` may fall below `in_flight`: then none may begin until
    enough have left. `start` is the first limit, which is then doubled: one that is too low costs a latency, one that
    overloads the server far more. `remembered`: `start` was `best` in an earlier run on the same endpoint, so it is
    changed only in small steps.
    """

    def __init__(self, start: int = 4, least: int = 1, most: int = 1024, *, remembered: bool = False) -> None:
        if not 1 <= least <= most:
            raise ValueError(f"a limiter needs 1 <= least <= most, not {least} and {most}")
        self.limit = self._base = self._start = min(most, max(least, start))
        self._least, self._most = least, most
        self.in_flight = 0
        self.phase = LimiterPhase.HOLD if remembered else LimiterPhase.RAMP
        self.reasons: deque[Reason] = deque(maxlen=64)
        self._rate: _Rate | None = None  # at the base, which is the best limit known
        self._latency = 0.0
        self._at = 0.0
        self._window: _Measurement | None = None
        self._draining = False  # more are in flight than allowed: requests that end now ran under the previous limit
        self._unrest = 0.0  # mean relative change of the base's throughput between measurements
        self._doubt = False  # whether the last measurement of the base was much lower than the one before
        self._ceiling = math.inf  # a limit known to be too high
        self._near = _NEAR_EDGE
        self._step = _STEP
        self._wary = False  # whether an edge was found
        self._down = False  # whether the next try goes down
        self._checked = 0  # the last base for which a lower limit was tried because an edge is near
        self._tries = 0
        self._rest, self._pause = 0, _REST
        self._cut_at = self._no_growth_until = -math.inf
        self._goal = math.inf  # the limit before a cut; up to there, growth needs little proof
        self._patient = False  # whether one more refusal on the way there is tolerated
        self._engine: EngineSample | None = None
        self._engine_at = -math.inf
        self._crowded = 0

    @property
    def best(self) -> int:
        """The best limit known."""
        return self._base

    # -- what callers report ------------------------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """Note that a request takes its place."""
        self._count(now, 1)

    def end(self, now: float, begun: float, work: float = 1.0) -> None:
        """Note that a request begun at `begun` was answered. `work`: in items or in tokens, always the same unit."""
        window = self._count(now, -1)
        window.add(now, begun, work)
        if self._draining:
            return
        if self.limit > self._base and self._collapsed(now, window):
            self._hurt(now, "collapsed")
        elif now >= window.opened:
            self._look(now, window)

    def fail(self, now: float, begun: float) -> None:
        """Note that a request ended without an answer, but not because of overload. It held a place and did no work."""
        window = self._count(now, -1)
        window.add(now, begun, 0.0)
        window.failed += 1

    def reject(self, now: float, begun: float, wait: float = 0.0, crowd: int | None = None) -> None:
        """Note that a request was refused because of overload (429, 529, 503). `wait`: seconds the server asked for.

        `crowd`: requests that were in flight at the refusal, if some have ended since. A burst of refusals causes one
        cut: refusals of requests sent before the last cut are ignored. The limit does not grow for one latency.
        """
        self._count(now, -1)
        self._no_growth_until = max(self._no_growth_until, now + max(wait, self._latency))
        if begun < self._cut_at:
            return
        self._cut_at, self._near, self._wary = now, _NEAR_REFUSAL, True
        if self._base == self.limit:  # the base has become too high: go down, and later up again to where it was
            self._goal, self._patient = self._base if self._goal == math.inf else self._goal, True
            self._cut(now, int(min(self.limit, crowd or self.in_flight + 1) * _CUT), LimiterPhase.RAMP, "refused")
        elif self._patient and self._goal < math.inf:  # the overload may simply last a little longer
            self._patient = False
            self._no_growth_until = max(self._no_growth_until, now + 2 * self._latency)
            self._move(now, self._base, LimiterPhase.RAMP, "refused again")
        else:
            self._step = _BETWEEN if self.phase is LimiterPhase.RAMP else self._step
            self._hurt(now, "refused")

    def observe(self, now: float, sample: EngineSample) -> None:
        """Note the server's own metrics, every few seconds. They are used only if they include its KV cache."""
        before, self._engine, self._engine_at = self._engine, sample, now
        if sample.kv_use is None or self.in_flight > self.limit:  # no second cut before the first has drained
            return
        crowded = (sample.waiting or 0) > (sample.running or 0) / 2
        self._crowded = self._crowded + 1 if crowded else 0
        if before and before.preemptions is not None and (sample.preemptions or 0) > before.preemptions:
            # the server threw work away and has to do it again
            self._cut(now, int(self.limit * _CUT), LimiterPhase.HOLD, "preempted")
        elif sample.kv_use > _KV_FULL or self._crowded >= _CROWDED:
            self._crowded = 0
            self._cut(now, int(self.limit * 0.9), LimiterPhase.HOLD, "the server is full")

    # -- measuring ----------------------------------------------------------------------------------------------------

    def _count(self, now: float, change: int) -> _Measurement:
        if self._window is None:
            self._window = self._opened(now)
        self._window.area += self.in_flight * max(0.0, now - max(self._at, self._window.opened))
        self._at = now
        self.in_flight += change
        if self._draining and self.in_flight <= self.limit:
            self._draining = False
            self._window = self._opened(now)
        return self._window

    def _opened(self, now: float) -> _Measurement:
        """Return a measurement for a new limit. Except in the ramp, it begins once all requests began at that limit."""
        settle = 0.0 if self.phase is LimiterPhase.RAMP else self._latency * max(1.0, self.limit / self._base)
        return _Measurement(now, now + settle, now)

    def _look(self, now: float, window: _Measurement) -> None:
        """Evaluate the measurement if it is complete: as many requests as the limit, so that it adapts to latency."""
        ramp = self.phase is LimiterPhase.RAMP
        share = _RAMP_FIRST if self._rate is None else _RAMP_NEXT
        needed = self.limit * share if ramp else max(_FEWEST, self.limit)
        elapsed = now - window.opened
        if window.counted.requests < needed or elapsed < _SHORTEST:
            return
        in_use = min(self.limit, window.area / elapsed)
        if in_use < _BINDS * self.limit or window.failed > _FAILING * window.ended or not window.counted.work:
            self._move(
                now, self._base, LimiterPhase.HOLD if self.phase is LimiterPhase.TRY else self.phase, "not in use"
            )
            return
        rate, latency = window.rate(now, in_use, early=ramp), window.counted.seconds / window.counted.requests
        if self.phase is LimiterPhase.HOLD:
            self._latency, self._window = latency, _Measurement(now, now, window.since)
            self._hold(now, rate)
        else:
            self._judge(now, rate, latency, clear=window.counted.requests >= _LONGEST * needed)

    def _collapsed(self, now: float, window: _Measurement) -> bool:
        """Whether throughput is so low (out of memory, thrashing) that a complete measurement would take forever."""
        elapsed = now - window.made
        if self._rate is None or elapsed < _AFTER * self._latency:
            return False
        done = window.done / elapsed
        usual = math.sqrt(self._rate.work * self._rate.counted)  # either may be off after a short measurement
        if done * (1 + 1 / math.sqrt(window.ended)) > _COLLAPSED * usual or self.in_flight < _BINDS * self.limit:
            return False
        return window.failed <= _FAILING * window.ended

    # -- deciding -----------------------------------------------------------------------------------------------------

    def _hold(self, now: float, rate: _Rate) -> None:
        """Handle a new measurement of the base: check whether the server has changed and whether a try is due."""
        before = self._rate
        noise = 3 * math.hypot(rate.error, before.error, self._unrest) if before else 0.0
        fell = before is not None and rate.work < before.work * min(_FELL, 1 - noise)
        if fell and not self._doubt:  # a single low measurement may be chance
            self._doubt = True
            return
        if before:
            self._unrest += 0.2 * (min(1.0, abs(rate.work / before.work - 1)) - self._unrest)
        self._rate, self._doubt = rate, False
        if fell:
            self._try(now, self._base // 2, "throughput fell")
        elif before and rate.work > before.work * max(_ROSE, 1 + noise):
            self._rest = 0
        elif self._rest > 0 and not self._engine_has_room(now):
            self._rest -= 1
        else:
            self._next_try(now)

    def _next_try(self, now: float) -> None:
        if self._down or self._tries % _DOWN_EVERY == _DOWN_EVERY - 1:
            self._try(now, int(self._base / self._step), "less in flight")
        elif now < self._no_growth_until or self._engine_is_full(now):
            return
        elif self._ceiling > max(self._base + 1, self._base * self._near):
            higher = min(self._base * self._step, math.sqrt(self._base * self._ceiling))
            self._try(now, math.ceil(higher), "more in flight")
        elif self._near == _NEAR_EDGE and self._checked != self._base:  # so near an edge, the base may be beyond it
            self._checked = self._base
            self._try(now, int(self._base / _STEP), "less in flight")
        else:
            self._settle()

    def _judge(self, now: float, rate: _Rate, latency: float, *, clear: bool) -> None:
        """Handle a measurement of a limit other than the base: keep it, go back, or measure longer if unclear."""
        before, ramp, factor = self._rate, self.phase is LimiterPhase.RAMP, self.limit / self._base
        if before is None:
            self._accept(now, rate, latency, steep=True)
            return
        need = factor ** (_WORTH_RAMP if ramp else _WORTH if factor > 1 else _WORTH_DOWN)
        if self._goal < math.inf or (factor > 1 and not ramp and self._engine_has_room(now)):
            need = _HURTS
        if factor < 1:
            need += self._unrest
        gain, doubt = rate.work / before.work, math.hypot(rate.error, before.error)
        if ramp:
            gain *= 1 + _RAMP_TRUST * doubt
        elif not clear and abs(gain / need - 1) < doubt:
            return
        if gain >= need:
            self._accept(now, rate, latency, steep=gain >= factor**_STEEP)
        elif factor > 1 and gain < _HURTS:
            self._near, self._wary = _NEAR_EDGE, True
            self._hurt(now, "less was done")
        elif ramp and self._base > self._start:
            self._move(now, round(self._base * _BETWEEN), LimiterPhase.TRY, "between")
        else:
            self._settle()
            self._move(now, self._base, LimiterPhase.HOLD, "nothing gained")

    def _accept(self, now: float, rate: _Rate, latency: float, *, steep: bool) -> None:
        """Make the current limit the base and continue in the same direction, in growing steps while it succeeds."""
        self._down = self.limit < self._base
        self._base, self._rate, self._latency, self._rest = self.limit, rate, latency, 0
        if self.phase is LimiterPhase.RAMP:
            further = int(min(self._most, self._goal, max(self.limit * 2, _SECOND)))
            if (steep or self._goal < math.inf) and further > self.limit and not self._engine_is_full(now):
                self._move(now, self.limit if now < self._no_growth_until else further, LimiterPhase.RAMP, "doubled")
                return
            self._step = _STEP
            if self.limit >= self._goal:
                self._settle()
            self._goal = math.inf
        else:
            self._step = self._step if self._down else min(2.0, self._step * 1.2)
        self.phase, self._window = LimiterPhase.HOLD, _Measurement(now, now, now)
        if not self._rest:
            self._next_try(now)

    def _hurt(self, now: float, why: str) -> None:
        """Go back. The next tries are between the two limits, and later ones are less frequent."""
        self._ceiling, self._goal = self.limit, math.inf
        self._pause = min(_LONGEST_REST, self._pause * 2)
        if self.phase is LimiterPhase.RAMP and self.limit > self._base * 2:  # the ramp had skipped a doubling
            self._move(now, self._base * 2, LimiterPhase.TRY, why)
            return
        too_high = self._base == self._start and self.limit >= self._base * 2  # even the start may be too high
        self._move(now, self._base, LimiterPhase.HOLD, why)
        if too_high:
            self._step = 2.0
            self._try(now, self._base // 2, "less in flight")

    def _settle(self) -> None:
        """Rest, since the knee is found for now; later tries check whether it has moved."""
        self._rest, self._ceiling, self._down = self._pause, math.inf, False
        self._step = _WARY_STEP if self._wary else _STEP
        self._tries += 1

    def _cut(self, now: float, limit: int, phase: LimiterPhase, why: str) -> None:
        self._settle()
        self._base, self._rate = max(self._least, limit), None
        self._no_growth_until = max(self._no_growth_until, now + self._latency)
        self._move(now, self._base, phase, why)

    def _try(self, now: float, limit: int, why: str) -> None:
        limit = min(self._most, max(self._least, limit))
        if limit == self._base:
            self._settle()
        else:
            self._move(now, limit, LimiterPhase.TRY, why)

    def _move(self, now: float, limit: int, phase: LimiterPhase, why: str) -> None:
        if limit != self.limit:
            self.reasons.append(Reason(now, limit, why))
        self.limit, self.phase, self._doubt = limit, phase, False
        self._draining = self.in_flight > limit
        self._window = self._opened(now)

    # -- the server's metrics -----------------------------------------------------------------------------------------

    def _engine_is_full(self, now: float) -> bool:
        sample = self._fresh(now)
        return sample is not None and ((sample.kv_use or 0.0) > _KV_BUSY or bool(sample.waiting))

    def _engine_has_room(self, now: float) -> bool:
        sample = self._fresh(now)
        return sample is not None and (sample.kv_use or 0.0) < _KV_ROOM and not sample.waiting

    def _fresh(self, now: float) -> EngineSample | None:
        sample = self._engine if now - self._engine_at <= _FRESH else None
        return sample if sample is not None and sample.kv_use is not None else None
