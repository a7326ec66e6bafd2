"""The best width of a call is found from throughput alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.worker.budget import BatchBudget

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

TOKENS = 10_000


def tuned(budget: BatchBudget, rate: Callable[[int], float], fits: int = 1 << 40) -> list[int]:
    """Return the budgets tried until it settled, on a device with this many tokens per second for each."""
    tried: list[int] = []
    while not budget.settled:
        assert len(tried) < 500
        tried.append(budget.now)
        if budget.now > fits:
            budget.crowded(budget.now)
        else:
            budget.took(budget.now, TOKENS, TOKENS / rate(budget.now))
    return tried


def test_the_budget_grows_while_throughput_improves() -> None:
    budget = BatchBudget(1000, tune=True)
    tried = tuned(budget, lambda width: min(width, 4000))
    assert (budget.value, max(tried)) == (4000, 8000)


def test_if_wider_is_no_better_narrower_is_tried() -> None:
    budget = BatchBudget(1000, tune=True)
    tuned(budget, lambda width: 1 / max(width, 250))
    assert budget.value == 250


def test_if_nothing_is_better_the_budget_stays() -> None:
    budget = BatchBudget(1000, tune=True)
    tried = tuned(budget, lambda _width: 7.0)
    assert budget.value == 1000
    assert set(tried) == {1000, 2000, 500}


def test_widths_are_tried_alternately_so_that_a_slowing_machine_does_not_mislead() -> None:
    budget, speed = BatchBudget(1000, tune=True), 1e6
    while not budget.settled:
        speed *= 0.9
        budget.took(budget.now, TOKENS, TOKENS / (speed * (1.5 if budget.now == 2000 else 1)))
    assert budget.value == 2000


def test_a_fixed_budget_is_left_alone() -> None:
    budget = BatchBudget(1000)
    budget.took(1000, TOKENS, 1.0)
    assert (budget.now, budget.settled) == (1000, True)


@given(best=st.integers(1, 1 << 20), start=st.sampled_from([16, 1024, 32768]), noise=st.randoms(use_true_random=False))
def test_the_budget_settles_soon_and_near_the_best_on_any_device(best: int, start: int, noise: Random) -> None:
    def rate(width: int) -> float:
        wobble = 1 + 0.02 * noise.random()
        return float(wobble * min(width, best) / max(width, best) ** 0.5)

    budget = BatchBudget(start, tune=True)
    tried = tuned(budget, rate)
    assert 1 <= budget.value <= start * 64
    reachable = min(max(best, 1), start * 64)
    assert budget.value / 2.1 <= reachable <= budget.value * 2.1
    assert len(tried) <= 12 * 22


@given(fits=st.integers(1, 1 << 20), start=st.sampled_from([16, 1024, 32768]))
def test_after_a_batch_that_did_not_fit_no_such_width_is_offered_again(fits: int, start: int) -> None:
    budget = BatchBudget(start, tune=True)
    tuned(budget, float, fits)
    while budget.now > fits:  # if even the first one was too wide
        budget.crowded(budget.now)
    assert 1 <= budget.now <= max(fits, 1)
    assert budget.settled


def test_a_ceiling_set_by_memory_is_permanent() -> None:
    budget = BatchBudget(1000, tune=True)
    budget.crowded(600)
    assert (budget.value, budget.ceiling, budget.settled) == (300, 300, True)
    budget.crowded(1)
    assert budget.value == 1
