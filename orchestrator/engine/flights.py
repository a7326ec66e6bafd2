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
class Flight:
    """One request from its departure until it is answered or given up. `by`: whoever asks.

    `rival`: another request for the same items; the first of the two that is answered counts, the other is cancelled by
    its `scope`.
    """

    items: list[Item]
    by: object
    since: float = field(default_factory=time.monotonic)
    rival: Flight | None = None
    scope: anyio.CancelScope | None = None


class Flights:
    """All that are on their way."""

    def __init__(self) -> None:
        self._flying: set[Flight] = set()
        self._usual: float | None = None
        self._lately = deque[float](maxlen=_LATELY)

    def __len__(self) -> int:
        return len(self._flying)

    def lately(self) -> float | None:
        """The median of the seconds that the requests took which ended since this was last asked; None without any."""
        usual = median(self._lately) if self._lately else None
        self._lately.clear()
        return usual

    def depart(self, items: list[Item], by: object, rival: Flight | None = None) -> Flight:
        """One more is on its way; to be quicker than another one, perhaps."""
        flight = Flight(items, by, rival=rival)
        if rival is not None:
            rival.rival = flight
        self._flying.add(flight)
        return flight

    def land(self, flight: Flight) -> bool:
        """It is answered, or given up. False where that is of no consequence: its rival was first."""
        if flight not in self._flying:
            return False
        self._flying.discard(flight)
        seconds = time.monotonic() - flight.since
        self._lately.append(seconds)
        self._usual = seconds if self._usual is None else self._usual + _WEIGHT * (seconds - self._usual)
        return True

    def contested(self, flight: Flight) -> bool:
        """Whether another request for the same items is on its way."""
        return flight.rival in self._flying

    def recall_rival(self, flight: Flight) -> None:
        """It was first: the other one is not worth waiting for."""
        rival = flight.rival
        if rival is not None and rival in self._flying:
            self._flying.discard(rival)
            if rival.scope is not None:
                rival.scope.cancel()

    def of(self, by: object) -> list[Flight]:
        """Those of one who asks."""
        return [flight for flight in self._flying if flight.by is by]

    def others(self, by: object) -> bool:
        """Whether anybody else has one on its way."""
        return any(flight.by is not by for flight in self._flying)

    def straggler(self) -> tuple[Flight, float] | None:
        """The one that has been on its way for the longest and has no rival, and the moment from which it straggles."""
        without = [flight for flight in self._flying if flight.rival is None]
        if not without or self._usual is None:
            return None
        first = min(without, key=lambda flight: flight.since)
        return first, first.since + _STRAGGLES * self._usual
