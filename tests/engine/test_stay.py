from __future__ import annotations

from orchestrator.domain.errors import EndpointLost
from orchestrator.engine.stay import _Patience

LOST = EndpointLost("gone")
STARTING = EndpointLost("still loading", starting=True)


async def test_an_endpoint_that_is_lost_in_vain_is_tried_three_times_and_a_little_later_each_time() -> None:
    patience = _Patience(60.0)
    assert not patience.tried
    assert [patience.lost(LOST, progressed=False) for _ in range(3)] == [0.0, 1.0, None]
    assert patience.tried


async def test_what_was_done_between_makes_up_for_earlier_losses() -> None:
    patience = _Patience(60.0)
    for _ in range(9):
        assert patience.lost(LOST, progressed=True) == 0.0
        assert not patience.tried
        assert [patience.lost(LOST, progressed=False) for _ in range(2)] == [0.0, 1.0]


async def test_an_endpoint_that_names_its_time_has_it_for_a_minute_at_most_and_while_it_may_take_to_start() -> None:
    patience = _Patience(60.0)
    for seconds in (5.0, 60.0, 86_400.0, 5.0):
        loss = EndpointLost("still loading", starting=True, retry_after=seconds)
        assert patience.lost(loss, progressed=False) == min(seconds, 60.0)
    assert not patience.tried
    late = _Patience(0.0)
    loss = EndpointLost("still loading", starting=True, retry_after=5.0)
    assert [late.lost(loss, progressed=False) for _ in range(3)] == [0.0, 1.0, None]


async def test_nothing_is_held_against_an_endpoint_that_was_starting_as_it_said() -> None:
    patience = _Patience(60.0)
    for _ in range(9):
        assert patience.lost(STARTING, progressed=False) == 0.0
        patience.connected(waited=True)
        assert not patience.tried


async def test_one_that_was_there_at_once_or_took_too_long_was_not_starting() -> None:
    for patience, loss, waited in (
        (_Patience(60.0), STARTING, False),
        (_Patience(60.0), LOST, True),
        (_Patience(0.0), STARTING, True),
    ):
        assert patience.lost(loss, progressed=False) == 0.0
        patience.connected(waited=waited)
        assert patience.tried
