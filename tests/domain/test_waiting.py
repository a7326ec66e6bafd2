from __future__ import annotations

import pytest

from orchestrator.domain.errors import Snoozed
from orchestrator.domain.queue import Again, after_stop
from orchestrator.domain.waiting import Waiting, pays_to_pause


@pytest.mark.parametrize(
    ("seconds", "cold_start", "pays"),
    [(60.0, 0.0, False), (120.0, 0.0, False), (121.0, 0.0, True), (300.0, 400.0, False), (401.0, 400.0, True)],
)
def test_an_endpoint_is_paused_during_waits_that_cost_more_than_waking_it(
    seconds: float, cold_start: float, *, pays: bool
) -> None:
    assert pays_to_pause(seconds, cold_start) is pays


def test_a_wait_says_how_many_items_until_when_and_why() -> None:
    said = str(Waiting(1200, 1_800_000_000.0, "the server asked us to wait"))
    assert said == "1,200 items to be asked, not before 2027-01-15 08:00:00 UTC: the server asked us to wait"


@pytest.mark.parametrize("fruitless", [True, False])
def test_a_queued_run_with_nothing_to_ask_continues_at_the_end_of_its_wait(*, fruitless: bool) -> None:
    snoozed = Snoozed("1 item", 500.0, fruitless=fruitless)
    assert after_stop(snoozed, now=100.0, tries=1) == Again(500.0, "1 item", fruitless)


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        (Waiting(3, 100.0, "busy"), False),
        (Waiting(3, 100.9, "busy"), False),
        (Waiting(3, 101.0, "busy"), True),
        (Waiting(2, 100.0, "busy"), True),
        (Waiting(3, 100.0, "a quota"), True),
    ],
)
def test_a_wait_is_reported_again_if_it_is_for_others_or_for_another_second(other: Waiting, *, differs: bool) -> None:
    assert Waiting(3, 100.0, "busy").differs(other) is differs
