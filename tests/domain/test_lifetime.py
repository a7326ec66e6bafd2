"""How long a provider may let a server live, before its own timer ends it."""

from __future__ import annotations

from math import inf

import pytest

from orchestrator.domain.lifetime import lifetime


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [
        ({}, inf),
        ({"budget_left": 600.0}, 780.0),
        ({"closes_in": 3600.0, "budget_left": 7200.0}, 3780.0),
        ({"deadline_in": 1800.0}, 5400.0),
        ({"deadline_in": 1800.0, "budget_left": 60.0}, 240.0),
        ({"deadline_in": -1.0}, inf),  # the run goes on after its deadline
        ({"closes_in": -500.0}, 0.0),
    ],
)
def test_the_first_limit_counts_with_time_to_end(limits: dict[str, float], seconds: float) -> None:
    assert lifetime(**limits) == seconds
