"""When the next request may start: a pace that the owner sets, and a cooldown after a server refuses."""

from __future__ import annotations

from orchestrator.domain.waiting import LONGEST

_MINUTE = 60.0  # seconds; also for how long a server is believed at its first word


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


_FIRST, _SHORTEST = 1.0, 0.1  # seconds, doubled with each refusal in a row; a quick server gets a shorter first one
_PROBES = 3  # requests, one at a time, that have to be refused as well before it is believed for longer
_DOUBLINGS = 9
_MEMORY = 50  # requests
_OFTEN = 0.05  # of them refused: less is chance, or a server whose limit is just being touched


class Cooldown:
    """When an endpoint may be asked again. Moments are seconds on any one clock.

    A hundred requests that were under way together and are refused together are one refusal: each remembers the
    `generation` in which it was begun, and only the first of its generation counts. A lone refusal among many
    successes, with no time named, is nobody's affair but its item's.

    A time of more than a minute may have been named for one item alone, or be wrong: whether it is meant for all,
    single requests find out.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.until = 0.0
        self.probing = False  # whether one request at a time is enough, until one succeeds
        self._in_a_row = 0
        self._share = _OFTEN  # of the last requests refused; to begin with, any refusal is one too many
        self._usual = _FIRST  # seconds that a request takes
        self._quota_until = 0.0  # as the server has said beside an answer
        self._quota_from = 0.0  # an answer to a request that was begun from then on shows that to be wrong
        self._quota_is_wrong = False

    @property
    def often(self) -> bool:
        """Whether so many requests are refused that it is not chance."""
        return self._share >= _OFTEN

    def refused(self, now: float, generation: int, retry_after: float | None) -> bool:
        """Note a refusal; True where it began a cooldown. The server's own word counts, also one beside an answer."""
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
        """Note a success, which took so long; one that was begun before the last refusal says nothing of that."""
        self._share -= self._share / _MEMORY
        self._usual += 0.1 * (seconds - self._usual)
        if generation == self.generation:
            self._in_a_row, self.probing = 0, False
            if self._quota_from <= now - seconds and now < self._quota_until:
                self._quota_is_wrong = True

    def hold(self, now: float, until: float) -> None:
        """The server has said beforehand that it would refuse until then.

        Believed, unless it has answered all the same; of more than a minute, once it has refused a single request.
        """
        if self._quota_is_wrong:
            return
        self._quota_until = until
        if until - now <= _MINUTE:
            self.until = self._quota_from = max(self.until, until)
        else:
            self.probing, self._in_a_row, self._quota_from = True, max(self._in_a_row, _PROBES), now
