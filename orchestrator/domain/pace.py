"""Pace: no more requests, and no more tokens, in a minute than the endpoint's owner allows."""

from __future__ import annotations

_MINUTE = 60.0


class Pace:
    """Evenly spaced starts. Moments are seconds on any one clock.

    Tokens are known only afterwards: what an answer took puts off the next start.
    """

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._request = _MINUTE / requests_per_minute if requests_per_minute else 0.0
        self._token = _MINUTE / tokens_per_minute if tokens_per_minute else 0.0
        self._next = 0.0
        self.limits = bool(self._request or self._token)

    def take(self, now: float) -> float:
        """Take the next start; gives the seconds until then."""
        start = max(now, self._next)
        self._next = start + self._request
        return start - now

    def spent(self, now: float, tokens: int) -> None:
        """An answer took so many tokens."""
        self._next = max(now, self._next) + tokens * self._token
