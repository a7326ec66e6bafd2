from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import anyio
import psutil
import pytest
from anyio import to_thread

from orchestrator.domain.attempt import Completed, Discarded, Outcome, RetryLater
from orchestrator.domain.errors import FailureKind, Fenced, RequestFailed, RunStopped, UsageError
from orchestrator.domain.item import ItemState
from orchestrator.domain.run import Plan, RunState, Spec, Tokens
from orchestrator.engine.awake import reaper
from orchestrator.store.items import STRIKES, Settlement
from orchestrator.store.processes import this_host
from orchestrator.store.prune import prune
from orchestrator.store.row_classes import NewItem

if TYPE_CHECKING:
    from orchestrator.store import Store


async def process(store: Store, *, host: str = "elsewhere", pid: int = 1, lease: float = 60.0) -> int:
    return await store.runs.register(host=host, pid=pid, pid_started=0.0, lease=lease)


async def run_of(
    store: Store, process_id: int, rows: int, job: str = "job", sha256: str = "s", chunk: int = 100
) -> int:
    run = await store.runs.take(Spec(job, "f", sha256), process_id)
    items = [NewItem(f"i{number}", "h", '"text"', None) for number in range(rows)]
    chunks = [items[start : start + chunk] for start in range(0, rows, chunk)]
    plan = await store.snapshots.ingest(run.id, run.job_id, 0, chunks) if rows else Plan()
    await store.runs.ingested(run.id, total=rows, plan=plan, input_sha256=sha256)
    return run.id


async def complete_all(
    store: Store,
    run_id: int,
    process_id: int,
    outcome: Completed = Completed('"x"'),  # noqa: B008 - a frozen value
) -> None:
    for part in await store.items.lease(run_id, process_id, 100):
        done = [Settlement(item, outcome, 0.1) for item in part.items]
        await store.items.settle(done, [part.lease])


async def test_the_tokens_of_a_run_are_those_of_its_answers_and_unknown_if_not_counted(store: Store) -> None:
    me = await process(store)
    run_id, other = await run_of(store, me, 4), await run_of(store, me, 2, job="other")
    assert await store.views.tokens(run_id) == Tokens(None, None)
    await complete_all(store, other, me, Completed('"x"', None, 1000, 1000))
    for part in await store.items.lease(run_id, me, 1):
        counted = [Completed('"x"', None, 3, 5), Completed('"x"', None, 4, None), Completed('"x"')]
        done = [Settlement(item, outcome, 0.1) for item, outcome in zip(part.items, counted, strict=False)]
        await store.items.settle(done, [])
    assert await store.views.tokens(run_id) == Tokens(7, 5)


async def test_a_run_is_continued_while_job_and_source_are_the_same(store: Store) -> None:
    me = await process(store)
    first = await run_of(store, me, 3)
    await store.runs.leave(me)
    again = await store.runs.take(Spec("job", "f", "s"), await process(store))
    assert (again.id, again.total) == (first, 3)


@pytest.mark.parametrize(("before", "now", "number"), [("a", "a", 1), ("a", "b", 2), (None, "b", 1)])
async def test_a_run_whose_source_was_read_otherwise_is_not_continued(
    store: Store, before: str | None, now: str, number: int
) -> None:
    """The file is the same, but its rows are others, in another encoding say. Runs of older versions do not tell."""
    me = await process(store)
    about = {} if before is None else {"reads_as": before}
    run = await store.runs.take(Spec("job", "f", "s", about), me)
    await store.runs.ingested(run.id, total=0, plan=Plan(), input_sha256="s")
    await store.runs.leave(me)
    again = await store.runs.take(Spec("job", "f", "s", {"reads_as": now}), await process(store))
    assert again.id == number


@pytest.mark.parametrize("spec", [Spec("job", "changed", "s"), Spec("job", "f", "changed"), Spec("job", "f", None)])
async def test_a_changed_job_or_source_supersedes_an_unfinished_run(store: Store, spec: Spec) -> None:
    me = await process(store)
    first = await run_of(store, me, 3)
    await store.runs.leave(me)
    other = await store.runs.take(spec, await process(store))
    assert other.id != first
    assert (await store.runs.find(str(first))).state is RunState.SUPERSEDED
    assert (await store.runs.find("job")).id == other.id


async def test_a_new_run_supersedes_neither_runs_of_other_jobs_nor_finished_ones(store: Store) -> None:
    me = await process(store)
    ends = {"other": RunState.FAILED, "job": RunState.FINISHED, "job ": RunState.STOPPED}
    numbers = []
    for job, state in ends.items():
        numbers.append(await run_of(store, me, 1, job=job))
        await store.runs.end(numbers[-1], me, state)
    await store.runs.leave(me)
    await store.runs.take(Spec("job", "changed", "s"), await process(store))
    assert [(await store.runs.find(str(number))).state for number in numbers] == list(ends.values())


async def test_a_new_run_with_old_answers_knows_their_tokens(store: Store) -> None:
    me = await process(store)
    first = await run_of(store, me, 40, chunk=1)
    await complete_all(store, first, me, Completed('"x"', None, 3, 5))
    await store.runs.end(first, me, RunState.FINISHED)
    await store.runs.leave(me)
    second = await run_of(store, await process(store), 40, sha256="t", chunk=1)
    assert second != first
    assert await store.items.lease(second, await process(store), 1) == []
    for _ in range(2):
        assert await store.views.tokens(second) == Tokens(40 * 3, 40 * 5)


async def test_discarded_items_are_grouped_by_cause_ignoring_numbers(store: Store) -> None:
    me = await process(store)
    run_id = await run_of(store, me, 7)
    assert await store.views.causes(run_id) == []
    (part,) = await store.items.lease(run_id, me, 1)
    said = ["4413 characters are too many", "4668 characters are too many", "bad input", "9 characters are too many"]
    failures = [Discarded(RequestFailed(FailureKind.REJECTED, text_, status=400)) for text_ in said]
    done: list[Outcome] = [*failures, Completed('"x"')]
    await store.items.settle([Settlement(item, how, 0.1) for item, how in zip(part.items, done, strict=False)])
    assert [(cause.items, cause.message) for cause in await store.views.causes(run_id)] == [(3, said[0]), (1, said[2])]
    assert len(await store.views.causes(run_id, limit=1)) == 1


async def test_a_run_killed_while_ingesting_is_not_continued(store: Store) -> None:
    me = await process(store)
    first = await store.runs.take(Spec("job", "f", "s"), me)
    await store.runs.leave(me)
    assert (await store.runs.take(Spec("job", "f", "s"), await process(store))).id != first.id


async def test_a_run_has_one_holder_whose_identity_others_are_shown(store: Store) -> None:
    await run_of(store, await process(store, host="box/boot", pid=4711), 3)
    with pytest.raises(RunStopped, match="process 4711 on box"):
        await store.runs.take(Spec("job", "f", "s"), await process(store))


async def test_a_silent_process_is_fenced_when_it_returns(store: Store) -> None:
    zombie = await process(store, lease=-1.0)
    run_id = await run_of(store, zombie, 3)
    assert await store.items.lease(run_id, zombie, 1)
    await reaper.reap(store)
    with pytest.raises(Fenced):
        await store.runs.beat(zombie, 60.0, run_id=run_id, rate=None)
    heir = await process(store)
    assert (await store.runs.take(Spec("job", "f", "s"), heir)).id == run_id
    (leased,) = await store.items.lease(run_id, heir, 1)
    assert (leased.lease.token, len(leased.items)) == (2, 3)


async def test_a_process_that_lost_its_lease_fills_only_empty_results(store: Store) -> None:
    zombie, heir = await process(store), await process(store)
    run_id = await run_of(store, zombie, 4)
    (lost,) = await store.items.lease(run_id, zombie, 1)
    await store.items.expire(zombie)
    (leased,) = await store.items.lease(run_id, heir, 1)
    await store.items.settle([Settlement(leased.items[0], Completed('"heir"'), 0.1)])
    failure = RequestFailed(FailureKind.UNAVAILABLE, "busy")
    late: list[Outcome] = [Completed('"zombie"'), RetryLater(0.0, failure), Discarded(failure), Completed('"zombie"')]
    settled = [Settlement(item, outcome, 0.1) for item, outcome in zip(lost.items, late, strict=True)]
    await store.items.settle(settled, [lost.lease])
    async with store.database.read() as connection:
        results = (await connection.execute("SELECT item_key, output FROM result ORDER BY 1")).all()
        attempts = (await connection.execute("SELECT count(*) FROM attempt")).scalar_one()
        chunk = (await connection.execute("SELECT state, holder, token FROM chunk")).one()
    assert [tuple(row) for row in results] == [(leased.items[0].key, '"heir"'), (leased.items[3].key, '"zombie"')]
    assert (attempts, tuple(chunk)) == (0, ("leased", heir, 2))


async def test_chunks_settled_by_others_are_skipped(store: Store) -> None:
    zombie, heir = await process(store), await process(store)
    run_id = await run_of(store, zombie, 3, chunk=1)
    lost = await store.items.lease(run_id, zombie, 2)
    await store.items.expire(zombie)
    for part in lost:
        await store.items.settle([Settlement(part.items[0], Completed('"x"'), 0.1)], [part.lease])
    (leased,) = await store.items.lease(run_id, heir, 1)
    assert [item.id for item in leased.items] == ["i2"]
    await store.items.settle([Settlement(leased.items[0], Completed('"x"'), 0.1)], [leased.lease])
    assert await store.items.lease(run_id, heir, 1) == []
    assert (await store.views.counts(run_id, 3)).completed == 3


async def test_a_dead_process_on_this_machine_is_noticed_at_once(store: Store) -> None:
    async with await anyio.open_process([sys.executable, "-c", "input()"]) as child:
        started = await to_thread.run_sync(lambda: psutil.Process(child.pid).create_time())
        host = await to_thread.run_sync(this_host)
        dead = await store.runs.register(host=host, pid=child.pid, pid_started=started, lease=600)
        await reaper.reap(store)
        assert dead in {known.id for known in await store.runs.living()}
        child.kill()
        await child.wait()
        await reaper.reap(store)
    assert dead not in {known.id for known in await store.runs.living()}


async def test_a_process_here_that_is_silent_for_too_long_is_dead_unless_it_is_the_one_checking(
    store: Store,
) -> None:
    host = await to_thread.run_sync(this_host)
    async with await anyio.open_process([sys.executable, "-c", "input()"]) as child:
        for pid in (os.getpid(), child.pid):
            started = await to_thread.run_sync(lambda pid=pid: psutil.Process(pid).create_time())  # type: ignore[misc]
            await store.runs.register(host=host, pid=pid, pid_started=started, lease=-1.0)
        await store.runs.register(host="elsewhere", pid=os.getpid(), pid_started=started, lease=-1.0)
        await reaper.reap(store)
        child.kill()
    assert [known.pid for known in await store.runs.living()] == [os.getpid()]


async def test_only_the_named_process_is_declared_dead_and_only_without_a_recent_heartbeat(store: Store) -> None:
    one, two, three = [await process(store) for _ in range(3)]
    async with store.database.write() as connection:  # at exactly the same time
        await connection.execute("UPDATE process SET lease_until = 1.0")
    known = {living.id: living for living in await store.runs.living()}
    assert await store.runs.prolong(one, 60.0)
    assert not await store.runs.bury(known[one])
    assert await store.runs.bury(known[two])
    assert {living.id for living in await store.runs.living()} == {one, three}
    assert not await store.runs.bury(known[two])
    assert not await store.runs.prolong(two, 60.0)


async def test_a_reused_pid_is_another_process(store: Store) -> None:
    host = await to_thread.run_sync(this_host)
    await store.runs.register(host=host, pid=os.getpid(), pid_started=1.0, lease=600)
    await reaper.reap(store)
    assert await store.runs.living() == []


async def test_the_item_that_crashes_its_process_is_isolated_and_discarded(store: Store) -> None:
    run_id = await run_of(store, await process(store), 8)
    killer = "i5"
    for _ in range(40):
        me = await process(store)
        leased = await store.items.lease(run_id, me, 1)
        if not leased:
            break
        if any(item.id == killer for part in leased for item in part.items):
            await store.items.expire(me)
        else:
            for part in leased:
                done = [Settlement(item, Completed('"x"'), 0.1) for item in part.items]
                await store.items.settle(done, [part.lease])
    views = [item async for page in store.views.pages(run_id) for item in page]
    assert {item.id: item.state for item in views if item.state is not ItemState.COMPLETED} == {
        killer: ItemState.DISCARDED
    }
    assert f"died {STRIKES} times" in str(next(item.message for item in views if item.id == killer))
    assert (await store.views.counts(run_id, 8)).unfinished == 0


async def test_pruning_deletes_old_runs_and_rows_that_only_they_use(store: Store) -> None:
    me = await process(store)
    old = await run_of(store, me, 2000, job="old")
    kept = await run_of(store, me, 10, job="kept")
    for run_id in (old, kept):
        await complete_all(store, run_id, me)
        await store.runs.end(run_id, me, RunState.FINISHED)
    await store.runs.leave(me)
    async with store.database.write() as connection:
        await connection.execute("UPDATE run SET finished_at = 1 WHERE id = :run", {"run": old})
    size = await pages_of(store)
    assert await prune(store, time.time() - 3600) == (1, 2000)
    assert await pages_of(store) < size
    with pytest.raises(UsageError, match="no run"):
        await store.runs.find(str(old))
    assert (await store.views.counts(kept, 10)).completed == 10


async def pages_of(store: Store) -> int:
    async with store.database.read() as connection:
        return int((await connection.execute("PRAGMA page_count")).scalar_one())


@pytest.mark.parametrize("outcome", [None, "completed", "discarded"])
async def test_a_different_key_order_is_the_same_item_and_the_latest_order_is_asked_until_answered(
    store: Store, outcome: str | None
) -> None:
    mine = await process(store)

    async def ingested(request: str) -> int:
        run = await store.runs.take(Spec("job", request, "s"), mine)
        plan = await store.snapshots.ingest(run.id, run.job_id, 0, [[NewItem("1", "h", request, None)]])
        await store.runs.ingested(run.id, total=1, plan=plan, input_sha256="s")
        return run.id

    first = await ingested('{"a":1,"b":2}')
    if outcome is not None:
        (leased,) = await store.items.lease(first, mine, 1)
        failed = Discarded(RequestFailed(FailureKind.REJECTED, "no"))
        settlement = Settlement(leased.items[0], Completed('"a"') if outcome == "completed" else failed, 0.1)
        await store.items.settle([settlement], [leased.lease])
    await store.runs.leave(mine)
    second = await ingested('{"b":2,"a":1}')
    found = await store.views.item(second, "1")
    assert found is not None
    assert list(found["request"]) == (["a", "b"] if outcome == "completed" else ["b", "a"])  # type: ignore[call-overload]
