from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.charges import UsePrice
from orchestrator.domain.tail import handed_over

prices = st.floats(0.0001, 100.0)
lefts = st.integers(1, 10_000)


def test_what_is_left_is_handed_over_if_that_is_cheaper() -> None:
    found = handed_over(100, 2.0, 36.0, UsePrice(0.001), None)  # 50 s at a cent a second
    assert found is not None
    assert found.items == 100
    assert (found.here, found.there) == pytest.approx((0.5, 0.1))
    assert str(found) == (
        "100 items left to the fallback: finishing there costs about $0.1000, and staying awake for them about $0.5000"
    )
    assert handed_over(100, 2.0, 36.0, UsePrice(0.006), None) is None


def test_nothing_is_handed_over_if_a_price_or_the_tokens_are_not_known() -> None:
    assert handed_over(100, 2.0, None, UsePrice(0.0), None) is None
    assert handed_over(100, 2.0, 36.0, UsePrice(None, (1.0, 1.0)), None) is None
    assert handed_over(100, 2.0, 36.0, UsePrice(None, (1.0, 1.0)), (100.0, 10.0)) is not None
    assert handed_over(0, 2.0, 36.0, UsePrice(0.0), None) is None


def test_if_nothing_is_settled_it_takes_as_long_again_as_was_looked_at() -> None:
    found = handed_over(3, 0.0, 36.0, UsePrice(0.01), None)
    assert found is not None
    assert found.here == pytest.approx(0.3)


@given(lefts, prices, prices, prices)
def test_a_tail_is_never_handed_over_at_a_loss(left: int, rate: float, price: float, each: float) -> None:
    found = handed_over(left, rate, price, UsePrice(each), None)
    staying = left / rate * price / 3600
    assert (found is not None) == (left * each < staying)


@given(lefts, prices, prices, prices, st.floats(1.0, 10.0))
def test_a_slower_endpoint_is_left_no_later(left: int, rate: float, price: float, each: float, factor: float) -> None:
    if handed_over(left, rate, price, UsePrice(each), None) is not None:
        assert handed_over(left, rate / factor, price, UsePrice(each), None) is not None
