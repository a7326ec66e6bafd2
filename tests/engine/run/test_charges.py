"""Endpoints that charge by the request or the token, in receipts, costs and budgets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from orchestrator import Policy
from orchestrator.domain.budget import day_of, used
from orchestrator.domain.charges import UsePrice
from orchestrator.domain.costs import bill, billed_since
from orchestrator.domain.errors import BudgetSpent
from orchestrator.engine.report import report_of
from tests.engine.scripted import Scripted, job_of, run

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.store import Store

PRICE = UsePrice(0.01, (1.0, 3.0))
TOKENS = 1000
EACH = 0.01 + 0.001  # dollars of an answer, of which only the tokens of the request are counted


def endpoint(**settings: object) -> Scripted:
    return Scripted(use_price=PRICE, tokens=TOKENS, **settings)  # type: ignore[arg-type]  # each has its type


async def test_answers_are_charged_in_costs_and_report(store: Store, tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(20)]
    report = await run(job_of(texts, endpoint(), tmp_path), store)
    assert report.charges["scripted"].dollars == pytest.approx(20 * EACH)
    (line,) = bill(await store.receipts.since(), "job", time.time())
    assert (line.what, line.seconds) == ("scripted", 0.0)
    assert line.dollars == pytest.approx(20 * EACH)
    (line,) = bill(await store.receipts.since(), "endpoint", time.time())
    assert line.what == "scripted"
    assert line.dollars == pytest.approx(20 * EACH)
    (shown,) = (await report_of(store, 1)).runs
    assert shown.cost is not None
    assert shown.cost.dollars == pytest.approx(20 * EACH)
    assert shown.figures.cost_per_1000 == pytest.approx(1000 * EACH)


async def test_only_answered_requests_are_charged(store: Store, tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(10)] + ["poison"]
    report = await run(job_of(texts, endpoint(), tmp_path), store)
    assert report.charges["scripted"].requests == 10


async def test_charges_of_several_runs_add_up_by_day(store: Store, tmp_path: Path) -> None:
    for number in range(2):
        await run(job_of([f"{number} {text}" for text in range(10)], endpoint(), tmp_path), store)
    receipts, now = await store.receipts.since(), time.time()
    assert len({receipt.window_id for receipt in receipts}) == 2
    assert used(receipts, day_of(now)[0], now, lambda _: True).dollars == pytest.approx(20 * EACH)
    assert used(receipts, now + 1, now + 2, lambda _: True).dollars == 0
    assert billed_since(receipts, now + 1, now + 2) == 0


async def test_a_budget_ends_a_run_on_an_endpoint_that_charges_by_use(store: Store, tmp_path: Path) -> None:
    slow = endpoint(delay=1.0)
    job = job_of([f"text {number}" for number in range(1000)], slow, tmp_path, Policy(concurrency=4, max_cost=1.0))
    with pytest.raises(BudgetSpent, match="the budget is spent"):
        await run(job, store)
    assert 1.0 <= len(slow.asked) * EACH < 2.0
    with pytest.raises(BudgetSpent):  # another run of the job spends from the same budget of a day
        await run(
            job_of(["other"], slow, tmp_path, Policy(max_cost_per_day=1.0)),
            store,
        )
