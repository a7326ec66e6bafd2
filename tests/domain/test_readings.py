from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.readings import Reading, asked, merged, spans

STEPS = st.lists(
    st.tuples(
        st.floats(0.01, 60.0),
        st.integers(0, 500),
        st.integers(0, 5),
        st.integers(0, 64),
        st.integers(0, 9000) | st.none(),
    ),
    min_size=1,
    max_size=60,
)


def course(steps: list[tuple[float, int, int, int, int | None]], process_id: int = 1, at: float = 0.0) -> list[Reading]:
    """Readings of a process that goes so many steps."""
    found = [Reading(at, process_id)]
    for seconds, completed, discarded, in_flight, tokens in steps:
        last = found[-1]
        counted = last.tokens_out if tokens is None else (last.tokens_out or 0) + tokens
        found.append(
            Reading(
                last.at + seconds,
                process_id,
                last.completed + completed,
                last.discarded + discarded,
                last.requests + completed + discarded,
                None,
                counted,
                in_flight,
                seconds / 10,
            )
        )
    return found


@given(first=STEPS, second=STEPS)
def test_the_spans_add_up_to_what_the_processes_did(
    first: list[tuple[float, int, int, int, int | None]], second: list[tuple[float, int, int, int, int | None]]
) -> None:
    one = course(first)
    both = [*one, *course(second, 2, one[-1].at + 100.0)]
    whole, found = asked(both), spans(both)
    assert sum(span.items for span in found) == whole.settled == sum(step[1] + step[2] for step in first + second)
    assert sum(span.asking for span in found) == pytest.approx(whole.asking)
    assert whole.tokens_out == sum(step[4] or 0 for step in first + second) or whole.tokens_out is None
    assert whole.peak >= max((span.items_per_second for span in found if span.seconds >= 1.0), default=0.0)


@given(steps=STEPS, most=st.integers(1, 70))
def test_merged_spans_have_the_same_totals(steps: list[tuple[float, int, int, int, int | None]], most: int) -> None:
    whole = spans(course(steps))
    few = merged(whole, most)
    assert len(few) <= max(1, most)
    assert (few[0].since, few[-1].until) == (whole[0].since, whole[-1].until)
    assert sum(span.items for span in few) == sum(span.items for span in whole)
    assert all(before.until == after.since for before, after in pairwise(few))


def test_no_span_covers_the_time_between_two_processes() -> None:
    both = [*course([(5.0, 10, 0, 1, None)] * 4), *course([(5.0, 10, 0, 1, None)] * 4, 2, 1000.0)]
    few = merged(spans(both), 2)
    assert [(span.since, span.until) for span in few] == [(0.0, 20.0), (1000.0, 1020.0)]


def test_a_cold_start_does_not_lower_the_rate() -> None:
    cold = [(5.0, 0, 0, 0, None)] * 60
    assert asked(course([*cold, (5.0, 50, 0, 0, None)])).rate == pytest.approx(10.0)


def test_released_items_do_not_make_the_rate_negative() -> None:
    readings = [Reading(0.0, 1), Reading(5.0, 1, completed=0, discarded=20, requests=20), Reading(10.0, 1, requests=20)]
    assert [span.items for span in spans(readings)] == [20, 0]
    assert asked(readings).settled == 0


def test_a_clock_that_was_set_back_is_tolerated() -> None:
    readings = [Reading(10.0, 1), Reading(5.0, 1, completed=5), Reading(12.0, 1, completed=9)]
    assert all(span.seconds > 0 for span in spans(readings))


def test_without_readings_there_are_no_figures() -> None:
    assert spans([]) == merged([], 10) == []
    assert asked([]).rate is None


def test_the_best_rate_of_a_run_that_took_less_than_a_second_is_its_average() -> None:
    totals = asked([Reading(10.0, 1), Reading(10.5, 1, completed=5, requests=5)])
    assert totals.peak == totals.rate == 10.0
