"""Room: how many concurrent requests this machine has descriptors, ports and buffers for, whatever the endpoint.

`NoRoom` (this machine has no more descriptors, ports or buffers) says nothing about the endpoint and costs nothing:
the items return to the work queue, and `Room` says how many requests fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

_MOST_IN_VAIN = 60  # times in a row that there was no room for even one request


@dataclass(slots=True)
class Room:
    """How many requests fit, as seen so far. It grows with each success, since resources become free again."""

    ceiling: float = inf  # what the resource limits of this process allow
    said: bool = False  # whether the user was told that there is less room than wanted
    _most: float = inf
    _in_vain: int = 0

    @property
    def most(self) -> float:
        """The number of requests that may be in flight."""
        return min(self.ceiling, self._most // 1)

    @property
    def none(self) -> bool:
        """Whether there has been no room for even one request for so long that waiting is pointless."""
        return self._in_vain >= _MOST_IN_VAIN

    def ran_out(self, others: int) -> None:
        """Note that there was no room for a request beside `others` requests in flight."""
        self._most = max(1.0, min(self._most, others))
        self._in_vain = self._in_vain + 1 if not others else 0

    def sufficed(self) -> bool:
        """Note that a request found room; return whether more may be in flight now than before."""
        before, self._in_vain = self.most, 0
        self._most += 1 / self._most
        return self.most > before
