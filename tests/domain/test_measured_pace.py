from __future__ import annotations

import heapq
import math
import random
from statistics import median
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.estimate import estimated
from orchestrator.domain.measured_pace import FEWEST, MeasuredPace, Sample, Workload, fitted, pace_of

if TYPE_CHECKING:
    from collections.abc import Sequence

BASE, PER_SIZE = 0.3, 0.002  # seconds of service


def answered(
    sizes: Sequence[int],
    slots: int,
    in_flight: int,
    *,
    shared: bool,
    alone: int = 0,
    noise: float = 0.0,
    seed: int = 1,
) -> list[Sample]:
    """Ask a server that works on so many requests at once: the others wait, or (`shared`) all share its work.

    At first, `alone` requests are asked with two in flight.
    """
    chance, samples, coming, now = random.Random(seed), list[Sample](), list(sizes), 0.0
    active, queue = list[tuple[float, float, int]](), list[tuple[float, float, int]]()  # (work left, begun, size)
    while len(samples) < len(sizes):
        while coming:
            asked = len(sizes) - len(coming)
            most = 2 if asked < alone else in_flight if len(samples) >= alone else 0
            if len(active) + len(queue) >= most:
                break
            size = coming.pop(0)
            work = (BASE + PER_SIZE * size) * chance.lognormvariate(0, noise)
            if shared or len(active) < slots:
                heapq.heappush(active, (work, now, size))
            else:
                queue.append((work, now, size))
        pace = min(1.0, slots / len(active)) if shared else 1.0
        work, sent, size = heapq.heappop(active)
        now += work / pace
        active = [(left - work, since, other) for left, since, other in active]
        samples.append(Sample(size, now - sent, now))
        if queue:
            heapq.heappush(active, queue.pop(0))
    return samples


def lengths(number: int, seed: int = 0, factor: float = 1.0) -> list[int]:
    chance = random.Random(seed)
    drawn = [int(chance.lognormvariate(6, 0.8) * factor) for _ in range(number)]
    return [size for at in range(0, number, 500) for size in sorted(drawn[at : at + 500], reverse=True)]


def truth(sizes: Sequence[int], slots: int) -> float:
    return sum(BASE + PER_SIZE * size for size in sizes) / slots


def load(sizes: Sequence[int]) -> Workload:
    return Workload(len(sizes), sum(sizes))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("slots", "in_flight"), [(1, 1), (1, 8), (4, 16), (16, 16), (16, 64), (8, 10)])
def test_an_earlier_run_tells_how_long_one_with_longer_requests_takes(
    slots: int, in_flight: int, *, shared: bool
) -> None:
    pace = pace_of(answered(lengths(1000, factor=0.5), slots, in_flight, shared=shared, noise=0.1))
    assert pace is not None
    assert pace.in_flight == pytest.approx(in_flight, rel=0.05)
    later = lengths(5000, seed=1)
    assert pace.seconds(load(later)) == pytest.approx(truth(later, slots), rel=0.15)


def after_a_canary(rest: Sequence[int], slots: int, *, shared: bool, noise: float = 0.0, seed: int = 1) -> MeasuredPace:
    """The pace of 32 requests spread over these lengths: a quarter of them in pairs, then the others at once."""
    spread = sorted(rest)[78::156]
    first = spread[::4]
    then = sorted((size for number, size in enumerate(spread) if number % 4), reverse=True)
    pace = pace_of(answered(first + then, slots, 24, shared=shared, alone=len(first), noise=noise, seed=seed))
    assert pace is not None
    return pace


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("slots", [1, 2, 4, 8, 16])
def test_a_canary_tells_how_long_the_rest_takes_if_it_reaches_the_knee(slots: int, *, shared: bool) -> None:
    rest = lengths(5000, seed=1)
    pace = after_a_canary(rest, slots, shared=shared)
    assert pace.capped
    assert pace.seconds(load(rest)) == pytest.approx(truth(rest, slots), rel=0.1)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("slots", [2, 4, 8, 16])
def test_a_canary_tells_so_too_if_requests_of_one_length_take_differently_long(slots: int, *, shared: bool) -> None:
    rest = lengths(5000, seed=1)
    varied = [after_a_canary(rest, slots, shared=shared, noise=0.3, seed=seed).seconds(load(rest)) for seed in range(9)]
    assert median(varied) == pytest.approx(truth(rest, slots), rel=0.12)
    assert [one / truth(rest, slots) for one in varied if not 0.7 < one / truth(rest, slots) < 1.3] == []


def test_a_canary_below_the_knee_says_that_more_at_once_would_be_faster() -> None:
    sizes = lengths(32)
    pace = pace_of(answered(sizes, 64, 16, shared=True, alone=8))
    assert pace is not None
    assert not pace.capped
    assert "more at once would be faster" in str(estimated(load(sizes), pace, [], "32 requests of run 1"))


def test_gaps_between_two_parts_of_a_run_are_not_work() -> None:
    samples = answered(lengths(800), 4, 8, shared=False)
    late = [Sample(size, seconds, ended + (3600.0 if ended > 100.0 else 0.0)) for size, seconds, ended in samples]
    whole, parted = pace_of(samples), pace_of(late)
    assert whole is not None
    assert parted is not None
    assert parted.seconds(Workload(1000, 500_000)) == pytest.approx(whole.seconds(Workload(1000, 500_000)), rel=0.15)


def test_requests_of_one_length_have_a_pace_by_number() -> None:
    pace = pace_of(answered([400] * 300, 4, 8, shared=False))
    assert pace is not None
    assert pace.seconds(Workload(10_000, 4_000_000)) == pytest.approx(truth([400] * 10_000, 4), rel=0.05)


def test_too_few_requests_say_nothing() -> None:
    assert pace_of([]) is None
    assert pace_of([Sample(1, 1.0, float(number)) for number in range(FEWEST - 1)]) is None
    assert pace_of([Sample(1, 0.0, float(number)) for number in range(100)]) is None  # answers that took no time


numbers = st.floats(0.001, 1000.0)
samples = st.builds(Sample, st.integers(0, 1_000_000), numbers, st.floats(1e9, 1e9 + 1e6))


@given(st.lists(samples, max_size=200))
def test_a_pace_is_never_negative_nor_infinite(found: list[Sample]) -> None:
    pace = pace_of(found)
    if pace is not None:
        assert 0 <= pace.per_item < math.inf
        assert 0 <= pace.per_size < math.inf
        assert pace.seconds(Workload(10, 1000)) > 0


@given(st.lists(samples, min_size=FEWEST, max_size=150), st.floats(0.01, 100.0))
def test_a_pace_depends_on_the_unit_of_time_alone(found: list[Sample], factor: float) -> None:
    start = min(one.begun for one in found)
    scaled = [Sample(one.size, one.seconds * factor, (one.ended - start) * factor) for one in found]
    one, other = pace_of([Sample(*sample[:2], sample.ended - start) for sample in found]), pace_of(scaled)
    assert one is not None
    assert other is not None
    assert other.latency == pytest.approx(one.latency * factor)


@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=50), numbers, numbers)
def test_a_line_without_noise_is_found(points: list[tuple[float, float]], a: float, b: float) -> None:
    rows = [(x, y, a * x + b * y) for x, y in points]
    p, q = fitted(rows)
    assert p >= 0
    assert q >= 0
    for x, y, z in rows:
        assert p * x + q * y == pytest.approx(z, rel=0.01)


@pytest.mark.parametrize("shared", [False, True])
def test_the_pairs_of_a_long_canary_do_not_count_as_its_pace(*, shared: bool) -> None:
    rest = lengths(5000, seed=1)
    spread = sorted(rest)[39::78]
    first = spread[::4]
    then = sorted((size for number, size in enumerate(spread) if number % 4), reverse=True)
    pace = pace_of(answered(first + then, 16, 32, shared=shared, alone=len(first)))
    assert pace is not None
    assert pace.seconds(load(rest)) == pytest.approx(truth(rest, 16), rel=0.3)
