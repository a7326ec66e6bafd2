from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.domain.run import Counts, Plan, Run, RunState, Spec

QUEUED = Run(7, 1, "j", RunState.OPEN, Spec("j", "f", "s"), Plan(), 0, None, None, 0.0, None, None, None, due_at=5.0)


def test_every_row_is_in_the_plan_and_only_items_without_an_answer_are_asked() -> None:
    plan = Plan(new=1, edited=20, reused=300) + Plan(retry=4_000, discarded=50_000, left_out=600_000)
    assert (plan.total, plan.to_ask) == (654_321, 4_021)
    assert str(plan) == "1 new, 20 edited, 300 reused, 4,000 to retry, 50,000 discarded earlier, 600,000 left out"
    assert str(Plan(new=1)) == "1 new, 0 edited, 0 reused, 0 to retry"


def test_settled_and_unfinished_items_add_up_to_all_items() -> None:
    counts = Counts(total=100, completed=20, discarded=3, leased=7)
    assert (counts.settled, counts.unfinished) == (23, 77)


@pytest.mark.parametrize(
    "other",
    [replace(QUEUED, due_at=None), replace(QUEUED, holder=1), replace(QUEUED, state=RunState.CANCELLED)],
)
def test_a_run_waits_if_it_is_in_the_queue_and_not_executed(other: Run) -> None:
    assert QUEUED.waits
    assert not other.waits


def test_an_incremental_run_with_nothing_new_has_no_output() -> None:
    about = {"output": "out-{job}.jsonl", "incremental": True}
    finished = replace(QUEUED, spec=Spec("j", "f", "s", about), state=RunState.FINISHED)
    assert QUEUED.output is finished.output is None
    for run in (
        replace(finished, total=1),
        replace(finished, state=RunState.OPEN),
        replace(finished, spec=Spec("j", "f", "s", about | {"incremental": False})),
    ):
        assert run.output == "out-j.jsonl"
