"""Flights: requests on their way, to whichever endpoint; which one takes so long that another may be quicker."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import anyio

    from orchestrator.domain.item import Item

_STRAGGLES = 2.0  # times as long as usual
_WEIGHT = 0.1  # of the latest one in what is usual
_LATELY = 512  # requests at the most that tell how long they take


@dataclass(eq=False, slots=True)
class SentRequest:
    """One request from its departure until it is answered or given up. `by`: whoever asks.

    `rival`: another request for the same items; the first of the two that is answered counts, the other is cancelled by
    its `scope`.
    """

    items: list[Item]
    by: object
    since: float = field(default_factory=time.monotonic)
    rival: SentRequest | None = None
    scope: anyio.CancelScope | None = None


class InFlight:
    """All that are on their way."""

    def __init__(self) -> None:
        self._requests: set[SentRequest] = set()
        self._usual: float | None = None
        self._lately = deque[float](maxlen=_LATELY)

    def __len__(self) -> int:
        return len(self._requests)

    def lately(self) -> float | None:
        """The median of the seconds that the requests took which ended since this was last asked; None without any."""
        usual = median(self._lately) if self._lately else None
        self._lately.clear()
        return usual

    def send(self, items: list[Item], by: object, rival: SentRequest | None = None) -> SentRequest:
        """One more is on its way; to be quicker than another one, perhaps."""
        sent = SentRequest(items, by, rival=rival)
        if rival is not None:
            rival.rival = sent
        self._requests.add(sent)
        return sent

    def finish(self, sent: SentRequest) -> bool:
        """It is answered, or given up. False where that is of no consequence: its rival was first."""
        if sent not in self._requests:
            return False
        self._requests.discard(sent)
        seconds = time.monotonic() - sent.since
        self._lately.append(seconds)
        self._usual = seconds if self._usual is None else self._usual + _WEIGHT * (seconds - self._usual)
        return True

    def has_rival(self, sent: SentRequest) -> bool:
        """Whether another request for the same items is on its way."""
        return sent.rival in self._requests

    def cancel_rival(self, sent: SentRequest) -> None:
        """It was first: the other one is not worth waiting for."""
        rival = sent.rival
        if rival is not None and rival in self._requests:
            self._requests.discard(rival)
            if rival.scope is not None:
                rival.scope.cancel()

    def of(self, by: object) -> list[SentRequest]:
        """Those of one who asks."""
        return [sent for sent in self._requests if sent.by is by]

    def others(self, by: object) -> bool:
        """Whether anybody else has one on its way."""
        return any(sent.by is not by for sent in self._requests)

    def straggler(self) -> tuple[SentRequest, float] | None:
        """The one that has been on its way for the longest and has no rival, and the moment from which it straggles."""
        without = [sent for sent in self._requests if sent.rival is None]
        if not without or self._usual is None:
            return None
        first = min(without, key=lambda sent: sent.since)
        return first, first.since + _STRAGGLES * self._usual
