from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.attempt import Discarded, RetryLater
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.domain.policy import Backoff, Policy
from orchestrator.domain.verdict import asked_alone, asked_in_parts, judge, tries, whole_repeats

POLICY = Policy(
    max_attempts=3, rate_limit_attempts=4, parse_attempts=2, backoff=Backoff(first=1.0, factor=2.0, cap=10.0)
)
TRIES = {
    FailureKind.REJECTED: 1,
    FailureKind.UNREADABLE: 1,
    FailureKind.PARSE: 2,
    FailureKind.ROLLOUT: 1,
    FailureKind.CRASHED: 2,
    FailureKind.DUBIOUS: 2,
    FailureKind.RATE_LIMITED: 4,
    FailureKind.UNAVAILABLE: 3,
    FailureKind.TIMEOUT: 3,
    FailureKind.CONNECTION: 3,
    FailureKind.GARBLED: 3,
    FailureKind.BAD_ANSWER: 2,
}


@pytest.mark.parametrize("kind", FailureKind)
def test_each_kind_of_failure_gets_its_number_of_tries(kind: FailureKind) -> None:
    failure = RequestFailed(kind, "why")
    verdicts = [judge(failure, attempt=attempt, policy=POLICY, jitter=0.0) for attempt in range(1, TRIES[kind] + 1)]
    assert all(isinstance(verdict, RetryLater) for verdict in verdicts[:-1])
    assert verdicts[-1] == Discarded(failure)


def test_attempts_spent_on_one_cause_do_not_count_for_another() -> None:
    earlier = [FailureKind.RATE_LIMITED, FailureKind.TIMEOUT, FailureKind.CONNECTION, FailureKind.BAD_ANSWER]
    assert tries(FailureKind.RATE_LIMITED, earlier) == 2
    assert tries(FailureKind.UNAVAILABLE, earlier) == 3
    assert tries(FailureKind.DUBIOUS, earlier) == 2
    assert tries(FailureKind.PARSE, earlier) == 1


def test_the_wait_doubles_and_a_longer_wait_named_by_the_server_wins() -> None:
    failure = RequestFailed(FailureKind.UNAVAILABLE, "busy")
    assert judge(failure, attempt=1, policy=POLICY, jitter=0.5) == RetryLater(0.75, failure)
    assert judge(failure, attempt=2, policy=POLICY, jitter=0.0) == RetryLater(2.0, failure)
    asked = RequestFailed(FailureKind.RATE_LIMITED, "slow down", retry_after=30.0)
    assert judge(asked, attempt=1, policy=POLICY, jitter=0.0) == RetryLater(30.0, asked)


@given(attempt=st.integers(1, 10_000), jitter=st.floats(0, 1, exclude_max=True))
def test_a_delay_is_never_above_the_cap_or_below_half_of_the_first(attempt: int, jitter: float) -> None:
    backoff = Backoff()
    assert backoff.first / 2 <= backoff.delay(attempt, jitter) <= backoff.cap


@given(
    attempt=st.integers(1, 99),
    jitter=st.floats(0, 1, exclude_max=True),
    retry_after=st.none() | st.floats(0, 1e18),
)
def test_a_wait_is_as_long_as_the_server_said_or_else_at_most_the_cap(
    attempt: int, jitter: float, retry_after: float | None
) -> None:
    policy = Policy(max_attempts=100, backoff=Backoff(first=1.0, factor=2.0, cap=10.0))
    failure = RequestFailed(FailureKind.UNAVAILABLE, "busy", retry_after=retry_after)
    verdict = judge(failure, attempt=attempt, policy=policy, jitter=jitter)
    assert isinstance(verdict, RetryLater)
    said = min(retry_after or 0.0, 86_400.0)  # a day at the most
    assert max(said, 0.5) <= verdict.delay <= max(said, 10.0)


@pytest.mark.parametrize("kind", [kind for kind in FailureKind if kind is not FailureKind.RATE_LIMITED])
def test_a_limit_of_one_attempt_applies_to_every_failure(kind: FailureKind) -> None:
    failure = RequestFailed(kind, "why")
    assert judge(failure, attempt=1, policy=Policy(max_attempts=1), jitter=0.0) == Discarded(failure)


@pytest.mark.parametrize("setting", ["concurrency", "batch_size", "max_attempts", "parse_attempts", "breaker"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "8", True])
def test_a_policy_refuses_an_invalid_count(setting: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"policy.{setting} must be a whole number"):
        Policy(**{setting: value})  # type: ignore[arg-type]  # that is the test


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("timeout", 0),
        ("timeout", "9"),
        ("timeout", None),
        ("timeout", True),
        ("item_timeout", float("nan")),
        ("grace", -1),
        ("max_cost", -1),
    ],
)
def test_a_policy_refuses_an_invalid_amount(setting: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"policy.{setting} must be a number of at least"):
        Policy(**{setting: value})  # type: ignore[arg-type]  # that is the test


def test_a_policy_refuses_unknown_words() -> None:
    with pytest.raises(ValueError, match=r"policy\.on_foreign_pause must be 'stop' or 'resume', not 'never'"):
        Policy(on_foreign_pause="never")  # type: ignore[arg-type]  # that is the test
    with pytest.raises(ValueError, match=r"policy\.order must be one of length, prefix, input, not 'random'"):
        Policy(order="random")  # type: ignore[arg-type]  # that is the test


def test_a_budget_of_zero_is_valid() -> None:
    nothing = Policy(grace=0, max_cost=0, max_awake=0, max_cost_per_day=0, max_awake_per_day=0, max_error_rate=0)
    assert (nothing.max_cost, nothing.max_awake_per_day) == (0, 0)


@pytest.mark.parametrize("nonsense", [{"first": 5, "cap": 1}, {"factor": 0.9}, {"first": -0.1}])
def test_a_backoff_refuses_invalid_values(nonsense: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="backoff needs"):
        Backoff(**nonsense)


def test_a_backoff_may_be_constant_or_zero() -> None:
    assert [Backoff(first=2.0, factor=1.0, cap=2.0).delay(attempt, 0.0) for attempt in (1, 9)] == [2.0, 2.0]
    assert Backoff(first=0.0, cap=0.0).delay(3, 0.5) == 0.0


def test_jitter_takes_off_up_to_half_of_the_wait() -> None:
    assert [Backoff().delay(2, jitter) for jitter in (0.0, 0.5)] == [1.0, 0.75]


def test_a_batch_is_split_at_once_if_its_content_is_blamed_and_else_on_the_second_problem() -> None:
    unavailable, refused = FailureKind.UNAVAILABLE, FailureKind.RATE_LIMITED
    assert asked_in_parts(FailureKind.REJECTED, 1, POLICY)
    assert [asked_in_parts(unavailable, attempt, POLICY) for attempt in (1, 2, 3)] == [False, True, True]
    assert asked_in_parts(unavailable, 1, Policy(max_attempts=1))  # it would be discarded
    assert not asked_in_parts(refused, 9, POLICY)


def test_an_item_is_asked_alone_once_it_may_be_to_blame() -> None:
    timeout, unavailable, refused = FailureKind.TIMEOUT, FailureKind.UNAVAILABLE, FailureKind.RATE_LIMITED
    assert [asked_alone(failures) for failures in ([], [timeout], [timeout, unavailable])] == [False, False, True]
    assert [asked_alone([refused] * times) for times in (2, 3)] == [False, True]
    assert asked_alone([FailureKind.DUBIOUS])


@pytest.mark.parametrize(
    ("passed", "failed", "repeats"), [(0, 0, 1), (1, 0, 2), (3, 1, 2), (2, 1, 1), (0, 1, 1), (0, 2, 0), (1, 3, 0)]
)
def test_garbled_batches_are_repeated_whole_as_long_as_that_usually_passes(
    passed: int, failed: int, repeats: int
) -> None:
    assert whole_repeats(passed, failed) == repeats
