from __future__ import annotations

from math import inf

import pytest

from orchestrator.domain.doubt import ANSWERS, MOST, RECENT, needs_probe, recent, rows_are_at_fault


@pytest.mark.parametrize(("needless", "failures"), [(0, 2), (1, 4), (2, 8), (3, MOST), (10, MOST)])
def test_each_needless_probe_doubles_the_failures_before_the_next_one(needless: int, failures: int) -> None:
    assert not needs_probe(failures - 1, 0.0, needless, 0.1)
    assert needs_probe(failures, 0.0, needless, 0.1)


@pytest.mark.parametrize("needless", [0, 1, 10])
def test_two_failures_that_took_long_are_enough(needless: int) -> None:
    assert needs_probe(2, RECENT, needless, 0.1)
    assert not needs_probe(1, 10 * RECENT, needless, 0.1)


@pytest.mark.parametrize(
    ("since_answer", "failed_before", "at_fault"),
    [(0.0, True, True), (RECENT, True, False), (0.0, False, False), (float("inf"), True, False)],
)
def test_only_rows_that_failed_before_are_at_fault_without_a_probe_and_only_shortly_after_an_answer(
    since_answer: float, failed_before: bool, at_fault: bool
) -> None:
    assert rows_are_at_fault(since_answer, 0.1, failed_before=failed_before) is at_fault


@pytest.mark.parametrize(("usual", "seconds"), [(0.01, RECENT), (30.0, 30.0 * ANSWERS), (inf, RECENT)])
def test_at_a_slow_endpoint_more_counts_as_recent(usual: float, seconds: float) -> None:
    assert recent(usual) == seconds
    assert needs_probe(2, seconds, 3, usual)
    assert not needs_probe(2, seconds - 0.1, 3, usual)
    assert rows_are_at_fault(seconds - 0.1, usual, failed_before=True)
