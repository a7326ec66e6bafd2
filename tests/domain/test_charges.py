from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.charges import UsePrice, use_price

numbers = st.integers(0, 10_000_000)


def test_requests_and_tokens_of_both_ways_are_charged() -> None:
    price = use_price(0.001, [0.5, 2.0])
    assert price == UsePrice(0.001, (0.5, 2.0))
    charge = price.charge(10, 1_000_000, 500_000)
    assert (charge.requests, charge.tokens_in, charge.tokens_out) == (10, 1_000_000, 500_000)
    assert charge.dollars == pytest.approx(1.51)
    assert UsePrice(0.001).charge(10, None, None).dollars == pytest.approx(0.01)
    assert use_price(None, None) is None


@pytest.mark.parametrize(
    ("request_", "tokens"), [(-1, None), ("1", None), (True, None), (None, 1.0), (None, (1.0,)), (None, (1.0, -1.0))]
)
def test_a_price_that_is_none_is_refused(request_: object, tokens: object) -> None:
    with pytest.raises(ValueError, match="price_per_"):
        use_price(request_, tokens)


@given(numbers, numbers, numbers, numbers)
def test_charges_add_up_whatever_is_charged_together(one: int, other: int, tokens_in: int, tokens_out: int) -> None:
    price = UsePrice(0.01, (1.0, 3.0))
    parts = price.charge(one, tokens_in, 0) + price.charge(other, 0, tokens_out)
    whole = price.charge(one + other, tokens_in, tokens_out)
    assert parts.dollars == pytest.approx(whole.dollars)
    assert (whole - parts).dollars == pytest.approx(0.0, abs=1e-6)
