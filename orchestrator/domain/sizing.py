"""Sizer: how many items a request should carry: doubled for as long as that gets more done per second.

A request costs its server and the way there something, however few items it carries; beyond some number more of them
gain nothing and only make an answer later. It is told everything and knows no clock.
"""

from __future__ import annotations

import math

from orchestrator.domain.throughput import Throughput

_FEWEST, _MOST = 16, 48  # requests in one measurement: at least, and while it is unclear at the most
_WORTH = 1.1  # times as much done per second makes twice as many items worth having
_HURTS = 0.95  # times as much: it gets worse
_FAILED = 3  # requests of one size: it is too large
START, LARGEST = 8, 256  # items


class Sizer:
    """Call `begin` and `end` for every request; obey `size`. Meanwhile let the number of requests at once be constant.

    `found`: the size of an earlier run on the same endpoint, or the one that the user wants: taken as it is, as long as
    the server takes it.
    """

    def __init__(self, found: int | None = None) -> None:
        self._most = LARGEST if found is None else found
        self.size = START if found is None else found
        self.settled = found is not None
        self._before: tuple[int, Throughput] | None = None  # the size before this one
        self._in_flight = 0
        self._felt = 0  # requests still to end that shared the server with some of another size
        self._measured = Throughput()
        self._failed = 0
        self._disappointed = False  # whether this size gained little over the one before, which may be chance

    def begin(self) -> None:
        """A request is sent."""
        self._in_flight += 1

    def end(self, size: int, work: float, seconds: float) -> None:
        """A request that carried so many items has been answered (`work` 0: it failed)."""
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
            if self._failed == _FAILED:  # whatever it is, smaller ones went well
                self.size, self.settled = self._before[0], True

    def cap(self, most: int) -> None:
        """The server takes no more than so many, or no more than so many went well."""
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
                else:  # perhaps by chance: twice as many will show
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
