from __future__ import annotations

import pytest

from orchestrator.domain.readings import Reading
from orchestrator.domain.traffic import Failed, Latency, Traffic, latency_of, status_of, traffic_lines, traffic_of


def test_percentiles_are_the_seconds_within_which_so_many_answers_came() -> None:
    assert latency_of([float(number) for number in range(1, 101)]) == Latency(50.0, 90.0, 99.0, 100.0)
    assert latency_of([1.0, 2.0, 9.0]) == Latency(2.0, 9.0, 9.0, 9.0)
    assert latency_of([1.0]) == Latency(1.0, 1.0, 1.0, 1.0)
    assert latency_of([]) is None


def test_only_a_run_that_a_process_executes_has_requests_in_flight() -> None:
    readings = [Reading(1.0, 1, requests=5, in_flight=2), Reading(2.0, 2, requests=3, in_flight=4)]
    assert traffic_of(readings, None, (), executing=True) == Traffic(8, 4)
    assert traffic_of(readings, None, (), executing=False) == Traffic(8, 0)
    assert traffic_of([], None, (), executing=True) == Traffic()


def test_lost_requests_of_all_processes_are_shown_by_cause() -> None:
    readings = [
        Reading(1.0, 1, requests=5, lost={"failing": 1}),
        Reading(2.0, 1, requests=9, lost={"failing": 2, "cut_short": 4}),
        Reading(3.0, 2, requests=3, lost={"failing": 1000}),
    ]
    traffic = traffic_of(readings, None, [Failed("timeout", None, 2, 0)], executing=False)
    assert traffic.lost == {"failing": 1002, "cut_short": 4}
    assert traffic_lines(traffic) == [
        "12 requests",
        "failed attempts: 2 timeout, 1,006 lost (1,006 retried)",
        "lost requests: 1,002 failing, 4 cut_short",
    ]


def test_requests_of_all_processes_are_shown_by_status_unless_all_succeeded() -> None:
    readings = [
        Reading(1.0, 1, requests=5, statuses={"200": 1}),
        Reading(2.0, 1, requests=9, statuses={"503": 2, "200": 6, "none": 1}),
        Reading(3.0, 2, requests=3, statuses={"200": 1000}),
    ]
    traffic = traffic_of(readings, None, (), executing=False)
    assert traffic.statuses == {"200": 1006, "503": 2, "none": 1}
    assert traffic_lines(traffic) == ["12 requests", "requests by status: 1,006 x 200, 2 x 503, 1 without"]
    assert traffic_lines(traffic_of(readings[2:], None, (), executing=False)) == ["3 requests"]


@pytest.mark.parametrize(
    ("kind", "status", "found"), [("garbled", None, 200), ("timeout", None, None), ("unavailable", 503, 503)]
)
def test_an_answer_that_is_none_has_a_status_too(kind: str, status: int | None, found: int | None) -> None:
    assert status_of(kind, status) == found


def test_failed_attempts_are_shown_with_the_number_retried() -> None:
    failed = [Failed("rate_limited", 429, 1200, 1200), Failed("timeout", None, 2, 0)]
    assert traffic_lines(Traffic(1300, 0, Latency(0.5, 0.9, 1.25, 3.0), failed)) == [
        "1,300 requests; answers took 0.5 s (median), 0.9 s (90 %), 1.25 s (99 %)",
        "failed attempts: 1,200 rate_limited 429 (1,200 retried), 2 timeout",
    ]
    assert traffic_lines(Traffic(1300, 16)) == ["16 requests in flight"]
    assert traffic_lines(Traffic()) == []
