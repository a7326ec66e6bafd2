from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.pace import Cooldown, Pace


@given(gaps=st.lists(st.floats(0, 5), min_size=1, max_size=200), limit=st.floats(1, 600))
def test_no_minute_has_more_requests_than_allowed(gaps: list[float], limit: float) -> None:
    pace, now, starts = Pace(limit, None), 0.0, []
    for gap in gaps:
        now += gap
        starts.append(now + pace.take(now))
    for first, start in enumerate(starts):
        assert sum(start <= other < start + 60 - 1e-6 for other in starts[first:]) <= limit + 1


def test_tokens_delay_the_next_start() -> None:
    pace = Pace(None, 600)
    assert pace.take(0.0) == 0.0
    pace.spent(0.0, 100)
    assert pace.take(0.0) == 10.0


def test_without_limits_no_request_waits() -> None:
    pace = Pace(None, None)
    pace.spent(0.0, 10**9)
    assert [pace.take(float(moment)) for moment in range(3)] == [0.0, 0.0, 0.0]


def test_the_tokens_of_an_answer_add_to_the_reserved_starts() -> None:
    pace = Pace(60, 600)
    assert [pace.take(0.0) for _ in range(3)] == [0.0, 1.0, 2.0]
    pace.spent(0.0, 100)
    assert pace.take(0.0) == 3.0 + 10.0
    pace.spent(50.0, 10)  # long after: a pause is not saved up
    assert pace.take(50.0) == 1.0


def test_a_hundred_refusals_of_one_generation_cause_one_wait() -> None:
    cooldown = Cooldown()
    begun = [cooldown.refused(10.0, 0, None) for _ in range(100)]
    assert begun == [True] + [False] * 99
    assert (cooldown.until, cooldown.generation) == (11.0, 1)


def test_the_wait_doubles_until_a_request_begun_afterwards_succeeds() -> None:
    cooldown = Cooldown()
    waits = []
    for generation in range(3):
        cooldown.refused(0.0, generation, None)
        cooldown.succeeded(0.0, generation, 2.0)  # begun before the refusal: it says nothing
        waits.append(cooldown.until)
    assert waits == [1.0, 2.0, 4.0]
    cooldown.succeeded(0.0, cooldown.generation, 2.0)
    cooldown.refused(0.0, cooldown.generation, None)
    assert cooldown.until == 1.0


def test_a_lone_refusal_among_many_successes_causes_no_wait_unless_the_server_names_one() -> None:
    cooldown = Cooldown()
    for _ in range(100):
        cooldown.succeeded(0.0, 0, 0.02)
    assert not cooldown.refused(0.0, 0, None)
    assert not cooldown.often
    assert cooldown.refused(0.0, 0, 3.0)
    assert cooldown.until == 3.0


def test_a_fast_server_that_refuses_often_gets_a_short_wait() -> None:
    cooldown = Cooldown()
    for _ in range(100):
        cooldown.succeeded(0.0, 0, 0.2)
    began = [cooldown.refused(0.0, 0, None) for _ in range(5)]
    assert began == [False, False, True, False, False]
    assert 0.19 < cooldown.until < 0.25
    quickest = Cooldown()
    quickest.refused(0.0, 0, None)
    for _ in range(200):
        quickest.succeeded(1.0, 1, 0.001)
    while not quickest.refused(0.0, 1, None):
        pass
    assert quickest.until == 0.1


@given(now=st.floats(0, 1e9), asked=st.none() | st.floats(0, 60), refusals=st.integers(1, 50))
def test_a_wait_is_no_longer_than_the_server_said_or_ten_minutes(
    now: float, asked: float | None, refusals: int
) -> None:
    cooldown = Cooldown()
    for _ in range(refusals):
        cooldown.refused(now, cooldown.generation, asked)
    assert now <= cooldown.until <= now + (600.0 if asked is None else 60.001)


@pytest.mark.parametrize("named", [3600.0, 86_400.0, 1e17])
def test_a_long_wait_is_respected_once_single_requests_are_refused_as_well(named: float) -> None:
    cooldown = Cooldown()
    waits = []
    for _ in range(4):
        cooldown.refused(0.0, cooldown.generation, named)
        assert cooldown.probing
        waits.append(cooldown.until)
    assert waits == [1.0, 2.0, 4.0, min(named, 86_400.0)]


def test_a_long_wait_named_for_one_item_does_not_apply_to_all() -> None:
    cooldown = Cooldown()
    cooldown.refused(0.0, 0, 86_400.0)
    cooldown.succeeded(1.5, 1, 0.5)
    assert not cooldown.probing
    assert cooldown.until == 1.0


def test_a_used_up_quota_is_respected_until_a_request_is_answered_anyway() -> None:
    cooldown = Cooldown()
    cooldown.hold(0.0, 30.0)
    assert (cooldown.until, cooldown.probing) == (30.0, False)
    cooldown.succeeded(31.0, 0, 0.5)
    cooldown.hold(31.0, 60.0)
    assert cooldown.until == 60.0
    cooldown.succeeded(61.0, 0, 2.0)  # begun before: it says nothing
    cooldown.hold(61.0, 90.0)
    assert cooldown.until == 90.0
    cooldown.hold(91.0, 120.0)
    cooldown.succeeded(91.5, 0, 0.5)
    assert cooldown.until == 120.0


@pytest.mark.parametrize("retry_after", [None, 3600.0])
def test_a_long_quota_wait_is_respected_once_a_single_request_is_refused(
    retry_after: float | None,
) -> None:
    cooldown = Cooldown()
    cooldown.hold(0.0, 3600.0)
    cooldown.succeeded(0.5, 0, 1.0)  # this was in flight when it was said
    cooldown.hold(0.5, 3600.0)
    assert (cooldown.until, cooldown.probing) == (0.0, True)
    assert cooldown.refused(1.0, 0, retry_after)
    assert cooldown.until == 1.0 + (3599.0 if retry_after is None else retry_after)


def test_a_long_quota_wait_is_ignored_if_a_single_request_is_answered() -> None:
    cooldown = Cooldown()
    cooldown.hold(0.0, 3600.0)
    cooldown.succeeded(1.0, 0, 0.5)
    cooldown.hold(1.0, 3600.0)
    assert (cooldown.until, cooldown.probing) == (0.0, False)
    cooldown.refused(70.0, 0, 1.0)  # it is true after all
    cooldown.hold(71.0, 3600.0)
    assert (cooldown.until, cooldown.probing) == (71.0, True)


def test_an_announced_wait_of_up_to_a_minute_is_respected_and_shortens_no_other() -> None:
    cooldown = Cooldown()
    cooldown.hold(100.0, 130.0)
    assert cooldown.until == 130.0
    cooldown.hold(100.0, 120.0)
    assert cooldown.until == 130.0
    cooldown.hold(100.0, 160.0)
    assert cooldown.until == 160.0


def test_a_thousand_refusals_are_forgotten_after_some_successes() -> None:
    cooldown = Cooldown()
    for _ in range(2000):
        assert cooldown.refused(0.0, cooldown.generation, None)
    assert (cooldown.until, cooldown.often) == (512.0, True)
    for _ in range(160):
        cooldown.succeeded(1000.0, cooldown.generation, 1.0)
    assert not cooldown.often
