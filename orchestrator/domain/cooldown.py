"""Cooldown: a server that is asked too much is left alone for a while, by everybody, once for each of its refusals."""

from __future__ import annotations

_FIRST = 1.0  # seconds, doubled with each refusal in a row
_LONGEST = 60.0


class Cooldown:
    """When an endpoint may be asked again. Moments are seconds on any one clock.

    A hundred requests that were under way together and are refused together are one refusal: each remembers the
    `generation` in which it was begun, and only the first of its generation counts.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.until = 0.0
        self._in_a_row = 0

    def refused(self, now: float, generation: int, retry_after: float | None) -> bool:
        """Note a refusal; True where it began a cooldown. The server's own word counts, up to a minute."""
        if generation != self.generation:
            return False
        self.generation += 1
        seconds = _FIRST * 2**self._in_a_row if retry_after is None else retry_after
        self._in_a_row = min(self._in_a_row + 1, 6)
        self.until = now + min(seconds, _LONGEST)
        return True

    def succeeded(self, generation: int) -> None:
        """Note a success; one that was begun before the last refusal says nothing."""
        if generation == self.generation:
            self._in_a_row = 0

    def hold(self, now: float, until: float) -> None:
        """The server has said beforehand that it would refuse until then; believed for a minute."""
        self.until = max(self.until, min(until, now + _LONGEST))
