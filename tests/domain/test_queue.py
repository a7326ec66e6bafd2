from __future__ import annotations

import asyncio

import pytest

from orchestrator.domain.errors import (
    AskedToStop,
    BudgetSpent,
    Busy,
    EndpointFailed,
    EndpointSilent,
    Fenced,
    GaveWay,
    Held,
    LedgerError,
    NoCapacity,
    NotAwake,
    OutOfCredit,
    Snoozed,
    StorageSilent,
    WindowOver,
)
from orchestrator.domain.queue import FREE_TRIES, MOST_TRIES, Again, Over, after_stop, next_try

NOW = 1000.0


@pytest.mark.parametrize(
    ("error", "at", "fruitless"),
    [
        (AskedToStop("why"), NOW, False),
        (Held("why"), NOW, False),
        (Fenced("why"), NOW, False),
        (GaveWay("why"), NOW, False),
        (Snoozed("why", NOW + 5, fruitless=False), NOW + 5, False),
        (Snoozed("why", NOW + 5, fruitless=True), NOW + 5, True),
        (WindowOver("why", opens_at=5000.0), 5000.0, False),
        (BudgetSpent("why", until=9000.0), 9000.0, False),
        (OutOfCredit("why"), NOW + 3600, False),
        (NotAwake("why"), NOW + 30, True),
        (NoCapacity("why"), NOW + 30, True),
        (EndpointSilent("why"), NOW + 30, True),
        (StorageSilent("why"), NOW + 30, True),
        (LedgerError("why"), NOW + 30, True),
        (Busy("why"), NOW + 30, True),
    ],
)
def test_a_run_that_may_succeed_later_stays_in_the_queue(error: Exception, at: float, *, fruitless: bool) -> None:
    assert after_stop(error, now=NOW, tries=1) == Again(at, "why", fruitless)


def test_a_run_that_woke_its_endpoint_in_vain_three_times_waits_longer_each_time() -> None:
    def waits(tries: int, named: float) -> float:
        found = after_stop(Snoozed("why", NOW + named, fruitless=True), now=NOW, tries=tries)
        assert isinstance(found, Again)
        return found.at - NOW

    assert [waits(tries, 5) for tries in (1, 2, 3, 4, 5)] == [5, 5, 120, 240, 480]
    assert waits(MOST_TRIES, 7200) == 7200


@pytest.mark.parametrize("error", [BudgetSpent("why"), EndpointFailed("why"), ValueError("why")])
def test_a_run_that_needs_the_user_leaves_the_queue(error: Exception) -> None:
    assert after_stop(error, now=NOW, tries=1) == Over("why")


def test_a_cancelled_run_may_continue_at_once_and_an_error_without_text_is_named() -> None:
    assert after_stop(asyncio.CancelledError(), now=NOW, tries=1) == Again(NOW, "its process was asked to stop")
    assert after_stop(Held(), now=NOW, tries=1) == Again(NOW, "Held")


def test_the_wait_for_an_endpoint_doubles_up_to_half_an_hour() -> None:
    found = [after_stop(NotAwake("why"), now=0.0, tries=tries) for tries in (1, 2, 3, 7, 19)]
    assert [again.at for again in found if isinstance(again, Again)] == [30, 60, 120, 1800, 1800]


def test_a_run_whose_processes_die_is_retried_at_once_then_ever_later_then_never() -> None:
    assert [next_try(tries) for tries in range(1, 7)] == [0, 0, 0, 30, 60, 120]
    assert (FREE_TRIES, next_try(MOST_TRIES - 1), next_try(MOST_TRIES)) == (3, 1800, None)
