from __future__ import annotations

import anyio
import pytest

from orchestrator.domain.item import Item, Lease
from orchestrator.engine.flights import Flights

ITEMS = [Item(1, "i", b"", 1, Lease(1, 1))]


def landed(flights: Flights, seconds: float) -> None:
    """One that took so long."""
    flight = flights.depart(ITEMS, "a")
    flight.since -= seconds
    assert flights.land(flight)


async def test_of_two_that_race_the_first_counts_and_the_other_is_cancelled() -> None:
    flights = Flights()
    first = flights.depart(ITEMS, "a")
    assert not flights.contested(first)
    second = flights.depart(ITEMS, "b", first)
    first.scope = anyio.CancelScope()
    assert flights.contested(first)
    assert flights.contested(second)
    assert flights.land(second)
    flights.recall_rival(second)
    assert first.scope.cancel_called
    assert len(flights) == 0
    assert not flights.land(first)


def test_whose_a_request_is_is_known_until_it_has_landed() -> None:
    flights = Flights()
    mine, other = flights.depart(ITEMS, "a"), flights.depart(ITEMS, "b")
    assert (flights.of("a"), flights.others("a"), flights.others("b")) == ([mine], True, True)
    flights.land(other)
    assert (flights.of("b"), flights.others("a"), flights.others("b")) == ([], False, True)


def test_what_is_usual_follows_what_requests_take_and_slowly() -> None:
    flights = Flights()
    flight = flights.depart(ITEMS, "a")
    assert flights.straggler() is None  # nobody knows what is usual
    landed(flights, 10.0)
    straggles = flights.straggler()
    assert straggles is not None
    assert straggles[1] - flight.since == pytest.approx(20.0, abs=0.1)
    landed(flights, 20.0)
    straggles = flights.straggler()
    assert straggles is not None
    assert straggles[1] - flight.since == pytest.approx(22.0, abs=0.1)


def test_the_straggler_is_the_oldest_that_nobody_races_yet() -> None:
    flights = Flights()
    landed(flights, 1.0)
    young, old, raced = [flights.depart(ITEMS, "a") for _ in range(3)]
    raced.since -= 9.0
    old.since -= 5.0
    flights.depart(ITEMS, "b", raced)
    found = flights.straggler()
    assert found is not None
    assert found[0] is old is not young


def test_lately_is_the_median_since_it_was_last_asked() -> None:
    flights = Flights()
    assert flights.lately() is None
    for seconds in (1.0, 50.0, 2.0):
        landed(flights, seconds)
    assert flights.lately() == pytest.approx(2.0, abs=0.1)
    assert flights.lately() is None
