"""When the next request may start: a rate limit set by the user, and a cooldown after the server refuses."""

from __future__ import annotations

from orchestrator.domain.waiting import LONGEST

_MINUTE = 60.0  # seconds; also the longest wait that a server can impose without confirmation


class Pace:
    """Spaces the starts of requests evenly. Moments are seconds, always on one clock.

    Token counts are known only after an answer, so the tokens of an answer delay the next start.
    """

    def __init__(self, requests_per_minute: float | None = None, tokens_per_minute: float | None = None) -> None:
        self._request = _MINUTE / requests_per_minute if requests_per_minute else 0.0
        self._token = _MINUTE / tokens_per_minute if tokens_per_minute else 0.0
        self.next = 0.0  # the earliest moment of the next start

    def take(self, now: float) -> float:
        """Reserve the next start and return the seconds until then."""
        start = max(now, self.next)
        self.next = start + self._request
        return start - now

    def spent(self, now: float, tokens: int) -> None:
        """Note the tokens of an answer, which delay the next start, but not beyond a day from now."""
        if self._token:
            self.next = min(max(now, self.next) + tokens * self._token, max(self.next, now + LONGEST))


_FIRST, _SHORTEST = 1.0, 0.1  # seconds, doubled with each refusal in a row; a fast server gets a shorter first wait
_PROBES = 3  # single requests that must be refused as well before a wait of more than a minute is believed
_DOUBLINGS = 9
_MEMORY = 50  # requests
_OFTEN = 0.05  # the fraction refused: less is chance, or a server that is just reaching its limit


class Cooldown:
    """When an endpoint may be asked again. Moments are seconds, always on one clock.

    If a hundred requests in flight are refused together, they count as one refusal: each remembers the `generation` in
    which it began, and only the first refusal of a generation counts. A lone refusal among many successes, without a
    wait named by the server, concerns only its item.

    A server may name a wait of more than a minute for one item only, or by mistake. Single requests then find out
    whether it applies to all.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.until = 0.0
        self.probing = False  # whether to send only one request at a time until one succeeds
        self._in_a_row = 0
        self._share = _OFTEN  # the fraction of recent requests refused; at first, every refusal starts a cooldown
        self._usual = _FIRST  # seconds that a request usually takes
        self._quota_until = 0.0  # when the quota is renewed, as the server reported with an answer
        self._quota_from = 0.0  # an answer to a request begun after this moment proves that report wrong
        self._quota_is_wrong = False

    @property
    def often(self) -> bool:
        """Whether too many requests are refused for it to be chance."""
        return self._share >= _OFTEN

    def refused(self, now: float, generation: int, retry_after: float | None) -> bool:
        """Note a refusal; return whether it began a cooldown. A wait or quota reported by the server is respected."""
        self._share += (1 - self._share) / _MEMORY
        if retry_after is None and self._quota_until > now and not self._quota_is_wrong:
            retry_after = self._quota_until - now
        if generation != self.generation or (retry_after is None and not self.often):
            return False
        self.generation += 1
        seconds = min(_FIRST, max(_SHORTEST, self._usual)) * 2**self._in_a_row
        named = retry_after or 0.0
        if retry_after is not None and (named <= _MINUTE or self._in_a_row >= _PROBES):
            seconds = min(named, LONGEST)
        self.probing = named > _MINUTE or self._in_a_row > 0
        self._in_a_row = min(self._in_a_row + 1, _DOUBLINGS)
        self._quota_is_wrong = False
        self.until = now + seconds
        return True

    def succeeded(self, now: float, generation: int, seconds: float) -> None:
        """Note a success and how long it took. A request begun before the last refusal does not end the cooldown."""
        self._share -= self._share / _MEMORY
        self._usual += 0.1 * (seconds - self._usual)
        if generation == self.generation:
            self._in_a_row, self.probing = 0, False
            if self._quota_from <= now - seconds and now < self._quota_until:
                self._quota_is_wrong = True

    def hold(self, now: float, until: float) -> None:
        """Note that the server has announced that it will refuse requests until then.

        Ignored if the server has answered in spite of such an announcement. A wait of more than a minute is respected
        only after the server has refused a single request.
        """
        if self._quota_is_wrong:
            return
        self._quota_until = until
        if until - now <= _MINUTE:
            self.until = self._quota_from = max(self.until, until)
        else:
            self.probing, self._in_a_row, self._quota_from = True, max(self._in_a_row, _PROBES), now
