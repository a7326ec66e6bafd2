"""Requests in flight at all endpoints, and which of them takes so long that another one may be quicker."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container

    import anyio

    from orchestrator.domain.item import Item

_STRAGGLES = 2.0  # times the usual duration
_WEIGHT = 0.1  # of the latest request in the usual duration
_LATELY = 512  # at most this many recent requests count for the median


@dataclass(eq=False, slots=True)
class SentRequest:
    """One request from sending until it is answered or given up. `by`: the endpoint or member that asks.

    `rival`: another request for the same items. The first of the two to be answered counts; the other is cancelled
    through its `scope`.
    """

    items: list[Item]
    by: object
    since: float = field(default_factory=time.monotonic)
    rival: SentRequest | None = None
    scope: anyio.CancelScope | None = None


class InFlight:
    """Requests in flight: all of a run, or those of one route, which are part of the `whole`."""

    def __init__(self, whole: InFlight | None = None) -> None:
        self.whole = self if whole is None else whole
        self._places = {self, self.whole}
        self._requests: set[SentRequest] = set()
        self._usual: float | None = None
        self._lately = deque[float](maxlen=_LATELY)

    def __len__(self) -> int:
        return len(self._requests)

    def lately(self) -> float | None:
        """Return the median seconds of the requests that have ended since the last call; None if there are none."""
        usual = median(self._lately) if self._lately else None
        self._lately.clear()
        return usual

    def send(self, items: list[Item], by: object, rival: SentRequest | None = None) -> SentRequest:
        """Add a request; if `rival` is given, it competes with that one for the same items."""
        sent = SentRequest(items, by, rival=rival)
        if rival is not None:
            rival.rival = sent
        for place in self._places:
            place._requests.add(sent)  # noqa: SLF001 - of its own class
        return sent

    def finish(self, sent: SentRequest) -> bool:
        """Remove a request that was answered or given up. Return False if its rival was first, so it has no effect."""
        if sent not in self._requests:
            return False
        seconds = time.monotonic() - sent.since
        for place in self._places:
            place._end(sent, seconds)  # noqa: SLF001 - of its own class
        return True

    def _end(self, sent: SentRequest, seconds: float) -> None:
        self._requests.discard(sent)
        self._lately.append(seconds)
        self._usual = seconds if self._usual is None else self._usual + _WEIGHT * (seconds - self._usual)

    def has_rival(self, sent: SentRequest) -> bool:
        """Whether another request for the same items is in flight."""
        return sent.rival in self._requests

    def cancel_rival(self, sent: SentRequest) -> None:
        """Cancel the rival of a request that was answered first."""
        if sent.rival is not None:
            self._cancel(sent.rival)

    def give_up(self, unwanted: Container[int]) -> float:
        """Remove requests of which no item is wanted any more, given the keys of those that are not.

        Return for how many seconds the oldest of them was in flight; 0 if there was none.
        """
        given_up = [sent for sent in self._requests if all(item.key in unwanted for item in sent.items)]
        for sent in given_up:
            self._cancel(sent)
        return max((time.monotonic() - sent.since for sent in given_up), default=0.0)

    def _cancel(self, sent: SentRequest) -> None:
        if sent in self._requests:
            for place in self._places:
                place._requests.discard(sent)  # noqa: SLF001 - of its own class
            if sent.scope is not None:
                sent.scope.cancel()

    def of(self, by: object) -> list[SentRequest]:
        """Return the requests of one endpoint or member."""
        return [sent for sent in self._requests if sent.by is by]

    def others(self, by: object) -> bool:
        """Whether any other endpoint or member has a request in flight."""
        return any(sent.by is not by for sent in self._requests)

    def straggler(self) -> tuple[SentRequest, float] | None:
        """Return the oldest request without a rival, and the moment from which it counts as a straggler."""
        without = [sent for sent in self._requests if sent.rival is None]
        if not without or self._usual is None:
            return None
        first = min(without, key=lambda sent: sent.since)
        return first, first.since + _STRAGGLES * self._usual
