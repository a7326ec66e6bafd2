"""The counters of chunks follow the results, whichever run and process writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain.attempt import Completed
from orchestrator.domain.run import Counts, Spec, Tokens
from orchestrator.store.items import STRIKES, Settlement
from orchestrator.store.row_classes import NewItem
from tests.store.counters import check_counters

if TYPE_CHECKING:
    from orchestrator.domain.run import Run
    from orchestrator.store import Store
    from orchestrator.store.items import Leased

ANSWER = Completed('"x"', None, 3, None)
ROWS = [NewItem(f"i{number}", "h", "{}", None) for number in range(4)]


async def process(store: Store) -> int:
    return await store.runs.register(host="h", pid=1, pid_started=0.0, lease=60)


async def run_of(store: Store, version: str, chunk: int = len(ROWS)) -> tuple[Run, int]:
    me = await process(store)
    run = await store.runs.take(Spec("job", version, version), me)
    pages = [ROWS[start : start + chunk] for start in range(0, len(ROWS), chunk)]
    plan = await store.snapshots.ingest(run.id, run.job_id, 0, pages)
    await store.runs.ingested(run.id, total=len(ROWS), plan=plan, input_sha256=version)
    return run, me


async def settle(store: Store, leased: Leased, items: int) -> None:
    await store.items.settle([Settlement(item, ANSWER, 0.1) for item in leased.items[:items]])


async def test_a_finished_run_counts_the_answers_of_later_runs(store: Store) -> None:
    earlier, me = await run_of(store, "1")
    await store.runs.cancel(earlier.id)
    await store.runs.leave(me)
    later, me = await run_of(store, "2")
    (leased,) = await store.items.lease(later.id, me, 1)
    await settle(store, leased, 3)
    assert await store.views.counts(earlier.id, 4) == Counts(4, 3, 0, 0)
    assert await store.views.counts(later.id, 4) == Counts(4, 3, 0, 1)
    assert await store.views.tokens(earlier.id) == Tokens(9, None)
    await check_counters(store)


async def test_answers_that_arrive_after_their_lease_was_lost_are_counted(store: Store) -> None:
    run, me = await run_of(store, "1")
    for strikes in range(STRIKES):
        (lost,) = await store.items.lease(run.id, me, 1)
        await store.items.expire(me)
        if strikes == 0:
            await settle(store, lost, 1)
            await check_counters(store)
    await settle(store, lost, 2)  # the chunk was split: its id is gone
    assert await store.views.counts(run.id, 4) == Counts(4, 3, 0, 0)
    await check_counters(store)


async def test_answers_of_two_lost_leases_are_counted_once_if_one_of_the_chunks_was_halved(store: Store) -> None:
    run, me = await run_of(store, "1", chunk=2)
    for _ in range(STRIKES - 1):
        await store.items.lease(run.id, me, 1)
        await store.items.expire(me)
    halved, whole = await store.items.lease(run.id, me, 2)
    await store.items.expire(me)
    await store.items.settle([Settlement(lost.items[0], ANSWER, 0.1) for lost in (halved, whole)])
    assert await store.views.counts(run.id, 4) == Counts(4, 2, 0, 0)
    await check_counters(store)
