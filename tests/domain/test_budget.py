from __future__ import annotations

import pytest

from orchestrator import Policy
from orchestrator.domain.budget import awake_limit, to_finish
from orchestrator.domain.costs import Receipt, bill
from orchestrator.domain.errors import UsageError
from orchestrator.domain.terms import Spent


@pytest.mark.parametrize(
    ("policy", "price", "limit"),
    [
        (Policy(), None, None),
        (Policy(max_awake=60), None, 60),
        (Policy(max_cost=1.0), 2.0, 1800),
        (Policy(max_cost=1.0, max_awake=60), 2.0, 60),
        (Policy(max_cost=0.01, max_awake=60), 2.0, 18),
        (Policy(max_cost=1.0), 0.0, None),
    ],
)
def test_the_tighter_of_time_and_money_is_the_limit(policy: Policy, price: float | None, limit: float | None) -> None:
    assert awake_limit(policy, price) == limit


def test_money_without_a_price_is_refused() -> None:
    with pytest.raises(UsageError, match="set price_per_hour="):
        awake_limit(Policy(max_cost=1.0), None)


def test_what_is_left_is_foretold_from_the_work_done() -> None:
    assert to_finish(30, 10, Spent(cold_start=100, work=5)) == 15
    assert to_finish(30, 0, Spent(work=5)) is None


def receipt(
    window: int, job: str | None, since: float, until: float | None, billed: tuple[float, float | None]
) -> Receipt:
    return Receipt("acme/e", window, job, 1, since, until, Spent(), 3.6, *billed, "run", "paused")


def test_a_window_costs_from_its_resume_to_its_end_however_it_is_shared() -> None:
    day = 86_400.0
    receipts = [
        receipt(1, "a", 0, 300, (0, 400)),
        receipt(1, "b", 300, 400, (0, 400)),
        receipt(2, "a", day, day + 10, (day, day + 100)),
        receipt(2, None, day + 90, day + 100, (day, day + 100)),  # a sweep that cleaned up
        receipt(3, "b", 2 * day, None, (2 * day, None)),
    ]
    now = 2 * day + 1000
    by_job = {line.what: line for line in bill(receipts, "job", now)}
    assert {name: line.seconds for name, line in by_job.items()} == {"a": 400, "b": 1100}
    assert by_job["a"].dollars == pytest.approx(0.4)
    assert [(line.what, line.seconds) for line in bill(receipts, "day", now)] == [
        ("1970-01-01", 400),
        ("1970-01-02", 100),
        ("1970-01-03", 1000),
    ]
    assert [line.seconds for line in bill(receipts, "endpoint", now)] == [1500]
