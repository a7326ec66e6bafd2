"""Refusals: tells an item that is refused for its own sake from a server that is asked too much."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class _Refused:
    first: float
    last: float
    alone: int = 1


class Refusals:
    """Who was refused, and whether others were. Moments are seconds on any one clock.

    A server that is asked too much refuses whoever comes. An item is refused alone where a request that was begun
    after its first refusal has succeeded, and nobody else has been refused for a first time since its last one.
    """

    def __init__(self) -> None:
        self._refused: dict[int, _Refused] = {}
        self._newcomer_at = float("-inf")  # when an item was refused for the first time
        self._success_begun = float("-inf")

    def refused(self, now: float, key: int) -> int:
        """Note the refusal of a request for this item; gives how many times in a row it has been refused alone."""
        before = self._refused.get(key)
        if before is None:
            self._refused[key] = _Refused(now, now)
            self._newcomer_at = now
            return 1
        alone = self._success_begun > before.first and self._newcomer_at <= before.last
        before.alone, before.last = before.alone + 1 if alone else 1, now
        return before.alone

    def refused_together(self, now: float) -> None:
        """Several items were refused in one request: that is company for every other one."""
        self._newcomer_at = now

    def succeeded(self, begun: float) -> None:
        """A request that was begun then has succeeded."""
        self._success_begun = max(self._success_begun, begun)

    def alone(self, key: int) -> int:
        """How many times in a row this item has been refused alone."""
        before = self._refused.get(key)
        return 0 if before is None else before.alone
