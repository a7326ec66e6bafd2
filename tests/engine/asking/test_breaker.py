from __future__ import annotations

from contextlib import suppress

import pytest

from orchestrator import Policy
from orchestrator.domain.attempt import Completed, Discarded, Outcome, RetryLater
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.domain.item import Item, Lease
from orchestrator.engine.asking import breaker as module
from orchestrator.engine.asking.breaker import Breaker, BreakerTripped
from orchestrator.store.items import Settlement

BAD = Discarded(RequestFailed(FailureKind.REJECTED, "bad input", status=400))
WORSE = Discarded(RequestFailed(FailureKind.REJECTED, "too long", status=413))
LATER = RetryLater(1.0, RequestFailed(FailureKind.UNAVAILABLE, "busy", status=503))
GOOD = Completed('"x"')


class Judging:
    """Feeds a breaker one request at a time; items are numbered from 0."""

    def __init__(self, limit: int = 3) -> None:
        self.breaker = Breaker(Policy(breaker=limit))
        self.shown = 0

    def __call__(self, *outcomes: Outcome) -> list[int]:
        """Return the numbers of the items that may be settled now."""
        request = [
            Settlement(Item(self.shown + n, "i", b"", 1, Lease(1, 1)), one, 0.1) for n, one in enumerate(outcomes)
        ]
        self.shown += len(outcomes)
        return [one.item.key for one in self.breaker.judged(request)]

    @property
    def held(self) -> list[int]:
        return [one.item.key for one in self.breaker.release()]


def test_a_streak_of_equal_failures_trips_the_breaker_and_settles_none_of_them() -> None:
    judging = Judging()
    assert [judging(GOOD), judging(BAD), judging(BAD, BAD), judging()] == [[0], [], [], []]
    with pytest.raises(BreakerTripped, match=r"3 requests in a row .* \(rejected 400: bad input\); nothing of it was"):
        judging(BAD)
    assert judging.held == [1, 2, 3, 4]


def test_answers_after_it_tripped_do_not_settle_the_held_failures() -> None:
    judging = Judging()
    with suppress(BreakerTripped):
        [judging(BAD) for _ in range(3)]
    assert [judging(GOOD), judging(BAD, GOOD)] == [[3], [4, 5]]
    with pytest.raises(BreakerTripped):
        judging(WORSE)
    assert judging.held == [0, 1, 2, 6]


@pytest.mark.parametrize("between", [[GOOD], [BAD, GOOD], [BAD, WORSE], [LATER, GOOD]])
def test_a_success_or_several_causes_settle_a_streak_and_start_a_new_one(between: list[Outcome]) -> None:
    judging = Judging()
    assert [judging(BAD), judging(BAD)] == [[], []]
    assert judging(*between) == [0, 1, *range(2, 2 + len(between))]
    assert [judging(BAD), judging(BAD)] == [[], []]
    with pytest.raises(BreakerTripped):
        judging(BAD)
    assert len(judging.held) == 3


def test_rejected_requests_end_a_streak_if_they_do_not_count() -> None:
    judging, dubious = Judging(), Discarded(RequestFailed(FailureKind.DUBIOUS, "who are you?", status=401))
    judging.breaker = Breaker(Policy(breaker=3, breaker_on_rejected=False))
    assert [judging(BAD) for _ in range(4)] == [[0], [1], [2], [3]]
    assert [judging(dubious), judging(dubious), judging(BAD)] == [[], [], [4, 5, 6]]
    assert [judging(dubious), judging(dubious)] == [[], []]
    with pytest.raises(BreakerTripped):
        judging(dubious)


def test_another_cause_settles_a_streak_and_starts_its_own() -> None:
    judging = Judging()
    assert [judging(BAD), judging(BAD), judging(WORSE), judging(WORSE)] == [[], [], [0, 1], []]
    with pytest.raises(BreakerTripped, match="too long"):
        judging(WORSE)


def test_a_retried_request_neither_counts_nor_waits() -> None:
    judging = Judging()
    assert [judging(BAD), judging(BAD), judging(LATER), judging(BAD, LATER)] == [[], [], [2], [3, 4]]
    with pytest.raises(BreakerTripped):
        judging(BAD)


def test_held_failures_are_released_once_at_the_end() -> None:
    judging = Judging()
    judging(BAD)
    judging(BAD, BAD)
    assert judging.breaker.holds == 3
    assert judging.held == [0, 1, 2]
    assert (judging.breaker.holds, judging.held) == (0, [])


def test_the_oldest_failures_of_a_very_long_streak_are_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_HELD", 2)
    judging = Judging(5)
    assert [judging(BAD) for _ in range(4)] == [[], [], [0], [1]]
    with pytest.raises(BreakerTripped, match="none of the last 2 was discarded"):
        judging(BAD)
    assert judging.held == [2, 3, 4]
