from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.comparison import SAME, Figures, Verdict, change, compare

FIGURES = st.floats(0.001, 1e6)


def test_more_items_and_fewer_dollars_are_better() -> None:
    changes = compare(Figures(10.0, 0.5, 0.1), Figures(12.0, 0.4, 0.2))
    assert [(one.what, one.verdict) for one in changes] == [
        ("items/s", Verdict.BETTER),
        ("cost per 1,000", Verdict.BETTER),
        ("failures", Verdict.WORSE),
    ]
    assert [one.by for one in changes] == [pytest.approx(0.2), pytest.approx(-0.2), pytest.approx(1.0)]


def test_rate_and_cost_of_runs_of_very_different_size_are_not_compared() -> None:
    night, one = Figures(1634.0, 0.1, 0.01, items=100_000), Figures(1.6, 30.0, 0.0, items=1)
    for before, now in ((night, one), (one, night)):
        assert [each.what for each in compare(before, now)] == ["failures"]
    tenth = Figures(1600.0, 0.1, 0.01, items=10_000)
    assert len(compare(night, tenth)) == len(compare(tenth, night)) == 3


def test_a_figure_that_is_unknown_for_one_run_is_not_compared() -> None:
    assert compare(Figures(), Figures(1.0, 1.0, 1.0)) == []
    assert [one.what for one in compare(Figures(2.0, None, 0.0), Figures(2.0, 1.0, None))] == ["items/s"]


def test_first_failures_are_worse_and_have_no_relative_change() -> None:
    found = change("failures", 0.0, 0.01, more_is_better=False)
    assert (found.by, found.verdict) == (None, Verdict.WORSE)


@given(before=FIGURES, now=FIGURES)
def test_swapping_the_runs_swaps_better_and_worse(before: float, now: float) -> None:
    up = change("x", before, now, more_is_better=True).verdict
    down = change("x", before, now, more_is_better=False).verdict
    assert {up, down} in ({Verdict.SAME}, {Verdict.BETTER, Verdict.WORSE})


@given(before=FIGURES, part=st.floats(-0.999 * SAME, 0.999 * SAME))
def test_a_small_difference_counts_as_the_same(before: float, part: float) -> None:
    assert change("x", before, before * (1 + part), more_is_better=True).verdict is Verdict.SAME
