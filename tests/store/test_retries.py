"""Discarded items of a run are queued to be asked again: all, or those of one cause."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from orchestrator.domain.batch import NewBatch
from orchestrator.domain.errors import Busy, UsageError
from orchestrator.domain.item import ItemState
from orchestrator.domain.queue import Submission
from orchestrator.domain.run import RunState, Spec
from tests.failed_runs import ABOUT, FAILURES, process, run_with_failures

if TYPE_CHECKING:
    from orchestrator.store import Store


async def listed(store: Store, run: int, state: ItemState) -> list[str]:
    return [view.id for view in await store.views.in_state(run, state, -1, 100)]


async def test_a_finished_run_is_due_again_and_a_daemon_claims_it(store: Store) -> None:
    run = await run_with_failures(store)
    assert await store.retries.queue(run.id, time.time()) == (run.id, 3)
    again = await store.runs.find(str(run.id))
    assert (again.state, again.finished_at, again.delivered_at) == (RunState.OPEN, None, None)
    (queued,) = await store.queue.listed(time.time())
    assert (queued.id, list(queued.endpoints)) == (run.id, ["a", "b"])
    assert await store.queue.claim(await process(store), time.time()) == run.id
    assert await listed(store, run.id, ItemState.AVAILABLE) == list(FAILURES)


async def test_only_the_items_of_one_cause_are_asked_again(store: Store) -> None:
    run = await run_with_failures(store)
    assert [view.id for view in await store.views.alike(run.id, "long 2", -1, 100)] == ["long 1", "long 2"]
    assert await store.retries.queue(run.id, time.time(), like="long 2") == (run.id, 2)
    assert await listed(store, run.id, ItemState.AVAILABLE) == ["long 1", "long 2"]
    assert await listed(store, run.id, ItemState.DISCARDED) == ["busy"]
    assert (await store.views.counts(run.id, run.total)).discarded == 1


@pytest.mark.parametrize("like", ["good 1", "nobody"])
async def test_a_cause_is_named_by_an_item_that_was_discarded(store: Store, like: str) -> None:
    run = await run_with_failures(store)
    with pytest.raises(UsageError, match=f"no discarded item '{like}'"):
        await store.retries.queue(run.id, time.time(), like=like)


async def test_a_run_that_asks_items_of_a_cancelled_batch_again_belongs_to_the_owner_of_the_batch(store: Store) -> None:
    batch = await store.batches.add(NewBatch("ann", "/v1/embeddings", "file-x"), reader=None)
    first, _ = await store.queue.submit(Submission(batch.id, {}, ["e"], 1.0, key=batch.id))
    await store.runs.cancel(first)
    again, _ = await store.queue.submit(Submission(batch.id, {}, ["e"], 1.0))
    other, _ = await store.queue.submit(Submission("other", {}, ["e"], 1.0))
    assert [await store.batches.owner_of_run(run) for run in (first, again, other)] == ["ann", "ann", None]


async def test_a_cancelled_run_is_retried_by_a_new_queued_run(store: Store) -> None:
    run = await run_with_failures(store, state=RunState.STOPPED)
    await store.runs.cancel(run.id)
    by, items = await store.retries.queue(run.id, time.time())
    new = await store.runs.find(str(by))
    assert (by > run.id, items, new.state, new.waits) == (True, 3, RunState.INGESTING, True)
    assert new.spec.about == {name: value for name, value in ABOUT.items() if name != "endpoint"}
    assert (await store.runs.find(str(run.id))).state is RunState.CANCELLED


async def test_an_older_run_is_retried_by_the_newer_run_with_its_rows(store: Store) -> None:
    older, newer = await run_with_failures(store), await run_with_failures(store, version="2")
    assert await store.retries.queue(older.id, time.time()) == (newer.id, 3)
    assert (await store.runs.find(str(older.id))).state is RunState.FINISHED


async def test_nothing_is_forgiven_while_the_job_is_executed(store: Store) -> None:
    run = await run_with_failures(store)
    await store.runs.take(Spec("talk", "2", "2", ABOUT), await process(store))
    with pytest.raises(Busy, match="being executed"):
        await store.retries.queue(run.id, time.time())
    async with store.database.read() as connection:
        forgiven = await connection.execute("SELECT count(*) FROM item WHERE forgiven > 0")
        assert forgiven.scalar_one() == 0


@pytest.mark.parametrize("cancelled", [True, False])
async def test_a_second_retry_queues_the_same_run(store: Store, *, cancelled: bool) -> None:
    run = await run_with_failures(store, state=RunState.STOPPED if cancelled else RunState.FINISHED)
    if cancelled:
        await store.runs.cancel(run.id)
    first = await store.retries.queue(run.id, time.time())
    assert await store.retries.queue(run.id, time.time()) == first
    assert len(await store.queue.listed(time.time())) == 1


async def test_a_run_that_no_other_process_could_load_is_refused(store: Store) -> None:
    run = await run_with_failures(store, about={"no_spec": "its request is a function", "endpoint": "a"})
    with pytest.raises(UsageError, match="its request is a function"):
        await store.retries.queue(run.id, time.time())


async def test_items_are_listed_by_state_in_pages(store: Store) -> None:
    run = await run_with_failures(store)
    assert await listed(store, run.id, ItemState.COMPLETED) == ["good 1", "good 2"]
    first, second = await store.views.in_state(run.id, ItemState.DISCARDED, -1, 2)
    assert (first.id, second.id) == ("long 1", "long 2")
    rest = await store.views.in_state(run.id, ItemState.DISCARDED, second.position, 2)
    assert [view.id for view in rest] == ["busy"]
    assert await listed(store, run.id, ItemState.LEASED) == []
