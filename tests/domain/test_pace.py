from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.pace import Pace


@given(gaps=st.lists(st.floats(0, 5), min_size=1, max_size=200), limit=st.floats(1, 600))
def test_no_minute_sees_more_requests_than_allowed(gaps: list[float], limit: float) -> None:
    pace, now, starts = Pace(limit, None), 0.0, []
    for gap in gaps:
        now += gap
        starts.append(now + pace.take(now))
    for first, start in enumerate(starts):
        assert sum(start <= other < start + 60 - 1e-6 for other in starts[first:]) <= limit + 1


def test_tokens_put_off_the_next_start() -> None:
    pace = Pace(None, 600)
    assert pace.take(0.0) == 0.0
    pace.spent(0.0, 100)
    assert pace.take(0.0) == 10.0


def test_without_limits_nobody_waits() -> None:
    pace = Pace(None, None)
    pace.spent(0.0, 10**9)
    assert [pace.take(float(moment)) for moment in range(3)] == [0.0, 0.0, 0.0]


def test_what_an_answer_took_comes_on_top_of_the_starts_that_are_taken() -> None:
    pace = Pace(60, 600)
    assert [pace.take(0.0) for _ in range(3)] == [0.0, 1.0, 2.0]
    pace.spent(0.0, 100)
    assert pace.take(0.0) == 3.0 + 10.0
    pace.spent(50.0, 10)  # long after: a pause is not saved up
    assert pace.take(50.0) == 1.0
