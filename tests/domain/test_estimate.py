from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.domain.charges import UsePrice
from orchestrator.domain.estimate import NOTHING_TO_ASK, Billing, Usage, estimated
from orchestrator.domain.measured_pace import MeasuredPace, Workload

PACE = MeasuredPace(0.5, 0.001, 2.0, 8.0, 100)


def test_an_estimate_counts_cold_start_and_pause_of_each_endpoint() -> None:
    billing = [Billing("a", 100.0, 1.0, 3.6), Billing("b", 50.0, 0.5, 7.2)]
    found = estimated(Workload(1000, 0), PACE, billing, "100 requests of run 1")
    assert found.seconds == 501.0
    assert found.awake_seconds == pytest.approx(100 + 501 + 50 + 250.5)
    assert found.cost == pytest.approx(0.601 + 0.601)
    assert str(found) == "estimate: about 15.0 min awake, $1.20 (100 requests of run 1, at 8 in flight)"


def test_an_estimate_says_what_is_not_known() -> None:
    unknown = estimated(Workload(1000, 0), PACE, [Billing("a", 0.0, 1.0, 3.6), Billing("b", 0.0, 1.0, None)], "x")
    assert (unknown.awake_seconds, unknown.cost) == (1002.0, None)
    assert unknown.reason == "the price of b is not known: set price_per_hour= on it"
    free = estimated(Workload(1000, 0), PACE, [], "x")
    assert (free.seconds, free.awake_seconds, free.cost) == (501.0, None, None)
    nothing = estimated(Workload(1000, 0), None, [], "")
    assert (nothing.seconds, nothing.awake_seconds, nothing.cost) == (None, None, None)
    assert str(nothing).startswith("estimate: none, no earlier run")


def test_nothing_to_ask_costs_nothing() -> None:
    assert estimated(Workload(), PACE, [Billing("a", 100.0, 1.0, 3.6)], "x") is NOTHING_TO_ASK
    assert PACE.seconds(Workload()) == 0


def test_limits_of_the_policy_make_asking_as_slow_as_they_are() -> None:
    usage = Usage(items_per_request=4, requests_per_minute=10, tokens_per_minute=2000, tokens=(10.0, 30.0))
    assert usage.shortest(Workload(1000, 0)) == pytest.approx(60 * 1000 / 4 / 10)
    assert replace(usage, requests_per_minute=None).shortest(Workload(1000, 0)) == pytest.approx(60 * 1000 * 40 / 2000)
    found = estimated(Workload(1000, 0), PACE, [Billing("a", 100.0, 1.0, 3.6)], "x", usage)
    assert found.seconds == pytest.approx(1500.0)
    assert found.cost == pytest.approx(1.6)
    assert "as slow as the policy's limits" in str(found)
    assert "limits" not in str(estimated(Workload(1000, 0), PACE, [], "x", Usage(requests_per_minute=1e6)))


def test_answers_that_are_charged_are_part_of_the_cost() -> None:
    load, by_request = Workload(1000, 0), Usage(items_per_request=4, price=UsePrice(per_request=0.01))
    assert estimated(load, PACE, [], "x", by_request).cost == pytest.approx(2.5)
    assert estimated(load, PACE, [Billing("a", 0.0, 1.0, 3.6)], "x", by_request).cost == pytest.approx(2.5 + 0.501)
    first = estimated(load, None, [], "", by_request)
    assert (first.cost, first.seconds) == (2.5, None)
    assert str(first).startswith("estimate: $2.50 for answers; no time, no earlier run")
    by_token = Usage(tokens=(10.0, 30.0), price=UsePrice(per_million_tokens=(1.0, 2.0)))
    assert estimated(load, PACE, [], "x", by_token).cost == pytest.approx(1000 * 70 / 1e6)
    for unknown in (replace(by_token, tokens=None), replace(by_request, items_per_request=None)):
        found = estimated(load, PACE, [], "x", unknown)
        assert (found.cost, found.reason) == (None, "what answers will cost cannot be told from earlier ones")
