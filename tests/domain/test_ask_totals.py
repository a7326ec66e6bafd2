"""What a rollout has asked: sums by endpoint, words, and each step's part of what its endpoint cost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.domain.ask_totals import AskTotal, ask_lines, by_endpoint, priced
from orchestrator.domain.costs import Receipt
from orchestrator.domain.terms import Spent

DRAFT = AskTotal("writer", "draft", 1200, 3, 5, 96_000, 12_000, 800.0)
REPAIR = AskTotal("writer", "repair", 100, 0, 0, 4_000, None, 200.0)
JUDGE = AskTotal("judge", "", 1, 0, 0, None, None, 0.5)
CALL = AskTotal("", "look_up", 7, 0, 0, 0, 0, 1.0)


def receipt(endpoint: str, run: int, price: float | None = 3600.0) -> Receipt:
    """Return the receipt of a window of 100 s that costs a dollar a second, held by a run for all of it."""
    window = {"a": 1, "b": 2, "c": 3}[endpoint]
    return Receipt(endpoint, window, "job", run, 0.0, 100.0, Spent(), price, 0.0, 100.0, "run", "paused")


def test_totals_are_said_by_endpoint_and_step() -> None:
    assert ask_lines([DRAFT, replace(REPAIR, cost=0.25), JUDGE, CALL]) == [
        "asked writer (draft): 1,200 asks, 3 discarded, 5 retried, 96,000 tokens in, 12,000 tokens out, 13 min 20 s",
        "asked writer (repair): 100 asks, 4,000 tokens in, 3 min 20 s, $0.2500",
        "asked judge: 1 ask, 0.5 s",
        "called look_up: 7 calls, 1.0 s",
    ]


def test_the_steps_of_an_endpoint_are_added_up() -> None:
    assert by_endpoint([DRAFT, JUDGE, REPAIR]) == [
        AskTotal("writer", None, 1300, 3, 5, 100_000, 12_000, 1000.0),
        replace(JUDGE, step=None),
    ]


def test_the_cost_of_an_endpoint_is_divided_by_seconds_of_requests() -> None:
    routes = {"writer": ["a", "b"], "judge": ["c"]}
    receipts = [receipt("a", 1), receipt("b", 1), receipt("c", 2)]
    found = priced([DRAFT, REPAIR, JUDGE, CALL], routes, 1, receipts, 1000.0)
    assert [one.cost for one in found] == [pytest.approx(160.0), pytest.approx(40.0), None, None]


def test_runs_that_share_a_window_each_pay_for_their_own_asks() -> None:
    receipts = [receipt("a", 1), receipt("a", 2)]
    assert [one.cost for one in priced([DRAFT], {"writer": ["a"]}, 2, receipts, 1000.0)] == [pytest.approx(50.0)]


def test_a_cost_that_is_not_known_is_not_divided() -> None:
    receipts = [receipt("a", 1, price=None)]
    assert priced([DRAFT], {"writer": ["a"]}, 1, receipts, 1000.0) == [DRAFT]
