from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.cooldown import Cooldown


def test_a_hundred_refusals_of_one_generation_are_one_wait() -> None:
    cooldown = Cooldown()
    begun = [cooldown.refused(10.0, 0, None) for _ in range(100)]
    assert begun == [True] + [False] * 99
    assert (cooldown.until, cooldown.generation) == (11.0, 1)


def test_the_wait_doubles_until_something_succeeds_that_was_begun_afterwards() -> None:
    cooldown = Cooldown()
    waits = []
    for generation in range(3):
        cooldown.refused(0.0, generation, None)
        cooldown.succeeded(generation, 2.0)  # begun before the refusal: it says nothing
        waits.append(cooldown.until)
    assert waits == [1.0, 2.0, 4.0]
    cooldown.succeeded(cooldown.generation, 2.0)
    cooldown.refused(0.0, cooldown.generation, None)
    assert cooldown.until == 1.0


def test_a_lone_refusal_among_many_successes_makes_nobody_wait_unless_the_server_names_a_time() -> None:
    cooldown = Cooldown()
    for _ in range(100):
        cooldown.succeeded(0, 0.02)
    assert not cooldown.refused(0.0, 0, None)
    assert not cooldown.often
    assert cooldown.refused(0.0, 0, 3.0)
    assert cooldown.until == 3.0


def test_a_quick_server_that_refuses_often_gets_a_short_wait() -> None:
    cooldown = Cooldown()
    for _ in range(100):
        cooldown.succeeded(0, 0.2)
    began = [cooldown.refused(0.0, 0, None) for _ in range(5)]
    assert began == [False, False, True, False, False]
    assert 0.19 < cooldown.until < 0.25
    quickest = Cooldown()
    quickest.refused(0.0, 0, None)
    for _ in range(200):
        quickest.succeeded(1, 0.001)
    while not quickest.refused(0.0, 1, None):
        pass
    assert quickest.until == 0.1


@given(now=st.floats(0, 1e9), asked=st.none() | st.floats(0, 1e6), refusals=st.integers(1, 50))
def test_nobody_is_made_to_wait_longer_than_a_minute(now: float, asked: float | None, refusals: int) -> None:
    cooldown = Cooldown()
    for _ in range(refusals):
        cooldown.refused(now, cooldown.generation, asked)
    assert now <= cooldown.until <= now + 60.001


def test_what_the_server_says_beforehand_is_kept_to_for_a_minute_and_shortens_nothing() -> None:
    cooldown = Cooldown()
    cooldown.hold(100.0, 130.0)
    assert cooldown.until == 130.0
    cooldown.hold(100.0, 120.0)
    assert cooldown.until == 130.0
    cooldown.hold(100.0, 100_000.0)
    assert cooldown.until == 160.0


def test_a_thousand_refusals_are_forgotten_after_some_successes() -> None:
    cooldown = Cooldown()
    for _ in range(2000):
        assert cooldown.refused(0.0, cooldown.generation, None)
    assert (cooldown.until, cooldown.often) == (60.0, True)
    for _ in range(160):
        cooldown.succeeded(cooldown.generation, 1.0)
    assert not cooldown.often
