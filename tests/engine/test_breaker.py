from __future__ import annotations

import pytest

from orchestrator import Policy
from orchestrator.domain.attempt import Completed, Discarded, Outcome, RetryLater
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.domain.item import Item, Lease
from orchestrator.engine.breaker import Breaker, BreakerTripped
from orchestrator.store.items import Settlement

BAD = Discarded(RequestFailed(FailureKind.REJECTED, "bad input", status=400))
WORSE = Discarded(RequestFailed(FailureKind.REJECTED, "too long", status=413))
LATER = RetryLater(1.0, RequestFailed(FailureKind.UNAVAILABLE, "busy", status=503))
GOOD = Completed('"x"')


def noted(*requests: list[Outcome]) -> Breaker:
    breaker, key = Breaker(Policy(breaker=3)), 0
    for outcomes in requests:
        settled = [Settlement(Item(key + n, "i", b"", 1, Lease(1, 1)), one, 0.1) for n, one in enumerate(outcomes)]
        key += len(outcomes)
        breaker.note(settled)
    return breaker


def test_so_many_requests_in_a_row_that_fail_alike_trip_it_and_all_their_items_are_given_back() -> None:
    noted([BAD], [BAD]).trip()
    breaker = noted([GOOD], [BAD], [BAD, BAD], [], [BAD])
    with pytest.raises(BreakerTripped, match=r"3 requests in a row .* \(rejected 400: bad input\)") as tripped:
        breaker.trip()
    assert tripped.value.keys == [1, 2, 3, 4]


@pytest.mark.parametrize("between", [[GOOD], [BAD, GOOD], [BAD, WORSE], [WORSE]])
def test_a_success_or_another_cause_between_begins_anew(between: list[Outcome]) -> None:
    noted([BAD], [BAD], between, [BAD]).trip()
    with pytest.raises(BreakerTripped) as tripped:
        noted([BAD], [BAD], between, [BAD], [BAD], [BAD]).trip()
    assert len(tripped.value.keys) == 3


@pytest.mark.parametrize("between", [[LATER], [BAD, LATER]])
def test_what_will_be_tried_again_says_nothing_yet(between: list[Outcome]) -> None:
    noted([BAD], between, [BAD]).trip()
    with pytest.raises(BreakerTripped):
        noted([BAD], [BAD], between, [BAD]).trip()
