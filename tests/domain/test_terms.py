from __future__ import annotations

import pytest

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.terms import Billed, Pause, Spent, Terms


@pytest.mark.parametrize(
    ("pause", "if_found", "if_resumed", "to_zero", "to_zero_from_zero"),
    [
        (Pause.IF_RESUMED, False, True, False, True),
        (Pause.ALWAYS, True, True, False, False),
        (Pause.NEVER, False, False, False, False),
        (Pause.SCALE_TO_ZERO, True, True, True, True),
    ],
)
def test_the_terms_decide_which_pause_is_owed_and_of_which_kind(
    pause: Pause, *, if_found: bool, if_resumed: bool, to_zero: bool, to_zero_from_zero: bool
) -> None:
    terms = Terms("acme/e", pause=pause)
    assert (terms.owed_if_found, terms.owed_if_resumed) == (if_found, if_resumed)
    assert terms.to_zero(EndpointState.PAUSED) == to_zero
    assert terms.to_zero(EndpointState.SCALED_TO_ZERO) == to_zero_from_zero


def test_every_second_that_an_endpoint_was_awake_is_paid_for() -> None:
    spent = Spent(1, 20, 300, 4000) + Spent(1, 10, 100, 1000)
    assert spent == Spent(2, 30, 400, 5000)
    assert spent.seconds == 5432
    assert (spent.cost(3600.0), spent.cost(None)) == (5432.0, None)


def test_a_sum_of_bills_has_dollars_only_if_each_bill_has() -> None:
    bill, without = Billed(60.0, 0.5), Billed(30.0, None)
    assert bill + bill == Billed(120.0, 1.0)
    assert bill + without == without + bill == Billed(90.0, None)
    assert without + without == Billed(60.0, None)
