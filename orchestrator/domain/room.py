"""Room: how many requests at once this machine has descriptors, ports and buffers for. It is no news of an endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

_PATIENCE = 60  # times in a row that not a single request found room


@dataclass(slots=True)
class Room:
    """As many as have been seen to fit; a little more with each request that does, for what was missing comes back."""

    ceiling: float = inf  # what the limit of this process allows
    said: bool = False  # whether a person knows that there is less room than wanted
    _most: float = inf
    _in_vain: int = 0

    @property
    def most(self) -> float:
        """Requests that may be in flight."""
        return min(self.ceiling, self._most // 1)

    @property
    def none(self) -> bool:
        """Whether not even one request has found room for so long that waiting makes no sense."""
        return self._in_vain >= _PATIENCE

    def ran_out(self, others: int) -> None:
        """A request found no room beside so many others in flight."""
        self._most = max(1.0, min(self._most, others))
        self._in_vain = self._in_vain + 1 if not others else 0

    def sufficed(self) -> bool:
        """A request found room; whether more may be in flight from now on than before."""
        before, self._in_vain = self.most, 0
        self._most += 1 / self._most
        return self.most > before
