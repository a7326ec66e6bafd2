"""What a queued run waits for: the success or any end of another run, or of the run that replaces it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.domain.queue import Claim, Submission
from orchestrator.domain.run import Plan, RunState, Spec
from orchestrator.store.queue import latest_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.store import Store

NOW = 1e9


async def process(store: Store) -> int:
    return await store.runs.register(host="h", pid=1, pid_started=0.0, lease=60)


async def submitted(store: Store, job: str, after: Sequence[tuple[int, bool]] = ()) -> int:
    return (await store.queue.submit(Submission(job, {}, ["e"], NOW, after=after)))[0]


async def executed(store: Store, job: str, ends: RunState, *, version: str = "1", claimed: Claim | None = None) -> int:
    """Execute the job to that end and deliver if it finished. Return the number of the run."""
    me = await process(store) if claimed is None else claimed.process_id
    run = await store.runs.take(Spec(job, version, version), me, claimed)
    await store.runs.ingested(run.id, total=0, plan=Plan(), input_sha256=version)
    await store.runs.end(run.id, me, ends)
    if ends is RunState.FINISHED:
        await store.runs.delivered(run.id, me)
    await store.runs.leave(me)
    return run.id


async def claimed(store: Store) -> int | None:
    return await store.queue.claim(await process(store), NOW)


async def test_a_run_that_waits_for_both_success_and_any_end_waits_for_success(store: Store) -> None:
    first = await executed(store, "first", RunState.FAILED)
    for twice in ([True, False], [False, True], [False, False]):
        waiting = await submitted(store, "second", [(first, any_end) for any_end in twice])
        assert await claimed(store) is None
        await store.runs.cancel(waiting)


@pytest.mark.parametrize("how", [RunState.FAILED, RunState.STOPPED, RunState.CANCELLED])
async def test_the_next_run_of_a_job_replaces_an_abandoned_one(store: Store, how: RunState) -> None:
    if how is RunState.CANCELLED:
        first = await submitted(store, "first")
        await store.runs.cancel(first)
    else:
        first = await executed(store, "first", how)
    second = await submitted(store, "second", [(first, False)])
    assert await claimed(store) is None
    third = await executed(store, "first", RunState.FAILED, version="2")
    assert third != first
    assert await claimed(store) is None
    assert [one.waits_for for one in await store.queue.listed(NOW)] == [[third]]
    await executed(store, "first", RunState.FINISHED, version="2")
    assert await claimed(store) == second


async def test_one_run_can_replace_two_required_runs_of_its_job(store: Store) -> None:
    gone = [await submitted(store, "first") for _ in range(2)]
    for number in gone:
        await store.runs.cancel(number)
    second = await submitted(store, "second", [(number, False) for number in gone])
    await executed(store, "first", RunState.FINISHED)
    assert await claimed(store) == second


async def test_a_run_that_waits_for_any_end_does_not_wait_for_the_next_run(store: Store) -> None:
    first = await executed(store, "first", RunState.FAILED)
    second = await submitted(store, "second", [(first, True)])
    await store.runs.take(Spec("first", "2", "2"), await process(store))
    assert await claimed(store) == second


async def test_a_run_of_another_job_replaces_none(store: Store) -> None:
    first = await submitted(store, "first")
    await store.runs.cancel(first)
    await submitted(store, "second", [(first, False)])
    await executed(store, "other", RunState.FINISHED)
    assert await claimed(store) is None


async def test_a_run_that_replaces_earlier_runs_of_its_job_replaces_no_run_of_another(store: Store) -> None:
    first, gone = await submitted(store, "first"), await submitted(store, "other")
    await store.runs.cancel(gone)
    second = await submitted(store, "second", [(first, False)])
    await executed(store, "other", RunState.FINISHED)
    assert {one.id: one.waits_for for one in await store.queue.listed(NOW)} == {first: [], second: [first]}


async def test_a_run_that_replaces_the_run_it_waited_for_does_not_wait_for_itself(store: Store) -> None:
    first = await executed(store, "job", RunState.FINISHED)
    second = await submitted(store, "job", [(first, False)])
    daemon = await process(store)
    assert await store.queue.claim(daemon, NOW) == second
    await store.runs.reopen(first)  # some of its items are to be asked again, but no run does
    taken = await store.runs.take(Spec("job", "2", "2"), daemon, Claim(second, daemon))
    assert taken.id == second
    await store.queue.requeue(Claim(second, daemon), NOW, "why", fruitless=False)
    await store.runs.leave(daemon)
    assert await claimed(store) == second


async def test_the_latest_run_of_a_job_is_the_newest_that_was_not_superseded(store: Store) -> None:
    async def latest(job: str) -> int | None:
        async with store.database.read() as connection:
            return await latest_run(connection, job)

    assert await latest("first") is None
    await executed(store, "first", RunState.FINISHED, version="1")
    second = await executed(store, "first", RunState.STOPPED, version="2")
    assert await latest("first") == second
    await executed(store, "other", RunState.FINISHED)
    third = await executed(store, "first", RunState.FINISHED, version="3")  # supersedes the second
    assert await latest("first") == third
