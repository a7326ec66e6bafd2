"""The fraction of time in which the model computes."""

from __future__ import annotations

import pytest

from orchestrator.worker.meter import Meter


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def computed(meter: Meter, clock: Clock, seconds: float, items: int) -> None:
    with meter.computing(items):
        clock.now += seconds


def test_busy_is_the_fraction_of_the_last_ten_seconds_spent_computing(clock: Clock) -> None:
    meter = Meter(clock)
    assert meter.read() == (0.0, 0.0)
    computed(meter, clock, 3.0, 60)
    assert meter.read() == (1.0, 20.0)
    clock.now += 1.0
    assert meter.read() == (0.75, 15.0)
    clock.now += 8.0  # 12 s after it began: one of its three seconds is still in the window
    assert meter.read() == pytest.approx((0.1, 6.0))
    clock.now += 1.0
    assert meter.read() == (0.0, 0.0)


def test_a_running_call_counts_up_to_now(clock: Clock) -> None:
    meter = Meter(clock)
    clock.now += 60.0
    with meter.computing(1):
        clock.now += 5.0
        assert meter.read() == (0.5, 0.0)
        clock.now += 60.0
        assert meter.read() == (1.0, 0.0)


def test_a_failed_call_counts_as_work(clock: Clock) -> None:
    meter = Meter(clock)

    def fail() -> None:
        clock.now += 2.0
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), meter.computing(1):
        fail()
    assert meter.read()[0] == 1.0
