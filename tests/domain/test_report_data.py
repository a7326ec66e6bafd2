from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.domain.readings import Reading
from orchestrator.domain.report_data import AwakeWindow, Ran, User
from orchestrator.domain.run import RunState

OWED = AwakeWindow("acme/e", True, None, 1.0, None, None, 2.0, "awake", "running")
RAN = Ran(1, "j", RunState.STOPPED, 1.0, readings=[Reading(2.0, 1), Reading(3.0, 1)])


@pytest.mark.parametrize(
    "other", [replace(OWED, owed=False), replace(OWED, billed_to=3.0), replace(OWED, users=[User(1, None, None)])]
)
def test_a_debt_is_an_owed_pause_of_an_awake_endpoint_without_a_holder(other: AwakeWindow) -> None:
    assert OWED.is_debt
    assert not other.is_debt


def test_a_run_ended_as_recorded_or_when_it_was_left_or_with_its_last_reading() -> None:
    assert replace(RAN, finished_at=9.0, left_at=8.0).ended_at == 9.0
    assert replace(RAN, left_at=8.0).ended_at == 8.0
    assert RAN.ended_at == 3.0
    assert replace(RAN, readings=()).ended_at is None
    assert replace(RAN, finished_at=9.0, executing=True).ended_at is None
