from __future__ import annotations

import anyio
import pytest

from orchestrator.domain.item import Item, Lease
from orchestrator.engine.asking.in_flight import InFlight

ITEMS = [Item(1, "i", b"", 1, Lease(1, 1))]


def landed(in_flight: InFlight, seconds: float) -> None:
    """Add a request that took so long."""
    sent = in_flight.send(ITEMS, "a")
    sent.since -= seconds
    assert in_flight.finish(sent)


async def test_the_first_of_two_racing_requests_counts_and_the_other_is_cancelled() -> None:
    in_flight = InFlight()
    first = in_flight.send(ITEMS, "a")
    assert not in_flight.has_rival(first)
    second = in_flight.send(ITEMS, "b", first)
    first.scope = anyio.CancelScope()
    assert in_flight.has_rival(first)
    assert in_flight.has_rival(second)
    assert in_flight.finish(second)
    in_flight.cancel_rival(second)
    assert first.scope.cancel_called
    assert len(in_flight) == 0
    assert not in_flight.finish(first)


def test_the_owner_of_a_request_is_known_until_it_has_ended() -> None:
    in_flight = InFlight()
    mine, other = in_flight.send(ITEMS, "a"), in_flight.send(ITEMS, "b")
    assert (in_flight.of("a"), in_flight.others("a"), in_flight.others("b")) == ([mine], True, True)
    in_flight.finish(other)
    assert (in_flight.of("b"), in_flight.others("a"), in_flight.others("b")) == ([], False, True)


def test_the_usual_duration_follows_measured_durations_slowly() -> None:
    in_flight = InFlight()
    sent = in_flight.send(ITEMS, "a")
    assert in_flight.straggler() is None  # no usual duration is known
    landed(in_flight, 10.0)
    straggles = in_flight.straggler()
    assert straggles is not None
    assert straggles[1] - sent.since == pytest.approx(20.0, abs=0.1)
    landed(in_flight, 20.0)
    straggles = in_flight.straggler()
    assert straggles is not None
    assert straggles[1] - sent.since == pytest.approx(22.0, abs=0.1)


def test_the_straggler_is_the_oldest_request_without_a_race() -> None:
    in_flight = InFlight()
    landed(in_flight, 1.0)
    young, old, raced = [in_flight.send(ITEMS, "a") for _ in range(3)]
    raced.since -= 9.0
    old.since -= 5.0
    in_flight.send(ITEMS, "b", raced)
    found = in_flight.straggler()
    assert found is not None
    assert found[0] is old is not young


def test_lately_returns_the_median_since_its_last_call() -> None:
    in_flight = InFlight()
    assert in_flight.lately() is None
    for seconds in (1.0, 50.0, 2.0):
        landed(in_flight, seconds)
    assert in_flight.lately() == pytest.approx(2.0, abs=0.1)
    assert in_flight.lately() is None
