from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from orchestrator.domain.sizing import LARGEST, START, Sizer

if TYPE_CHECKING:
    from collections.abc import Callable

LANES = 4


def settled(sizer: Sizer, seconds: Callable[[int], float], requests: int = 2000) -> int:
    """What it settles on at a server that works on one request after the other, with `LANES` on their way."""
    free, now, on_their_way = 0.0, 0.0, list[tuple[float, float, int]]()
    for _ in range(requests):
        if sizer.settled:
            return sizer.size
        while len(on_their_way) < LANES:
            free = max(free, now) + seconds(sizer.size)
            on_their_way.append((free, now, sizer.size))
            sizer.begin()
        now, begun, size = on_their_way.pop(0)
        sizer.end(size, size, now - begun)
    raise AssertionError("it never settles")


@pytest.mark.parametrize(
    ("per_request", "expected"),
    [(0.0, [START]), (0.01, [64, 128, LARGEST]), (0.1, [LARGEST]), (0.001, [START, 16])],
)
def test_the_size_grows_while_a_request_costs_more_than_its_items(per_request: float, expected: list[int]) -> None:
    assert settled(Sizer(), lambda size: per_request + 0.001 * size) in expected


@pytest.mark.parametrize("seed", range(20))
def test_noise_does_not_prevent_a_good_size(seed: int) -> None:
    draw = random.Random(seed)
    size = settled(Sizer(), lambda size: (0.02 + 0.001 * size) * draw.lognormvariate(0, 0.3))
    assert size >= 64


def test_the_size_stays_within_the_limit_of_the_server() -> None:
    sizer = Sizer()
    sizer.cap(32)
    assert settled(sizer, lambda size: 0.1 + 0.001 * size) == 32
    sizer.cap(20)
    assert (sizer.size, sizer.settled) == (20, True)
    one = Sizer()
    one.cap(1)
    assert (one.size, one.settled) == (1, True)


def test_a_size_found_before_is_used_unchanged() -> None:
    assert (Sizer(48).size, Sizer(48).settled) == (48, True)


def test_a_size_at_which_requests_fail_is_abandoned() -> None:
    sizer = Sizer()
    while sizer.size == START:
        sizer.begin()
        sizer.end(START, 1.0, 0.1)
    for _ in range(3):
        assert (sizer.size, sizer.settled) == (2 * START, False)
        sizer.begin()
        sizer.end(sizer.size, 0, 0.1)
    assert (sizer.size, sizer.settled) == (START, True)
