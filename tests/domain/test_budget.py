from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator import Policy
from orchestrator.domain.budget import Budget, Budgets, budgets_of, standing, to_finish, used
from orchestrator.domain.costs import SWEEP, Receipt, bill, bill_runs, billed_since
from orchestrator.domain.errors import UsageError
from orchestrator.domain.terms import Spent

HOUR = 3600.0
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
MIDNIGHT = NOON - 12 * HOUR


def receipt(
    window: int,
    job: str | None,
    since: float,
    until: float | None,
    billed: tuple[float, float | None],
    *,
    run: int = 1,
    price: float | None = 3.6,
) -> Receipt:
    return Receipt("acme/e", window, job, run, since, until, Spent(), price, *billed, "run", "paused")


@pytest.mark.parametrize(
    ("policy", "ledger", "says"),
    [
        (Policy(max_cost=1.0), Budget(), "policy.max_cost needs to know .* set price_per_hour= .* policy.max_awake"),
        (Policy(max_cost_per_day=1.0), Budget(), "policy.max_cost_per_day needs .* with policy.max_awake_per_day"),
        (Policy(), Budget(max_cost=1.0), r"max_cost_per_day in the settings file's \[budget\] needs"),
    ],
)
def test_a_budget_in_dollars_without_a_price_is_refused(policy: Policy, ledger: Budget, says: str) -> None:
    budgets_of(policy, ledger).check_price(0.0)
    with pytest.raises(UsageError, match=says):
        budgets_of(policy, ledger).check_price(None)


def test_a_budget_in_seconds_needs_no_price() -> None:
    budgets_of(Policy(max_awake=1.0, max_awake_per_day=1.0), Budget(max_awake=1.0)).check_price(None)
    budgets_of(Policy(), Budget()).check_price(None)


def test_the_remaining_time_is_estimated_from_the_work_done() -> None:
    assert to_finish(30, 10, Spent(cold_start=100, work=5)) == 15
    assert to_finish(30, 0, Spent(work=5)) is None
    assert to_finish(30, 10, Spent(cold_start=100)) is None


def test_a_run_has_one_budget_for_all_its_endpoints_and_starts() -> None:
    receipts = [
        receipt(1, "a", NOON - 900, NOON - 800, (NOON - 900, NOON - 800)),  # before it was killed
        receipt(2, "a", NOON - 100, None, (NOON - 100, None)),
        receipt(3, "a", NOON - 50, None, (NOON - 50, None), price=7.2),
        receipt(4, "a", NOON - 500, NOON - 400, (NOON - 500, NOON - 400), run=2),  # another run of the job
    ]
    found = standing(Budgets(run=Budget(max_awake=300.0)), receipts, 1, "a", NOON)
    assert (found.whose, found.lasts) == (None, 25.0)  # 50 s are left, for two at a time
    found = standing(Budgets(run=Budget(max_cost=0.3)), receipts, 1, "a", NOON)
    assert (found.whose, found.until, found.use.seconds) == ("run", None, 250.0)
    assert found.use.dollars == pytest.approx(0.1 + 0.1 + 0.1)
    assert str(found) == "the budget is spent (250 s awake, $0.30)"


def test_a_job_has_one_budget_a_day_for_all_its_runs() -> None:
    receipts = [
        receipt(
            1, "a", MIDNIGHT - 600, MIDNIGHT + 60, (MIDNIGHT - 600, MIDNIGHT + 60)
        ),  # yesterday's, but for a minute
        receipt(2, "a", NOON - 100, NOON, (NOON - 100, NOON), run=2),
        receipt(3, "b", NOON - 1000, NOON, (NOON - 1000, NOON), run=3),
    ]
    budgets = Budgets(job=Budget(max_awake=170.0))
    found = standing(budgets, receipts, 9, "a", NOON)
    assert (found.whose, found.lasts) == (None, 12 * HOUR)  # nobody spends just now; then there is a new budget
    found = standing(Budgets(job=Budget(max_awake=160.0)), receipts, 9, "a", NOON)
    assert (found.whose, found.until) == ("job", MIDNIGHT + 24 * HOUR)
    assert found.remedy == "run the same command again after 2026-11-22 00:00 UTC"
    assert standing(budgets, receipts, 9, "c", NOON).whose is None


def test_the_ledger_has_one_budget_a_day_for_all_jobs() -> None:
    receipts = [
        receipt(1, "a", NOON - 100, NOON - 50, (NOON - 100, NOON)),
        receipt(1, "b", NOON - 60, NOON, (NOON - 100, NOON), run=2),
        receipt(2, None, NOON - 10, None, (NOON - 30, None), run=0, price=None),  # resumed by hand, of unknown price
    ]
    found = standing(Budgets(ledger=Budget(max_cost=0.1, max_awake=1000.0)), receipts, 9, "c", NOON)
    assert (found.whose, found.use.seconds) == ("ledger", 130.0)
    assert found.use.dollars == pytest.approx(0.1)
    assert standing(Budgets(ledger=Budget(max_awake=130.5)), receipts, 9, "c", NOON).lasts == pytest.approx(0.5)


def test_the_shares_of_a_window_add_up_to_its_cost_as_in_the_bill() -> None:
    receipts = [
        receipt(1, "a", 0, 300, (0, 400)),
        receipt(1, "b", 300, 400, (0, 400), run=2),
        receipt(1, None, 380, 400, (0, 400), run=0),  # a sweep that cleaned up
        receipt(2, "a", 500, None, (500, None), run=3),
    ]
    for line in bill(receipts, "job", 1000.0):
        mine = used(receipts, 0.0, 1000.0, lambda one, job=line.what: one.job == job)  # type: ignore[misc]
        assert (mine.seconds, mine.dollars) == pytest.approx((line.seconds, line.dollars))
    assert used(receipts, 0.0, 1000.0, lambda _: True).seconds == 900


def test_no_limit_never_runs_out_and_a_limit_of_zero_runs_out_at_once() -> None:
    assert not Budgets()
    assert standing(Budgets(), [], 1, "a", NOON).whose is None
    assert standing(Budgets(run=Budget(max_cost=0.0)), [], 1, "a", NOON).whose == "run"
    assert (
        standing(
            Budgets(run=Budget(max_cost=1.0)), [receipt(1, "a", 0, None, (0, None), price=0.0)], 1, "a", NOON
        ).lasts
        > 0
    )


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


@pytest.mark.parametrize("whose", ["run", "job", "ledger"])
@pytest.mark.parametrize("what", ["max_cost", "max_awake"])
def test_a_single_limit_counts_as_a_budget(whose: str, what: str) -> None:
    budgets: dict[str, Any] = {whose: Budget(**{what: 0.0})}
    assert Budgets(**budgets)


def test_the_cost_of_a_day_is_shared_by_how_long_each_run_held_the_window_that_day() -> None:
    receipts = [
        receipt(1, "a", MIDNIGHT - 900, MIDNIGHT + 100, (MIDNIGHT - 900, MIDNIGHT + 200)),
        receipt(1, "b", MIDNIGHT + 100, MIDNIGHT + 200, (MIDNIGHT - 900, MIDNIGHT + 200)),
    ]
    assert used(receipts, MIDNIGHT, NOON, lambda one: one.job == "a").seconds == 100


def test_a_clock_that_goes_back_does_not_make_a_bill_negative() -> None:
    receipts = [
        receipt(1, "a", NOON, NOON - 50, (NOON, NOON - 50)),
        receipt(2, "a", NOON + 70, None, (NOON + 70, None)),
        receipt(3, "a", NOON - 50, NOON + 70, (NOON - 50, NOON + 70)),
    ]
    assert used(receipts, 0.0, NOON, lambda _: True).seconds == 50
    assert [line.seconds for line in bill(receipts[:2], "endpoint", NOON)] == [0]


def test_one_unknown_price_makes_the_total_unknown() -> None:
    known, unknown = receipt(1, "a", 0, 100, (0, 100)), receipt(2, "a", 200, 300, (200, 300), price=None)
    for receipts in ([known, unknown], [unknown, known]):
        assert [(line.seconds, line.dollars) for line in bill(receipts, "job", 1000.0)] == [(200, None)]


def test_windows_held_only_by_other_jobs_do_not_use_up_a_budget() -> None:
    receipts = [receipt(1, "b", NOON - 100, None, (NOON - 100, None), run=2)]
    found = standing(Budgets(run=Budget(max_awake=5.0), job=Budget(max_awake=5.0)), receipts, 1, "a", NOON)
    assert (found.whose, found.lasts) == (None, 12 * HOUR)


def test_windows_held_for_no_time_are_still_shared() -> None:
    receipts = [receipt(1, job, NOON, NOON, (NOON - 100, NOON), run=run) for run, job in ((1, "a"), (2, "b"))]
    assert used(receipts, 0.0, NOON, lambda one: one.job == "a").seconds == 50
    assert [(line.what, line.seconds) for line in bill(receipts, "job", NOON)] == [("a", 50), ("b", 50)]


def test_a_run_pays_its_share_and_no_run_pays_for_windows_that_only_a_sweep_used() -> None:
    receipts = [
        receipt(1, "a", 0, 300, (0, 400), run=1),
        receipt(1, "a", 300, 400, (0, 400), run=2),
        Receipt("acme/e", 2, None, None, 500, 600, Spent(), 3.6, 500, 600, "sweep", "paused"),
    ]
    assert {run: cost.seconds for run, cost in bill_runs(receipts, 1000.0).items()} == {1: 300, 2: 100}
    assert [(line.what, line.seconds) for line in bill(receipts, "job", 1000.0)] == [(SWEEP, 100), ("a", 400)]


def test_what_all_windows_cost_since_a_moment_counts_each_once_and_only_from_then_on() -> None:
    receipts = [
        receipt(1, "a", 0, 300, (0, 1400), run=1),  # two runs shared it, and it was seen asleep 400 s after the moment
        receipt(1, "a", 300, 400, (0, 1400), run=2),
        receipt(2, "b", 1500, 1600, (1500, None)),  # its process has died, and it is still billed
        receipt(3, "b", 100, 200, (100, 200)),
    ]
    assert billed_since(receipts, 1000.0, now=2000.0) == pytest.approx(0.9)
    assert billed_since([*receipts, receipt(4, "b", 1900, None, (1900, None), price=None)], 1000.0, 2000.0) is None


def test_what_the_provider_bills_counts_instead_of_time_and_price() -> None:
    said = replace(receipt(1, "a", 0, 100, (0, 100)), billed_seconds=190.0, billed_dollars=0.5)
    receipts = [said, replace(said, job="b", since=50.0)]
    assert [(line.what, line.seconds, line.dollars) for line in bill(receipts, "endpoint", 200.0)] == [
        ("acme/e", 100, 0.5)
    ]
    assert sum(line.dollars or 0.0 for line in bill(receipts, "job", 200.0)) == pytest.approx(0.5)
    assert billed_since(receipts, 60.0, 200.0) == pytest.approx(0.2)
    assert bill(receipts, "endpoint", 200.0, since=60.0)[0].dollars == pytest.approx(0.2)
    assert used(receipts, 0.0, 200.0, lambda _: True).dollars == pytest.approx(0.5)


def test_what_is_left_of_a_budget_does_not_end_at_midnight() -> None:
    budgets = Budgets(job=Budget(max_awake=20 * HOUR))
    found = standing(budgets, [receipt(1, "a", NOON - 100, None, (NOON - 100, None))], 1, "a", NOON)
    assert (found.lasts, found.left) == (12 * HOUR, 20 * HOUR - 100)
    assert standing(Budgets(), [], 1, "a", NOON).left == float("inf")
