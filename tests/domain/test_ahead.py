"""What is ahead of a run: the time and money until it is done."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.domain.ahead import Ahead, ahead
from orchestrator.domain.report_data import AwakeWindow, Ran, User
from orchestrator.domain.run import RunState

RAN = Ran(1, "talk", RunState.OPEN, 0.0, executing=True, total=1000, completed=300, discarded=100, rate=5.0)


def window(price: float | None, *runs: int | None) -> AwakeWindow:
    users = [User(7, run, None if run is None else "talk") for run in runs]
    return AwakeWindow("acme/m", True, price, 0.0, None, None, 0.0, "awake", "running", users)


def test_a_run_pays_for_its_endpoint_until_its_last_item_is_settled() -> None:
    assert ahead(RAN, [window(3.6, 1)]) == Ahead(120.0, 0.12)
    assert ahead(RAN, [window(3.6, 1), window(1.8, 1)]) == Ahead(120.0, 0.18)


def test_runs_that_use_an_endpoint_together_share_its_price() -> None:
    assert ahead(RAN, [window(3.6, 1, 2, None)]) == Ahead(120.0, 0.06)


def test_endpoints_that_only_others_use_cost_it_nothing() -> None:
    assert ahead(RAN, [window(3.6, 2)]) == Ahead(120.0, None)


def test_nothing_is_said_about_money_if_a_price_is_not_known() -> None:
    assert ahead(RAN, [window(3.6, 1), window(None, 1)]) == Ahead(120.0, None)


def test_nothing_is_said_about_a_run_without_a_pace_or_without_a_process() -> None:
    assert ahead(replace(RAN, rate=None), [window(3.6, 1)]) == Ahead()
    assert ahead(replace(RAN, rate=0.0), [window(3.6, 1)]) == Ahead()
    assert ahead(replace(RAN, executing=False), [window(3.6, 1)]) == Ahead()
