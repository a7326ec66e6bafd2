"""Pace: no more requests, and no more tokens, in a minute than the endpoint's owner allows."""

from __future__ import annotations

from orchestrator.domain.waiting import LONGEST

_MINUTE = 60.0


class Pace:
    """Evenly spaced starts. Moments are seconds on any one clock.

    Tokens are known only afterwards: what an answer took puts off the next start.
    """

    def __init__(self, requests_per_minute: float | None = None, tokens_per_minute: float | None = None) -> None:
        self._request = _MINUTE / requests_per_minute if requests_per_minute else 0.0
        self._token = _MINUTE / tokens_per_minute if tokens_per_minute else 0.0
        self.next = 0.0  # the next start, not before its moment

    def take(self, now: float) -> float:
        """Take the next start; gives the seconds until then."""
        start = max(now, self.next)
        self.next = start + self._request
        return start - now

    def spent(self, now: float, tokens: int) -> None:
        """An answer took so many tokens. A number that would put off the next start by more than a day is none."""
        if self._token:
            self.next = min(max(now, self.next) + tokens * self._token, max(self.next, now + LONGEST))
