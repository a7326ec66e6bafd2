"""Limiter: how many requests may be in flight, so that the most work gets done per second.

It climbs the hill of throughput: holds a limit, tries another, keeps the one with which more got done. Latency is no
goal: a queue at the server costs a batch nothing, an idle place does. It is told everything and knows no clock: moments
are seconds on any clock that only goes forward. `bench/limiter.py` measures it.
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

_BINDS = 0.8  # of the limit must be in use, else throughput says nothing about the limit
_FAILING = 0.2  # of the requests fail: such a measurement says nothing either
_FEWEST, _SHORTEST = 16, 0.1  # a measurement: requests, seconds at least
_LONGEST = 3  # times the length of a measurement, while it is unclear
# The ramp waits for fewer, of the limit: at first, when none was in flight before, and then. A doubling costs it a
# latency; one too many costs less than one too few, so that as many standard errors count for going on.
_RAMP_FIRST, _RAMP_NEXT, _RAMP_TRUST = 0.75, 0.5, 2
_SECOND = 16  # at least, the second limit of all: a low start is there to be safe, not to be measured step by step
# A limit f times as high is worth having if f**WORTH times as much gets done. While doubling little will do, but only a
# steep gain is followed by another doubling; going down may cost next to nothing.
_STEEP, _WORTH_RAMP, _WORTH, _WORTH_DOWN = 0.8, 0.3, 0.1, 0.05
_HURTS = 0.9  # of the throughput: a try with less has found an edge
_FELL, _ROSE = 0.7, 1.1  # of the throughput at one and the same limit: the server has changed
# Of the throughput, after so many latencies: do not wait for the measurement's end. A server that only slows down is
# long silent too, where its answers come in bursts: sooner it cannot be told from one that thrashes.
_COLLAPSED, _AFTER = 0.5, 1.7
_CUT = 0.8  # of what is in flight may remain after a refusal
_REST, _LONGEST_REST = 8, 32  # measurements between two tries once the knee is found; doubled whenever a try hurt
_STEP, _WARY_STEP, _BETWEEN = 1.25, 1.1, math.sqrt(2)
_DOWN_EVERY = 4  # tries: so that a limit that has become too high by and by is found out
_NEAR_REFUSAL, _NEAR_EDGE = 1.06, 1.45  # from a good limit to a bad one: near enough. Edges are dearer to touch
_KV_ROOM, _KV_BUSY, _KV_FULL = 0.6, 0.8, 0.9  # of the KV cache in use: grow freely, grow no more, cut
_CROWDED = 6  # samples in a row with more than half as many waiting as running
_FRESH = 15.0  # seconds that a sample is believed


class LimiterPhase(StrEnum):
    """What the limiter is about."""

    RAMP = "ramp"  # doubling: at the start, and back to where a refusal came
    HOLD = "hold"  # measuring the best limit known, the base
    TRY = "try"  # measuring another one


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the limit became what it is, for people."""

    at: float
    limit: int
    why: str


@dataclass(frozen=True, slots=True)
class _Rate:
    """Work per second; its relative standard error; the same merely counted (right only in the long run)."""

    work: float
    error: float
    counted: float


class _Measurement:
    """One measurement. What ends from `opened` on counts, but not what began before `since` and felt another limit.

    `done` and `ended` are the work and the number of all that ended since the window was `made`.
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
        """What a place gets done per second, times the places in use.

        Little's law. Counting completions would be wrong by half where a server answers in bursts. `early`: many have
        only just begun, and of those only the quick ones were answered. That makes Little's law about as much too high
        as the count is too low: the truth is between. How far a few scatter may be chance.
        """
        error = self.counted.error
        work, counted = in_use * self.counted.rate, self.done / (now - self.made)
        if early:
            return _Rate(math.sqrt(work * counted), max(error, 1 / self.counted.requests), counted)
        return _Rate(work, error, counted)


class Limiter:
    """Call `begin` as a request takes its place, and one of `end`, `fail`, `reject` as it leaves it; obey `limit`.

    While `in_flight < limit` another may begin. `limit` may fall below `in_flight`: then none begins until enough have
    left. `start` is the first limit, from which it doubles: a low one costs a latency, one over a cliff far more.
    `remembered`: it was `best` in an earlier run on the same endpoint, and is left only in small steps.
    """

    def __init__(self, start: int = 4, least: int = 1, most: int = 1024, *, remembered: bool = False) -> None:
        if not 1 <= least <= most:
            raise ValueError(f"a limiter needs 1 <= least <= most, not {least} and {most}")
        self.limit = self._base = self._start = min(most, max(least, start))
        self._least, self._most = least, most
        self.in_flight = 0
        self.phase = LimiterPhase.HOLD if remembered else LimiterPhase.RAMP
        self.reasons: deque[Reason] = deque(maxlen=64)
        self._rate: _Rate | None = None  # at the base, the best limit known
        self._latency = 0.0
        self._at = 0.0
        self._window: _Measurement | None = None
        self._draining = False  # more are in flight than may be: what ends now felt the limit before
        self._unrest = 0.0  # by how much of itself the throughput of the base changes from one measurement to the next
        self._doubt = False  # whether the last measurement of the base was much lower than the one before
        self._ceiling = math.inf  # a limit known to be too high
        self._near = _NEAR_EDGE
        self._step = _STEP
        self._wary = False  # whether an edge was met
        self._down = False  # which way the next try goes
        self._checked = 0  # the base last tried to be lowered for being near an edge
        self._tries = 0
        self._rest, self._pause = 0, _REST
        self._cut_at = self._no_growth_until = -math.inf
        self._goal = math.inf  # where a cut came from; up to there growth needs little proof
        self._patient = False  # whether one more refusal on the way there is forgiven
        self._engine: EngineSample | None = None
        self._engine_at = -math.inf
        self._crowded = 0

    @property
    def best(self) -> int:
        """The best limit known."""
        return self._base

    # -- what happens -------------------------------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """A request takes its place."""
        self._count(now, 1)

    def end(self, now: float, begun: float, work: float = 1.0) -> None:
        """A request that began then was answered; `work` in items or in tokens, always in the same."""
        window = self._count(now, -1)
        window.add(now, begun, work)
        if self._draining:
            return
        if self.limit > self._base and self._collapsed(now, window):
            self._hurt(now, "collapsed")
        elif now >= window.opened:
            self._look(now, window)

    def fail(self, now: float, begun: float) -> None:
        """A request ended without an answer, but not for overload. It held a place and got nothing done."""
        window = self._count(now, -1)
        window.add(now, begun, 0.0)
        window.failed += 1

    def reject(self, now: float, begun: float, wait: float = 0.0, crowd: int | None = None) -> None:
        """A request was refused for overload (429, 529, 503). `wait`: seconds for which the server asked.

        `crowd`: requests that were in flight when it was refused, where some have ended since. One cut a burst: those
        sent before the last cut were answered by it. Nothing grows for a latency.
        """
        self._count(now, -1)
        self._no_growth_until = max(self._no_growth_until, now + max(wait, self._latency))
        if begun < self._cut_at:
            return
        self._cut_at, self._near, self._wary = now, _NEAR_REFUSAL, True
        if self._base == self.limit:  # what was good is no more: down, and later up again to where it was
            self._goal, self._patient = self._base if self._goal == math.inf else self._goal, True
            self._cut(now, int(min(self.limit, crowd or self.in_flight + 1) * _CUT), LimiterPhase.RAMP, "refused")
        elif self._patient and self._goal < math.inf:  # perhaps the trouble lasts a little longer
            self._patient = False
            self._no_growth_until = max(self._no_growth_until, now + 2 * self._latency)
            self._move(now, self._base, LimiterPhase.RAMP, "refused again")
        else:
            self._step = _BETWEEN if self.phase is LimiterPhase.RAMP else self._step
            self._hurt(now, "refused")

    def observe(self, now: float, sample: EngineSample) -> None:
        """What the server says of itself, every second or few. It counts only where it tells of its KV cache."""
        before, self._engine, self._engine_at = self._engine, sample, now
        if sample.kv_use is None or self.in_flight > self.limit:  # no second cut before the first has drained
            return
        crowded = (sample.waiting or 0) > (sample.running or 0) / 2
        self._crowded = self._crowded + 1 if crowded else 0
        if before and before.preemptions is not None and (sample.preemptions or 0) > before.preemptions:
            self._cut(
                now, int(self.limit * _CUT), LimiterPhase.HOLD, "preempted"
            )  # work was thrown away and is done again
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
        """A window for a new limit: nothing counts until all in flight have felt it. The ramp does not wait so long."""
        settle = 0.0 if self.phase is LimiterPhase.RAMP else self._latency * max(1.0, self.limit / self._base)
        return _Measurement(now, now + settle, now)

    def _look(self, now: float, window: _Measurement) -> None:
        """Is the measurement complete? It takes as many requests as the limit: slow servers are given time by that."""
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
        """The brake: so little gets done (out of memory, thrashing) that a whole measurement would take for ever."""
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
        """The base was measured once more: see whether the server has changed, and whether it is time for a try."""
        before = self._rate
        noise = 3 * math.hypot(rate.error, before.error, self._unrest) if before else 0.0
        fell = before is not None and rate.work < before.work * min(_FELL, 1 - noise)
        if fell and not self._doubt:  # once may be chance
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
        elif self._near == _NEAR_EDGE and self._checked != self._base:  # so near an edge it may be over it already
            self._checked = self._base
            self._try(now, int(self._base / _STEP), "less in flight")
        else:
            self._settle()

    def _judge(self, now: float, rate: _Rate, latency: float, *, clear: bool) -> None:
        """Another limit than the base was measured: keep it or go back. Unclear ones are measured longer."""
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
        """The limit in force is the new base. Go on in the same direction, in larger steps the longer it goes well."""
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
        """Go back; the next tries look between here and there, and later ones come less often."""
        self._ceiling, self._goal = self.limit, math.inf
        self._pause = min(_LONGEST_REST, self._pause * 2)
        if self.phase is LimiterPhase.RAMP and self.limit > self._base * 2:  # a doubling was left out
            self._move(now, self._base * 2, LimiterPhase.TRY, why)
            return
        too_high = self._base == self._start and self.limit >= self._base * 2  # perhaps the start was already
        self._move(now, self._base, LimiterPhase.HOLD, why)
        if too_high:
            self._step = 2.0
            self._try(now, self._base // 2, "less in flight")

    def _settle(self) -> None:
        """The knee is found for now: rest, and then look whether it has moved."""
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

    # -- what the engine says -----------------------------------------------------------------------------------------

    def _engine_is_full(self, now: float) -> bool:
        sample = self._fresh(now)
        return sample is not None and ((sample.kv_use or 0.0) > _KV_BUSY or bool(sample.waiting))

    def _engine_has_room(self, now: float) -> bool:
        sample = self._fresh(now)
        return sample is not None and (sample.kv_use or 0.0) < _KV_ROOM and not sample.waiting

    def _fresh(self, now: float) -> EngineSample | None:
        sample = self._engine if now - self._engine_at <= _FRESH else None
        return sample if sample is not None and sample.kv_use is not None else None
