from __future__ import annotations

import pytest

from orchestrator.domain.doubt import MOST, RECENT, needs_probe, rows_are_at_fault


@pytest.mark.parametrize(("needless", "failures"), [(0, 2), (1, 4), (2, 8), (3, MOST), (10, MOST)])
def test_each_needless_probe_doubles_the_failures_before_the_next_one(needless: int, failures: int) -> None:
    assert not needs_probe(failures - 1, 0.0, needless)
    assert needs_probe(failures, 0.0, needless)


@pytest.mark.parametrize("needless", [0, 1, 10])
def test_two_failures_that_took_long_are_enough(needless: int) -> None:
    assert needs_probe(2, RECENT, needless)
    assert not needs_probe(1, 10 * RECENT, needless)


@pytest.mark.parametrize(
    ("since_answer", "failed_before", "at_fault"),
    [(0.0, True, True), (RECENT, True, False), (0.0, False, False), (float("inf"), True, False)],
)
def test_only_rows_that_failed_before_are_at_fault_without_a_probe_and_only_shortly_after_an_answer(
    since_answer: float, failed_before: bool, at_fault: bool
) -> None:
    assert rows_are_at_fault(since_answer, failed_before=failed_before) is at_fault
