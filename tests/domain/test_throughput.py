from __future__ import annotations

import random
from statistics import stdev

import pytest

from orchestrator.domain.throughput import Throughput


def test_the_rate_is_that_of_the_sums_and_certain_if_all_requests_agree() -> None:
    throughput = Throughput()
    for work in (1.0, 5.0, 20.0):
        throughput.add(work, work / 4)
    assert (throughput.requests, throughput.rate) == (3, 4.0)
    assert throughput.error < 1e-6


def test_the_error_is_the_scatter_of_the_rate_over_many_measurements() -> None:
    rng = random.Random(7)
    measured = [Throughput() for _ in range(400)]
    for throughput in measured:
        for _ in range(50):
            work = rng.uniform(1, 9)
            throughput.add(work, work * rng.uniform(0.5, 1.5))
    assert stdev(one.rate for one in measured) == pytest.approx(sum(one.error for one in measured) / 400, rel=0.1)
