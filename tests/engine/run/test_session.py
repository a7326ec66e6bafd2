from __future__ import annotations

from orchestrator.domain.errors import EndpointLost
from orchestrator.engine.run.session import _Losses

LOST = EndpointLost("gone")
STARTING = EndpointLost("still loading", starting=True)


async def test_an_endpoint_that_is_lost_in_vain_is_tried_three_times_and_a_little_later_each_time() -> None:
    busy_timeout = _Losses(60.0)
    assert not busy_timeout.tried
    assert [busy_timeout.lost(LOST, progressed=False) for _ in range(3)] == [0.0, 1.0, None]
    assert busy_timeout.tried


async def test_what_was_done_between_makes_up_for_earlier_losses() -> None:
    busy_timeout = _Losses(60.0)
    for _ in range(9):
        assert busy_timeout.lost(LOST, progressed=True) == 0.0
        assert not busy_timeout.tried
        assert [busy_timeout.lost(LOST, progressed=False) for _ in range(2)] == [0.0, 1.0]


async def test_an_endpoint_that_names_its_time_has_it_for_a_minute_at_most_and_while_it_may_take_to_start() -> None:
    busy_timeout = _Losses(60.0)
    for seconds in (5.0, 60.0, 86_400.0, 5.0):
        loss = EndpointLost("still loading", starting=True, retry_after=seconds)
        assert busy_timeout.lost(loss, progressed=False) == min(seconds, 60.0)
    assert not busy_timeout.tried
    late = _Losses(0.0)
    loss = EndpointLost("still loading", starting=True, retry_after=5.0)
    assert [late.lost(loss, progressed=False) for _ in range(3)] == [0.0, 1.0, None]


async def test_nothing_is_held_against_an_endpoint_that_was_starting_as_it_said() -> None:
    busy_timeout = _Losses(60.0)
    for _ in range(9):
        assert busy_timeout.lost(STARTING, progressed=False) == 0.0
        busy_timeout.connected(waited=True)
        assert not busy_timeout.tried


async def test_one_that_was_there_at_once_or_took_too_long_was_not_starting() -> None:
    for busy_timeout, loss, waited in (
        (_Losses(60.0), STARTING, False),
        (_Losses(60.0), LOST, True),
        (_Losses(0.0), STARTING, True),
    ):
        assert busy_timeout.lost(loss, progressed=False) == 0.0
        busy_timeout.connected(waited=waited)
        assert busy_timeout.tried
