"""Refusals: distinguishes an item that is refused because of its content from an overloaded server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class _Refused:
    first: float
    last: float
    alone: int = 1


class Refusals:
    """Which items were refused, and whether others were as well. Moments are seconds, always on one clock.

    An overloaded server refuses any item. An item is refused alone if a request begun after its first refusal has
    succeeded, and no other item has been refused for the first time since the item's previous refusal.
    """

    def __init__(self) -> None:
        self._refused: dict[int, _Refused] = {}
        self._newcomer_at = float("-inf")  # when an item was last refused that had not been refused before
        self._success_begun = float("-inf")

    def refused(self, now: float, key: int) -> int:
        """Note that this item's request was refused; return how many times in a row it has been refused alone."""
        before = self._refused.get(key)
        if before is None:
            self._refused[key] = _Refused(now, now)
            self._newcomer_at = now
            return 1
        alone = self._success_begun > before.first and self._newcomer_at <= before.last
        before.alone, before.last = before.alone + 1 if alone else 1, now
        return before.alone

    def refused_together(self, now: float) -> None:
        """Note that several items were refused in one request, so that no other item counts as refused alone."""
        self._newcomer_at = now

    def succeeded(self, begun: float) -> None:
        """Note that a request begun at that moment has succeeded."""
        self._success_begun = max(self._success_begun, begun)

    def alone(self, key: int) -> int:
        """Return how many times in a row this item has been refused alone."""
        before = self._refused.get(key)
        return 0 if before is None else before.alone
