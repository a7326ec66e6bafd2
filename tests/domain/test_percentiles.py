from __future__ import annotations

import math
import random

import pytest

from orchestrator.domain.percentiles import ERROR, PercentileHistogram


def histogram(*durations: float) -> PercentileHistogram:
    found = PercentileHistogram()
    for seconds in durations:
        found.add(seconds)
    return found


@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0])
def test_percentiles_are_within_half_a_percent_of_those_of_the_sorted_durations(spread: float) -> None:
    chance = random.Random(3)
    durations = sorted(chance.lognormvariate(-2.0, spread) for _ in range(20_000))
    found = histogram(*durations)
    for percent in (1, 50, 90, 95, 99, 99.9, 100):
        exact = durations[math.ceil(len(durations) * percent / 100) - 1]
        assert found.percentile(percent) == pytest.approx(exact, rel=ERROR + 1e-9)
    assert (found.number, found.longest) == (20_000, durations[-1])
    assert found.mean == pytest.approx(sum(durations) / 20_000)


def test_memory_does_not_grow_with_the_number_of_durations() -> None:
    chance = random.Random(4)
    found = PercentileHistogram()
    for _ in range(100_000):
        found.add(math.exp(chance.uniform(-20, 20)))
    assert len(found._counts) < 2_800


def test_a_single_duration_is_every_percentile_exactly() -> None:
    assert {histogram(0.123).percentile(percent) for percent in (1, 50, 99)} == {0.123}


def test_nothing_has_no_percentile_and_no_mean() -> None:
    assert (histogram().percentile(50), histogram().mean, histogram().within(1.0)) == (None, None, 0)


def test_what_never_ended_counts_as_longer_than_everything() -> None:
    found = histogram(*[1.0] * 90)
    assert found.percentile(90, beyond=10) == 1.0
    assert found.percentile(91, beyond=10) == math.inf
    assert histogram().percentile(50, beyond=1) == math.inf


def test_within_counts_durations_up_to_a_bound() -> None:
    found = histogram(0.1, 0.2, 0.4, 0.8)
    assert [found.within(bound) for bound in (0.05, 0.1, 0.3, 0.8, 5.0)] == [0, 1, 2, 4, 4]


def test_merged_histograms_have_the_percentiles_of_all_durations() -> None:
    both = histogram(0.1, 0.2).merged(histogram(3.0))
    assert (both.number, both.longest, both.percentile(100)) == (3, 3.0, 3.0)
    assert both.mean == pytest.approx(1.1)
