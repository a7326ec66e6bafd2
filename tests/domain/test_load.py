from __future__ import annotations

from itertools import pairwise
from random import Random
from statistics import fmean, pstdev

import pytest

from orchestrator.domain.load import (
    Arrivals,
    Objective,
    OpenLoop,
    Stair,
    arrivals,
    knee,
    most_in_flight,
    next_concurrency,
)


def test_uniform_arrivals_are_evenly_spaced_and_stop_at_the_end() -> None:
    found = list(arrivals(OpenLoop(10, Arrivals.UNIFORM), 1.0, Random(1)))
    assert found == [number / 10 for number in range(10)]


def test_poisson_arrivals_have_the_rate_and_the_spread_of_chance() -> None:
    found = list(arrivals(OpenLoop(50), 400.0, Random(1)))
    gaps = [after - before for before, after in pairwise(found)]
    assert len(found) / 400 == pytest.approx(50, rel=0.03)
    assert pstdev(gaps) / fmean(gaps) == pytest.approx(1.0, rel=0.05)
    assert found == sorted(found)
    assert found[0] == 0.0
    assert found[-1] < 400


def test_an_open_loop_may_have_a_minute_of_arrivals_in_flight_if_this_machine_has_room_for_them() -> None:
    assert most_in_flight(20, None) == 1200
    assert most_in_flight(20, 500) == 500
    assert most_in_flight(0.001, None) == 1


@pytest.mark.parametrize(
    ("text", "objective"),
    [
        ("p95=2s", Objective(95, 2.0)),
        ("p99.9=300ms", Objective(99.9, 0.3)),
        (" p50 = 1m30s ", Objective(50, 90.0)),
    ],
)
def test_objectives_are_read(text: str, objective: Objective) -> None:
    assert Objective.read(text) == objective
    assert Objective.read(str(objective)) == objective


@pytest.mark.parametrize("text", ["", "95=2s", "p95", "p0=2s", "p100=2s", "p95=2", "p95=0s", "p95=-1s", "p95=nanms"])
def test_other_texts_are_no_objectives(text: str) -> None:
    with pytest.raises(ValueError, match="is not an objective such as p95=2s or p99=300ms"):
        Objective.read(text)


def sweep(capacity: float, *, slots: int, most: int | None = None, kept_to: int = 10**9) -> list[Stair]:
    """Sweep a server whose throughput grows with the requests in flight until all its slots are busy."""
    stairs: list[Stair] = []
    while len(stairs) < 50 and (tried := next_concurrency(stairs, most)) is not None:
        stairs.append(Stair(tried, capacity * min(1.0, tried / slots), tried <= kept_to))
    return stairs


def test_a_sweep_doubles_until_more_brings_nothing_and_then_looks_around_the_knee() -> None:
    stairs = sweep(100.0, slots=12)
    assert [stair.concurrency for stair in stairs[:7]] == [1, 2, 4, 8, 16, 32, 64]
    best = knee(stairs)
    assert best is not None
    assert best.concurrency == 12
    assert len(stairs) <= 10


def test_a_sweep_ends_below_the_first_step_that_misses_an_objective() -> None:
    stairs = sweep(100.0, slots=1000, kept_to=10)
    best = knee(stairs)
    assert best is not None
    assert best.concurrency == 8
    assert [stair.concurrency for stair in stairs if not stair.kept] == [16, 12]
    assert max(stair.concurrency for stair in stairs) == 16


def test_a_sweep_has_no_more_in_flight_than_this_machine_has_room_for() -> None:
    assert max(stair.concurrency for stair in sweep(100.0, slots=1000, most=24)) <= 24


def test_the_knee_is_the_least_concurrency_with_nearly_the_best_throughput() -> None:
    stairs = [Stair(1, 10.0), Stair(2, 20.0), Stair(4, 38.0), Stair(8, 39.0), Stair(16, 39.5)]
    assert knee(stairs) == stairs[2]
    assert knee([Stair(1, 10.0), Stair(2, 50.0, kept=False)]) == Stair(1, 10.0)


def test_there_is_no_knee_if_nothing_was_answered_or_no_step_met_the_objectives() -> None:
    assert knee([]) is None
    assert knee([Stair(1, 0.0)]) is None
    assert knee([Stair(1, 5.0, kept=False)]) is None
    assert next_concurrency([Stair(1, 5.0, kept=False)]) is None
