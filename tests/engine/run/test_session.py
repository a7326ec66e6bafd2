from __future__ import annotations

from orchestrator.domain.errors import EndpointLost
from orchestrator.engine.run.session import _Losses

LOST = EndpointLost("gone")
STARTING = EndpointLost("still loading", starting=True)


async def test_an_endpoint_that_is_lost_without_progress_is_tried_three_times_with_growing_delays() -> None:
    busy_timeout = _Losses(60.0)
    assert not busy_timeout.tried
    assert [busy_timeout.lost(LOST, progressed=False) for _ in range(3)] == [0.0, 1.0, None]
    assert busy_timeout.tried


async def test_progress_resets_the_count_of_losses() -> None:
    busy_timeout = _Losses(60.0)
    for _ in range(9):
        assert busy_timeout.lost(LOST, progressed=True) == 0.0
        assert not busy_timeout.tried
        assert [busy_timeout.lost(LOST, progressed=False) for _ in range(2)] == [0.0, 1.0]


async def test_an_announced_time_counts_up_to_a_minute_or_up_to_the_startup_timeout() -> None:
    busy_timeout = _Losses(60.0)
    for seconds in (5.0, 60.0, 86_400.0, 5.0):
        loss = EndpointLost("still loading", starting=True, retry_after=seconds)
        assert busy_timeout.lost(loss, progressed=False) == min(seconds, 60.0)
    assert not busy_timeout.tried
    late = _Losses(0.0)
    loss = EndpointLost("still loading", starting=True, retry_after=5.0)
    assert [late.lost(loss, progressed=False) for _ in range(3)] == [0.0, 1.0, None]


async def test_an_endpoint_that_was_starting_as_announced_is_not_blamed() -> None:
    busy_timeout = _Losses(60.0)
    for _ in range(9):
        assert busy_timeout.lost(STARTING, progressed=False) == 0.0
        busy_timeout.connected(waited=True)
        assert not busy_timeout.tried


async def test_an_endpoint_that_answered_at_once_or_took_too_long_was_not_starting() -> None:
    for busy_timeout, loss, waited in (
        (_Losses(60.0), STARTING, False),
        (_Losses(60.0), LOST, True),
        (_Losses(0.0), STARTING, True),
    ):
        assert busy_timeout.lost(loss, progressed=False) == 0.0
        busy_timeout.connected(waited=waited)
        assert busy_timeout.tried
