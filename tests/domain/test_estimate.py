from __future__ import annotations

import heapq
import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.charges import UsePrice
from orchestrator.domain.estimate import (
    FEWEST,
    NOTHING_TO_ASK,
    Billing,
    MeasuredPace,
    Sample,
    Usage,
    Workload,
    estimated,
    fitted,
    pace_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

BASE, PER_SIZE = 0.3, 0.002  # seconds of service
PACE = MeasuredPace(0.5, 0.001, 2.0, 8.0, 100)


def answered(
    sizes: Sequence[int], slots: int, in_flight: int, *, shared: bool, alone: int = 0, noise: float = 0.0
) -> list[Sample]:
    """Ask a server that works on so many requests at once: the others wait, or (`shared`) all share its work.

    At first, `alone` requests are asked with two in flight.
    """
    chance, samples, coming, now = random.Random(1), list[Sample](), list(sizes), 0.0
    active, queue = list[tuple[float, float, int]](), list[tuple[float, float, int]]()  # (work left, begun, size)
    while len(samples) < len(sizes):
        while coming:
            asked = len(sizes) - len(coming)
            most = 2 if asked < alone else in_flight if len(samples) >= alone else 0
            if len(active) + len(queue) >= most:
                break
            size = coming.pop(0)
            work = (BASE + PER_SIZE * size) * chance.lognormvariate(0, noise)
            heapq.heappush(active if shared or len(active) < slots else queue, (work, now, size))
        pace = min(1.0, slots / len(active)) if shared else 1.0
        work, sent, size = heapq.heappop(active)
        now += work / pace
        active = [(left - work, since, other) for left, since, other in active]
        samples.append(Sample(size, now - sent, now))
        if queue:
            first = min(queue, key=lambda one: one[1])
            queue.remove(first)
            heapq.heappush(active, first)
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


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("slots", [1, 2, 4, 8, 16])
def test_a_canary_tells_how_long_the_rest_takes_if_it_reaches_the_knee(slots: int, *, shared: bool) -> None:
    rest = lengths(5000, seed=1)
    spread = sorted(rest)[78::156]
    first = spread[::4]
    then = sorted((size for number, size in enumerate(spread) if number % 4), reverse=True)
    pace = pace_of(answered(first + then, slots, 16, shared=shared, alone=len(first)))
    assert pace is not None
    assert pace.capped or slots > 8
    assert pace.seconds(load(rest)) == pytest.approx(truth(rest, slots), rel=0.2)


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


def test_an_estimate_counts_cold_start_and_pause_of_each_endpoint() -> None:
    billing = [Billing("a", 100.0, 1.0, 3.6), Billing("b", 50.0, 0.5, 7.2)]
    found = estimated(Workload(1000, 0), PACE, billing, "100 requests of run 1")
    assert found.seconds == 501.0
    assert found.awake_seconds == pytest.approx(100 + 501 + 50 + 250.5)
    assert found.cost == pytest.approx(0.601 + 0.601)
    assert str(found) == "estimate: about 15.0 min awake, $1.20 (100 requests of run 1, at 8 in flight)"


def test_an_estimate_says_what_is_not_known() -> None:
    unknown = estimated(Workload(1000, 0), PACE, [Billing("a", 0.0, 1.0, 3.6), Billing("b", 0.0, 1.0, None)], "x")
    assert (unknown.awake_seconds, unknown.cost) == (1002.0, None)
    assert unknown.reason == "the price of b is not known: set price_per_hour= on it"
    free = estimated(Workload(1000, 0), PACE, [], "x")
    assert (free.seconds, free.awake_seconds, free.cost) == (501.0, None, None)
    nothing = estimated(Workload(1000, 0), None, [], "")
    assert (nothing.seconds, nothing.awake_seconds, nothing.cost) == (None, None, None)
    assert str(nothing).startswith("estimate: none, no earlier run")


def test_nothing_to_ask_costs_nothing() -> None:
    assert estimated(Workload(), PACE, [Billing("a", 100.0, 1.0, 3.6)], "x") is NOTHING_TO_ASK
    assert PACE.seconds(Workload()) == 0


@pytest.mark.parametrize("shared", [False, True])
def test_the_pairs_of_a_long_canary_do_not_count_as_its_pace(*, shared: bool) -> None:
    rest = lengths(5000, seed=1)
    spread = sorted(rest)[39::78]
    first = spread[::4]
    then = sorted((size for number, size in enumerate(spread) if number % 4), reverse=True)
    pace = pace_of(answered(first + then, 16, 32, shared=shared, alone=len(first)))
    assert pace is not None
    assert pace.seconds(load(rest)) == pytest.approx(truth(rest, 16), rel=0.3)


def test_limits_of_the_policy_make_asking_as_slow_as_they_are() -> None:
    usage = Usage(items_per_request=4, requests_per_minute=10, tokens_per_minute=2000, tokens=(10.0, 30.0))
    assert usage.shortest(Workload(1000, 0)) == pytest.approx(60 * 1000 / 4 / 10)
    assert replace(usage, requests_per_minute=None).shortest(Workload(1000, 0)) == pytest.approx(60 * 1000 * 40 / 2000)
    found = estimated(Workload(1000, 0), PACE, [Billing("a", 100.0, 1.0, 3.6)], "x", usage)
    assert found.seconds == pytest.approx(1500.0)
    assert found.cost == pytest.approx(1.6)
    assert "as slow as the policy's limits" in str(found)
    assert "limits" not in str(estimated(Workload(1000, 0), PACE, [], "x", Usage(requests_per_minute=1e6)))


def test_answers_that_are_charged_are_part_of_the_cost() -> None:
    load, by_request = Workload(1000, 0), Usage(items_per_request=4, price=UsePrice(per_request=0.01))
    assert estimated(load, PACE, [], "x", by_request).cost == pytest.approx(2.5)
    assert estimated(load, PACE, [Billing("a", 0.0, 1.0, 3.6)], "x", by_request).cost == pytest.approx(2.5 + 0.501)
    first = estimated(load, None, [], "", by_request)
    assert (first.cost, first.seconds) == (2.5, None)
    assert str(first).startswith("estimate: $2.50 for answers; no time, no earlier run")
    by_token = Usage(tokens=(10.0, 30.0), price=UsePrice(per_million_tokens=(1.0, 2.0)))
    assert estimated(load, PACE, [], "x", by_token).cost == pytest.approx(1000 * 70 / 1e6)
    for unknown in (replace(by_token, tokens=None), replace(by_request, items_per_request=None)):
        found = estimated(load, PACE, [], "x", unknown)
        assert (found.cost, found.reason) == (None, "what answers will cost cannot be told from earlier ones")
