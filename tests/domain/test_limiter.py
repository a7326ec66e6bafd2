"""In virtual time, against simulated servers: how near does the limiter come to the best fixed limit for each."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.domain.engine_metrics import EngineSample
from orchestrator.domain.limiter import Limiter
from tests.domain.simulated import SHAPES, Fixed, Run, Shape, simulate

BEST = {  # the best fixed limits, as `python -m bench.limiter` finds them
    "saturating": 64,
    "queueing": 224,
    "fast": 24,
    "one at a time": 4,
    "smooth": 384,
    "linear": 1024,
    "cliff": 64,
    "small cliff": 8,
    "noisy": 128,
    "noisy cliff": 112,
    "refusing": 48,
    "refusing late": 192,
    "bursts": 64,
    "outages": 256,
    "halved": 96,
    "doubled": 96,
    "cliff moves": 64,
    "cap moves": 96,
    "sorted": 64,
    "sorted cliff": 112,
    "sorted cap": 96,
    "sorted, unweighed": 64,
    "slow 32": 32,
    "slow 256": 256,
    "slow cliff": 96,
}


def seeds(name: str) -> tuple[int, ...]:
    return (1, 2) if SHAPES[name].spread > 0.1 else (1,)  # else all runs are much the same


@cache
def fixed(name: str) -> Run:
    return simulate(SHAPES[name], Fixed(BEST[name]))


def best(name: str) -> float:
    return fixed(name).rate()


@cache
def auto(name: str, seed: int) -> tuple[Run, int]:
    """A run of two minutes, or ten, from a cold start, and the best limit that it found."""
    limiter = Limiter()
    return simulate(SHAPES[name], limiter, seed), limiter.best


@pytest.mark.untraced
@pytest.mark.parametrize(
    ("name", "ratio"),
    [
        ("saturating", 0.97),
        ("queueing", 0.95),
        ("fast", 0.97),
        ("one at a time", 0.97),
        ("smooth", 0.92),  # ever more gets done with ever more in flight, and ever more slowly: little time to try
        ("linear", 0.94),  # seven steps of a second or so each
        ("cliff", 0.92),  # that it is there is found out by falling from it
        ("small cliff", 0.88),
        ("noisy", 0.96),
        ("noisy cliff", 0.87),
        ("refusing", 0.93),
        ("refusing late", 0.93),
        ("bursts", 0.91),
        ("outages", 0.90),
        ("halved", 0.95),
        ("doubled", 0.93),
        ("cliff moves", 1.0),  # no fixed limit is good for both halves
        ("cap moves", 0.95),
        ("sorted", 0.95),  # by length, as the engine sorts what it leases
        ("sorted cliff", 0.80),
        ("sorted cap", 0.91),
        ("sorted, unweighed", 0.70),  # told of items instead of their sizes it sees the server change all the time
        ("slow 32", 0.94),
        ("slow 256", 0.83),  # six steps of twenty seconds each are a fifth of the run
        ("slow cliff", 0.80),
    ],
)
def test_it_gets_close_to_the_best_fixed_limit(name: str, ratio: float) -> None:
    rates = [auto(name, seed=seed)[0].rate() for seed in seeds(name)]
    assert min(rates) >= ratio * best(name), [rate / best(name) for rate in rates]


@pytest.mark.parametrize(
    "name",
    ["saturating", "queueing", "fast", "smooth", "linear", "cliff", "noisy", "refusing", "refusing late", "halved"],
)
def test_it_reaches_four_fifths_of_the_throughput_after_ten_seconds(name: str) -> None:
    for seed in seeds(name):
        assert auto(name, seed=seed)[0].rate(10, 20) >= 0.8 * fixed(name).rate(20, 60)


@pytest.mark.parametrize(
    ("name", "ratio"),
    [("slow 256", 0.95), ("slow cliff", 0.9), ("cliff", 0.95), ("small cliff", 1.0), ("smooth", 0.95)],
)
def test_starting_at_the_best_limit_of_the_last_run_is_better(name: str, ratio: float) -> None:
    first, found = auto(name, seed=1)
    second = simulate(SHAPES[name], Limiter(found, remembered=True), 2).rate()
    assert second >= max(first.rate(), ratio * best(name)), second / best(name)


@pytest.mark.parametrize("start", [100, 150, 200])
def test_a_start_that_is_much_too_high_is_corrected(start: int) -> None:
    run = simulate(SHAPES["cliff"], Limiter(start), 1)
    assert run.rate(60) >= 0.8 * best("cliff")  # slowly: collapsed, it answers sixteen a second


def test_a_small_cap_is_not_hit_again_and_again() -> None:
    shape = Shape("cap of ten", lambda n, _: float(n), cap=lambda _: 10, spread=0.3)
    run = simulate(shape, Limiter(), 1)
    assert run.refused <= 20
    assert run.rate() >= 0.9 * simulate(shape, Fixed(10), 1).rate()


@pytest.mark.parametrize("seed", range(6))
def test_a_few_quick_answers_do_not_end_the_ramp(seed: int) -> None:
    shape = Shape("very noisy", lambda n, _: float(n), spread=1.0, seconds=30)
    limiter = Limiter(most=256)
    simulate(shape, limiter, seed)
    assert limiter.best >= 128


def test_an_unlimited_queue_is_not_filled() -> None:
    run, found = auto("saturating", seed=1)
    assert max(limit for _, limit in run.limits) <= 4 * 64
    assert found <= 2 * 64


def test_a_server_that_refuses_gets_few_refused_requests() -> None:
    for name in ("refusing", "refusing late"):
        run, _ = auto(name, seed=1)
        assert run.refused <= 0.02 * sum(run.completed)


def test_if_the_server_reports_its_queue_the_limit_stays_near_its_slots() -> None:
    limiter = Limiter()
    shape = Shape("watched", lambda n, _: float(n), slots=64, spread=0.3)
    run = simulate(shape, limiter, 1, watched=True)
    assert limiter.best <= 80
    assert run.rate(30) >= 0.8 * 64


# -- one rule at a time ------------------------------------------------------------------------------------------------


def in_flight(limiter: Limiter, count: int, now: float = 0.0) -> None:
    for _ in range(count):
        limiter.begin(now)


def turnover(limiter: Limiter, now: float, seconds: float = 1.0) -> float:
    """All that may be in flight begin, and end a latency later."""
    in_flight(limiter, limiter.limit - limiter.in_flight, now)
    for _ in range(limiter.in_flight):
        limiter.end(now + seconds, now)
    return now + seconds


def test_from_a_low_start_the_second_limit_is_sixteen_or_half_of_that_if_it_hurts() -> None:
    limiter = Limiter(4)
    now = turnover(limiter, 0.0)
    assert limiter.limit == 16
    begun = limiter.in_flight
    in_flight(limiter, 16 - begun, now)
    for _ in range(8):
        limiter.end(now + 20, now)
    assert (limiter.limit, limiter.best) == (8, 4)


def test_the_limit_doubles_while_throughput_rises() -> None:
    limiter, now, limits = Limiter(16, most=200), 0.0, []
    for _ in range(5):
        now = turnover(limiter, now)
        limits.append(limiter.limit)
    assert limits[:4] == [32, 64, 128, 200]
    assert [reason.limit for reason in limiter.reasons][:4] == limits[:4]


def test_a_limit_that_is_not_reached_is_not_measured() -> None:
    limiter, now = Limiter(16), 0.0
    for _ in range(20):
        in_flight(limiter, 8, now)
        for _ in range(8):
            limiter.end(now + 1, now)
        now += 1
    assert limiter.limit == 16


def test_a_burst_of_refusals_causes_one_cut() -> None:
    limiter = Limiter(100)
    in_flight(limiter, 100)
    for _ in range(50):
        limiter.reject(0.1, 0.0)
    assert limiter.limit == 80
    in_flight(limiter, 30, 0.2)
    limiter.reject(0.3, 0.2)
    assert limiter.limit < 80


def test_the_limit_does_not_grow_while_the_server_asks_to_wait() -> None:
    limiter, now = Limiter(16), 0.0
    in_flight(limiter, 16)
    limiter.reject(0.1, 0.0, wait=30.0)
    cut = limiter.limit
    while now < 25:
        now = turnover(limiter, now)
        assert limiter.limit <= cut
    while now < 40:
        now = turnover(limiter, now)
    assert limiter.limit > cut


def test_many_failures_invalidate_a_measurement_and_a_few_do_not() -> None:
    for failures, grows in ((8, False), (1, True)):
        limiter, now = Limiter(16), 0.0
        for _ in range(6):
            begun = limiter.limit
            in_flight(limiter, begun, now)
            for place in range(begun):
                (limiter.fail if place % 16 < failures else limiter.end)(now + 1, now)
            now += 1
        assert (limiter.limit > 16) is grows


def test_it_cuts_once_when_the_engine_preempts_until_the_excess_has_drained() -> None:
    limiter = Limiter(100)
    in_flight(limiter, 100)
    limiter.observe(1.0, EngineSample(0.85, 0, 100, 0))
    limiter.observe(2.0, EngineSample(0.97, 0, 100, 4))
    assert limiter.limit == 80
    limiter.observe(3.0, EngineSample(0.97, 0, 100, 9))
    assert limiter.limit == 80


def test_it_cuts_when_the_queue_at_the_server_stays_long() -> None:
    limiter = Limiter(100)
    in_flight(limiter, 100)
    for second in range(5):
        limiter.observe(second, EngineSample(0.5, 60, 40, 0))
    assert limiter.limit == 100
    limiter.observe(6, EngineSample(0.5, 60, 40, 0))
    assert limiter.limit == 90


def test_the_limit_does_not_grow_while_the_engine_reports_that_it_is_full() -> None:
    limiter, now = Limiter(16), 0.0
    for _ in range(30):
        limiter.observe(now, EngineSample(0.85, 0, 16, 0))
        now = turnover(limiter, now)
        assert limiter.limit <= 16
    for _ in range(40):
        now = turnover(limiter, now)
    assert limiter.limit > 16


def test_impossible_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="1 <= least <= most"):
        Limiter(least=5, most=4)


# -- whatever happens --------------------------------------------------------------------------------------------------

_EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "end", "end", "end", "fail", "reject", "observe"]),
        st.floats(0, 2),  # seconds since the last
        st.floats(0, 1),  # kv cache
        st.integers(0, 100),
    ),
    max_size=300,
)


@settings(max_examples=100)
@given(_EVENTS, st.integers(0, 300), st.integers(1, 20), st.integers(0, 200))
def test_the_limit_stays_within_its_bounds(
    events: list[tuple[str, float, float, int]], start: int, least: int, more: int
) -> None:
    limiter = Limiter(start, least, least + more)
    now, open_ = 0.0, [0.0]
    limiter.begin(0.0)
    for kind, seconds, share, number in events:
        now += seconds
        if kind == "observe":
            limiter.observe(now, EngineSample(share, number, 50, number))
        elif kind == "begin" or not open_:
            while limiter.in_flight < limiter.limit:
                limiter.begin(now)
                open_.append(now)
        else:
            begun = open_.pop(number % len(open_))
            {"end": limiter.end, "fail": limiter.fail, "reject": limiter.reject}[kind](now, begun)
        assert least <= limiter.limit <= least + more
        assert limiter.in_flight == len(open_)


@settings(max_examples=100)
@given(_EVENTS)
def test_without_answers_the_limit_does_not_grow(events: list[tuple[str, float, float, int]]) -> None:
    limiter, now, open_ = Limiter(16), 0.0, [0.0]
    limiter.begin(0.0)
    for kind, seconds, share, number in events:
        now += seconds
        before = limiter.limit
        if kind == "observe":
            limiter.observe(now, EngineSample(share, number, 50, number))
        elif kind == "reject" and open_:
            limiter.reject(now, open_.pop())
        elif kind == "fail" and open_:
            limiter.fail(now, open_.pop())
        else:
            limiter.begin(now)
            open_.append(now)
        assert limiter.limit <= before


@pytest.mark.untraced
@settings(max_examples=20)
@given(st.floats(0.02, 100), st.floats(0, 0.6), st.integers(1, 100), st.integers(0, 1000))
def test_for_any_latency_and_knee_the_limit_keeps_the_server_busy(
    latency: float, spread: float, knee: int, seed: int
) -> None:
    shape = Shape("any", lambda n, _: min(n, knee) / latency, spread=spread, seconds=max(2, int(60 * latency)))
    limiter = Limiter(most=512)
    simulate(shape, limiter, seed)
    assert limiter.best >= knee / 2
