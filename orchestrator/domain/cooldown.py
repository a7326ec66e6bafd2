"""Cooldown: a server that is asked too much is left alone for a while, by everybody, once for each of its refusals."""

from __future__ import annotations

_FIRST, _SHORTEST = 1.0, 0.1  # seconds, doubled with each refusal in a row; a quick server gets a shorter first one
_LONGEST = 60.0
_MEMORY = 50  # requests
_OFTEN = 0.05  # of them refused: less is chance, or a server whose limit is just being touched


class Cooldown:
    """When an endpoint may be asked again. Moments are seconds on any one clock.

    A hundred requests that were under way together and are refused together are one refusal: each remembers the
    `generation` in which it was begun, and only the first of its generation counts. A lone refusal among many
    successes, with no time named, is nobody's affair but its item's.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.until = 0.0
        self._in_a_row = 0
        self._share = _OFTEN  # of the last requests refused; to begin with, any refusal is one too many
        self._usual = _FIRST  # seconds that a request takes

    @property
    def often(self) -> bool:
        """Whether so many requests are refused that it is not chance."""
        return self._share >= _OFTEN

    def refused(self, now: float, generation: int, retry_after: float | None) -> bool:
        """Note a refusal; True where it began a cooldown. The server's own word counts, up to a minute."""
        self._share += (1 - self._share) / _MEMORY
        if generation != self.generation or (retry_after is None and not self.often):
            return False
        self.generation += 1
        first = min(_FIRST, max(_SHORTEST, self._usual))
        seconds = first * 2**self._in_a_row if retry_after is None else retry_after
        self._in_a_row = min(self._in_a_row + 1, 9)
        self.until = now + min(seconds, _LONGEST)
        return True

    def succeeded(self, generation: int, seconds: float) -> None:
        """Note a success, which took so long; one that was begun before the last refusal says nothing of that."""
        self._share -= self._share / _MEMORY
        self._usual += 0.1 * (seconds - self._usual)
        if generation == self.generation:
            self._in_a_row = 0

    def hold(self, now: float, until: float) -> None:
        """The server has said beforehand that it would refuse until then; believed for a minute."""
        self.until = max(self.until, min(until, now + _LONGEST))
