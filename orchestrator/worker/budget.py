"""Budget: how many padded tokens one call of the model should have: doubled while that gets more done per second.

Two budgets are tried in turn, request by request, so that what drifts (lengths, other load on the machine) touches both
alike. It is told everything and knows no clock and no device.
"""

from __future__ import annotations

from statistics import median

_WORTH = 1.05  # times as much done per second makes another budget worth having
_SAMPLES = 5  # requests with each of the two; the first one of each, which pays for what is new, is not counted
_WIDEST = 64  # times what it began with


class BatchBudget:
    """Cut each request by `now`; say what became of it with `took`, and `crowded` where a batch did not fit in memory.

    `tune`: whether it may be changed other than by lack of memory.
    """

    def __init__(self, start: int, *, tune: bool = False) -> None:
        self.value = start  # the best that is known
        self.ceiling = start * _WIDEST  # wider ones do not fit, or are not worth a try
        self._rival = self._next(2) if tune else None
        self._upwards = True
        self._grew = False
        self._rates: dict[int, list[float]] = {}

    @property
    def settled(self) -> bool:
        """Whether nothing else is being tried."""
        return self._rival is None

    @property
    def now(self) -> int:
        """For the next request: of the two, the one that has been measured less."""
        if self._rival is None:
            return self.value
        return self.value if self._measured(self.value) <= self._measured(self._rival) else self._rival

    def took(self, used: int, tokens: int, seconds: float) -> None:
        """A request of so many tokens (padding not counted), cut by `used`, took the model so long."""
        if self._rival is None or used not in {self.value, self._rival} or tokens <= 0 or seconds <= 0:
            return
        self._rates.setdefault(used, []).append(tokens / seconds)
        if min(self._measured(self.value), self._measured(self._rival)) > _SAMPLES:
            self._judge(self._rival)

    def crowded(self, padded: int) -> None:
        """A batch of so many padded tokens did not fit: from now on, half as many at the most."""
        self.ceiling = max(1, min(self.ceiling, padded // 2))
        self.value = min(self.value, self.ceiling)
        self._rival = None

    def _judge(self, rival: int) -> None:
        # Not `Throughput`, as for requests, since five calls are few. If one in twenty takes four times as long, its
        # ratio of sums takes a budget that is worse by a tenth in 19 % of simulated cases, the median in 0.1 %.
        gain = median(self._rates[rival][1:]) / median(self._rates[self.value][1:])
        self._rates.clear()
        if gain >= _WORTH:
            self.value, self._grew = rival, self._upwards
            self._rival = self._next(2 if self._upwards else 0.5)
        elif self._upwards and not self._grew:  # a wider one is no better: perhaps a narrower one is
            self._upwards, self._rival = False, self._next(0.5)
        else:
            self._rival = None

    def _next(self, factor: float) -> int | None:
        other = int(self.value * factor)
        return other if 1 <= other <= self.ceiling else None

    def _measured(self, budget: int) -> int:
        return len(self._rates.get(budget, ()))
