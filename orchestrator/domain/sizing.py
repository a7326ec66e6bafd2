"""Sizer: finds how many items a request should carry by doubling the number while throughput rises.

Every request has a fixed cost, however few items it carries; beyond some number, more items gain nothing and only delay
the answer. The sizer has no clock of its own.
"""

from __future__ import annotations

import math

from orchestrator.domain.throughput import Throughput

_FEWEST, _MOST = 16, 48  # requests in one measurement: at least, and at most if it is unclear
_WORTH = 1.1  # twice as many items are worthwhile if throughput rises by at least this factor
_HURTS = 0.95  # below this factor, throughput has become worse
_FAILED = 3  # failed requests of one size after which it is considered too large
START, LARGEST = 8, 256  # items


class Sizer:
    """Call `begin` and `end` for every request; obey `size`. Keep the number of concurrent requests constant meanwhile.

    `found`: the size found by an earlier run on the same endpoint, or set by the user. It is used without measuring, as
    long as the server accepts it.
    """

    def __init__(self, found: int | None = None) -> None:
        self._most = LARGEST if found is None else found
        self.size = START if found is None else found
        self.settled = found is not None
        self._before: tuple[int, Throughput] | None = None  # the size before this one
        self._in_flight = 0
        self._felt = 0  # requests to skip because they shared the server with requests of another size
        self._measured = Throughput()
        self._failed = 0
        self._disappointed = False  # whether this size gained little over the one before, which may be chance

    def begin(self) -> None:
        """Note that a request is sent."""
        self._in_flight += 1

    def end(self, size: int, work: float, seconds: float) -> None:
        """Note that a request with `size` items was answered (`work` 0: it failed)."""
        self._in_flight -= 1
        if self._felt > 0:
            self._felt -= 1
        elif self.settled or size > self.size:
            return
        elif work > 0 and seconds > 0:
            self._measured.add(work, seconds)
            if self._measured.requests >= _FEWEST:
                self._look()
        elif self._before is not None:
            self._failed += 1
            if self._failed == _FAILED:  # whatever the cause, smaller requests succeeded
                self.size, self.settled = self._before[0], True

    def cap(self, most: int) -> None:
        """Limit the size to `most`: the server accepts no more, or larger requests have failed."""
        self._most = max(1, min(self._most, most))
        self.size = min(self.size, self._most)
        self.settled = self.settled or self._most == 1

    def _look(self) -> None:
        now = self._measured
        if self._before is not None:
            size, before = self._before
            gain, doubt = now.rate / before.rate, 3 * math.hypot(now.error, before.error)
            if abs(gain / _WORTH - 1) < doubt and now.requests < _MOST:
                return
            if gain < _WORTH:
                if gain < _HURTS or self._disappointed or self.size >= self._most:
                    self.size, self.settled = size, True
                else:  # it may be chance: the next doubling will show
                    self._disappointed = True
                    self._grow()
                return
        if self.size >= self._most:
            self.settled = True
            return
        self._before, self._disappointed = (self.size, now), False
        self._grow()

    def _grow(self) -> None:
        self.size = min(self._most, self.size * 2)
        self._measured, self._felt, self._failed = Throughput(), 2 * self._in_flight, 0
