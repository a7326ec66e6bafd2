from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.domain.batch import (
    Batch,
    BatchStatus,
    NewBatch,
    Orders,
    check_new,
    end_of,
    is_done,
    orders_of,
    status_of,
    window_seconds,
)
from orchestrator.domain.errors import InvalidBatch
from orchestrator.domain.run import Plan, Run, RunState, Spec

NEW = Batch("batch_1", "ann", "/v1/embeddings", "file-1", "s", "24h", None, None, 0.0, 100.0)
BEGUN = replace(NEW, run_id=1, in_progress_at=1.0, total=3)
CANCELLED = replace(BEGUN, cancelling_at=2.0)


def run(state: RunState, *, holder: int | None = None, due: float | None = None, delivered: float | None = None) -> Run:
    return Run(
        id=1,
        job_id=1,
        job="batch_1",
        state=state,
        spec=Spec("batch_1", "f", "s"),
        plan=Plan(),
        total=3,
        holder=holder,
        rate=None,
        created_at=0.0,
        started_at=0.0,
        finished_at=None,
        error=None,
        due_at=due,
        delivered_at=delivered,
    )


OPEN, DONE = run(RunState.OPEN, holder=1, due=1.0), run(RunState.FINISHED, delivered=5.0)


@pytest.mark.parametrize(
    ("batch", "of", "status"),
    [
        (NEW, None, "validating"),
        (NEW, OPEN, "validating"),
        (BEGUN, OPEN, "in_progress"),
        (BEGUN, DONE, "finalizing"),
        (BEGUN, None, "finalizing"),
        (CANCELLED, OPEN, "cancelling"),
        (replace(CANCELLED, ended_at=3.0, ended_as=BatchStatus.CANCELLED), OPEN, "cancelled"),
    ],
)
def test_the_status_follows_from_the_batch_and_its_run(batch: Batch, of: Run | None, status: str) -> None:
    assert status_of(batch, of) == status


@pytest.mark.parametrize(
    ("state", "holder", "due", "delivered", "done"),
    [
        (RunState.INGESTING, None, 1.0, None, False),
        (RunState.OPEN, None, None, None, False),
        (RunState.FINISHED, 1, 1.0, None, False),
        (RunState.FINISHED, 1, None, 5.0, True),
        (RunState.FAILED, 1, None, None, False),
        (RunState.FAILED, None, 1.0, None, False),
        (RunState.FAILED, None, None, None, True),
        (RunState.STOPPED, None, 9.0, None, False),
        (RunState.CANCELLED, 1, None, None, False),
        (RunState.CANCELLED, None, None, None, True),
    ],
)
def test_a_run_is_done_once_nothing_more_will_be_settled_in_it(
    state: RunState, holder: int | None, due: float | None, delivered: float | None, done: bool
) -> None:
    assert is_done(run(state, holder=holder, due=due, delivered=delivered)) is done


@pytest.mark.parametrize(
    ("batch", "of", "now", "end"),
    [
        (BEGUN, DONE, 200.0, "completed"),
        (CANCELLED, DONE, 50.0, "cancelled"),
        (BEGUN, run(RunState.CANCELLED), 50.0, "cancelled"),
        (BEGUN, run(RunState.CANCELLED), 100.0, "expired"),
        (BEGUN, run(RunState.FAILED), 200.0, "failed"),
        (BEGUN, run(RunState.SUPERSEDED), 50.0, "failed"),
        (BEGUN, None, 50.0, "failed"),
    ],
)
def test_the_end_follows_from_the_run_and_the_window(batch: Batch, of: Run | None, now: float, end: str) -> None:
    assert end_of(batch, of, now) == end


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"endpoint": "/v1/images/edits"}, "endpoint"),
        ({"completion_window": "1y"}, "completion_window"),
        ({"metadata": {"priority": "high"}}, "metadata"),
    ],
)
def test_a_new_batch_is_refused_with_the_field_that_is_wrong(wrong: dict[str, Any], param: str) -> None:
    new = NewBatch("ann", "/v1/embeddings", "file-1")
    check_new(new)
    with pytest.raises(InvalidBatch) as refused:
        check_new(replace(new, **wrong))
    assert refused.value.param == param


def test_windows_are_minutes_hours_or_days() -> None:
    assert [window_seconds(window) for window in ("30m", "24h", "7d")] == [1800.0, 86400.0, 604800.0]


def test_orders_are_read_from_the_metadata_and_other_keys_are_ignored() -> None:
    orders = orders_of({"priority": "-2", "deadline": "8h", "budget": "2.5", "job": "news", "night": "x"})
    assert orders == Orders(-2, "8h", 2.5, "news")
    assert orders_of(None) == orders_of({"tags": ""}) == Orders()


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"priority": "high"}, "metadata: priority 'high' is not a whole number such as 5"),
        ({"priority": ""}, "metadata: priority '' is not a whole number such as 5"),
        ({"budget": "$5"}, "metadata: budget '$5' is not a number of dollars such as 2.50"),
        ({"budget": "-1"}, "metadata: budget '-1' is not a number of dollars such as 2.50"),
        ({"budget": "nan"}, "metadata: budget 'nan' is not a number of dollars such as 2.50"),
    ],
)
def test_an_order_that_cannot_be_meant_is_named_with_what_it_should_be(metadata: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011  # the whole message is compared
        orders_of(metadata)
    assert str(raised.value) == message


def test_jobs_of_two_owners_never_have_one_name() -> None:
    named = [replace(NEW, owner=owner, metadata={"job": job}).job for owner, job in (("a.b", "c"), ("a", "b-c"))]
    assert named == ["batch.a.b.c", "batch.a.b-c"]
    with pytest.raises(ValueError, match="job is a name"):
        orders_of({"job": "b.c"})
