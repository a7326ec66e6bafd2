"""Retention: what is deleted, what is kept, and how short its steps are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import to_thread

from orchestrator.domain.attempt import Completed
from orchestrator.domain.batch import BatchStatus, NewBatch
from orchestrator.domain.queue import Submission
from orchestrator.domain.run import RunState, Spec
from orchestrator.engine.batches.files import opened_blob
from orchestrator.store import prune
from orchestrator.store.batches import BatchOutcome
from orchestrator.store.items import Settlement
from orchestrator.store.prune import Pruned, retain, retain_daily
from orchestrator.store.row_classes import NewItem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.store import Store
    from orchestrator.store.connection import BlockingConnection

DAY = 86400.0
NOW = 1000 * DAY
KEEP = 90 * DAY
EVERY_TABLE = [
    "run",
    "job",
    "item",
    "member",
    "charge",
    "chunk",
    "result",
    "attempt",
    "ask",
    "ask_total",
    "reading",
    "running_total",
    "uses",
    "wait",
    "schedule",
    "slot",
    "broken_file",
    "delivered_item",
    "awake_window",
    "hold",
    "process",
    "tuning",
    "upkeep",
    "file",
    "upload",
    "upload_part",
    "batch",
    "alembic_version",
    "sqlite_sequence",
]


async def ran(
    store: Store,
    days_ago: float,
    *items: str,
    job: str = "job",
    state: RunState = RunState.FINISHED,
    limit: int | None = None,
    output: str = '"x"',
) -> int:
    """Create a run of these items that ended so long ago; return its number."""
    me = await store.runs.register(host="h", pid=1, pid_started=0.0, lease=60)
    run = await store.runs.take(Spec(job, f"{days_ago}", None, {"limit": limit}), me)
    rows = [NewItem(name, "h", '"text"', None) for name in items]
    plan = await store.snapshots.ingest(run.id, run.job_id, 0, [rows])
    await store.runs.ingested(run.id, total=len(items), plan=plan, input_sha256="s")
    for part in await store.items.lease(run.id, me, 100):
        done = [Settlement(item, Completed(output), 0.1) for item in part.items]
        await store.items.settle(done, [part.lease])
    if state is RunState.CANCELLED:
        await store.runs.cancel(run.id)
    else:
        await store.runs.end(run.id, me, state)
    await store.runs.leave(me)
    await change(
        store,
        "UPDATE run SET finished_at = :at WHERE id = :run AND finished_at IS NOT NULL",
        run=run.id,
        at=NOW - days_ago * DAY,
    )
    await change(
        store, "UPDATE process SET started_at = :at, lease_until = :at WHERE id = :me", me=me, at=NOW - days_ago * DAY
    )
    return run.id


async def change(store: Store, sql: str, **values: object) -> None:
    async with store.database.write() as connection:
        await connection.execute(sql, values)


async def column(store: Store, sql: str, **values: object) -> list[Any]:
    async with store.database.read() as connection:
        return list((await connection.execute(sql, values)).scalars())


async def runs_of(store: Store) -> list[int]:
    return await column(store, "SELECT id FROM run ORDER BY id")


@pytest.fixture(autouse=True)
async def no_reference_dangles(store: Store) -> Any:
    yield
    assert await column(store, "PRAGMA foreign_key_check") == []
    assert await column(store, "PRAGMA quick_check") == ["ok"]


async def test_every_table_is_covered(store: Store) -> None:
    assert sorted(await column(store, "SELECT name FROM sqlite_master WHERE type = 'table'")) == sorted(EVERY_TABLE)


async def test_an_old_run_is_deleted_with_rows_that_only_it_uses(store: Store) -> None:
    old = await ran(store, 200, "a", "b")
    recent = await ran(store, 100, "b", "c")
    assert await retain(store, KEEP, NOW) == Pruned(1, 1, 2)
    assert await runs_of(store) == [recent] != [old]
    assert await column(store, "SELECT item_id FROM item ORDER BY 1") == ["b", "c"]
    assert await column(store, "SELECT count(*) FROM result") == [2]
    assert (await store.views.counts(recent, 2)).completed == 2


async def asked(store: Store, item: str, asks: int = 2) -> None:
    sql = """
    INSERT INTO ask (job_id, item_id, hash, nth, number, request, outcome, answer)
    SELECT 1, :item, randomblob(16), 0, value, '"q"', 'completed', '"a"' FROM json_each(:numbers)
    """
    await change(store, sql, item=item, numbers=str(list(range(1, asks + 1))))


async def test_the_asks_of_an_item_are_deleted_with_its_last_version_and_totals_with_their_run(store: Store) -> None:
    old = await ran(store, 200, "a", "b")
    recent = await ran(store, 100, "b", "c")
    for item in ("a", "b", "c"):
        await asked(store, item)
    await change(store, "INSERT INTO item (job_id, item_id, hash) VALUES (1, 'a', 'edited')")
    for run in (old, recent):
        total = "INSERT INTO ask_total (run_id, endpoint, step, asks, discarded, retried, seconds) "
        await change(store, f"{total} VALUES (:run, 'writer', '', 2, 0, 0, 0.5)", run=run)
    await retain(store, KEEP, NOW)
    assert await column(store, "SELECT item_id FROM ask ORDER BY key") == ["a", "a", "b", "b", "c", "c"]
    assert await column(store, "SELECT run_id FROM ask_total") == [recent]
    await change(store, "DELETE FROM item WHERE hash = 'edited'")
    await ran(store, 300, "a", "d")
    await asked(store, "d")
    await ran(store, 99, "b", "c")
    await retain(store, KEEP, NOW)
    assert await column(store, "SELECT DISTINCT item_id FROM ask ORDER BY 1") == ["b", "c"]


async def test_a_pruning_step_deletes_only_a_few_items_with_many_asks(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ran(store, 300, *(f"{number}" for number in range(20)))
    await ran(store, 100, "latest")
    for number in range(20):
        await asked(store, f"{number}", 150)
    watched = Watched(store, monkeypatch)
    assert (await retain(store, KEEP, NOW)).items == 20
    assert await column(store, "SELECT count(*) FROM ask") == [0]
    assert max(watched.deleted) <= prune.MOST + 3 * 20


async def test_a_recent_run_is_kept(store: Store) -> None:
    runs = [await ran(store, 89, "a"), await ran(store, 88, "b")]
    assert await retain(store, KEEP, NOW) == Pruned()
    assert await runs_of(store) == runs


async def test_the_latest_answers_of_every_job_are_kept_at_any_age(store: Store) -> None:
    kept = [await ran(store, 900, "a", job="one"), await ran(store, 800, "b", job="two")]
    assert (await retain(store, KEEP, NOW)).runs == 0
    assert await runs_of(store) == kept


async def test_a_later_limited_run_does_not_cost_a_job_its_answers(store: Store) -> None:
    whole = await ran(store, 300, "a", "b", "c")
    limited = [await ran(store, 200, "a", limit=1), await ran(store, 150, "a", limit=1)]
    assert (await retain(store, KEEP, NOW)).runs == 1
    assert await runs_of(store) == [whole, limited[1]]
    assert await column(store, "SELECT count(*) FROM result") == [3]


async def test_a_later_cancelled_run_does_not_cost_a_job_its_answers(store: Store) -> None:
    finished = await ran(store, 300, "a", "b")
    cancelled = await ran(store, 200, "a", "c", state=RunState.CANCELLED)
    assert (await retain(store, KEEP, NOW)).runs == 0
    assert await runs_of(store) == [finished, cancelled]


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.STOPPED])
async def test_an_unfinished_run_is_kept(store: Store, state: RunState) -> None:
    first = await ran(store, 500, "a", state=state)
    await change(store, "UPDATE run SET created_at = 1")
    assert (await retain(store, KEEP, NOW)).runs == 0
    assert await runs_of(store) == [first]


async def test_a_run_that_is_queued_held_or_required_is_kept(store: Store) -> None:
    me = await store.runs.register(host="h", pid=1, pid_started=0.0, lease=60)
    queued, taken, awaited, gone = [await ran(store, 500 - number, "a") for number in range(4)]
    latest = await ran(store, 100, "a")
    await change(store, "UPDATE run SET due_at = 1 WHERE id = :run", run=queued)
    await change(store, "UPDATE run SET holder = :me WHERE id = :run", run=taken, me=me)
    waiting, _ = await store.queue.submit(Submission("other", {}, ["e"], NOW, after=[(awaited, False)]))
    assert (await retain(store, KEEP, NOW)).runs == 1
    assert await runs_of(store) == [queued, taken, awaited, latest, waiting]
    assert gone not in await runs_of(store)


@pytest.mark.parametrize("taken", ["holder = 1", "due_at = 1", "finished_at = 1e12"])
async def test_a_run_that_continues_just_after_pruning_has_found_it_is_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch, taken: str
) -> None:
    run, found = await ran(store, 500, "a"), prune._Pruning._found

    async def found_before(self: prune._Pruning, which: str, values: dict[str, object]) -> list[Any]:
        rows = await found(self, which, values)
        await change(store, f"UPDATE run SET {taken} WHERE id = :run", run=run)
        return rows

    monkeypatch.setattr(prune._Pruning, "_found", found_before)
    assert await prune.prune(store, NOW) == (0, 0)
    assert await runs_of(store) == [run]
    assert await column(store, "SELECT state FROM run") == ["finished"]


async def of_batch(store: Store, days_ago: float, *, job: str | None = None, ended: bool = True) -> int:
    """Create a run of a batch that ended so long ago; return its number."""
    batch = await store.batches.add(NewBatch("ann", "/v1/embeddings", "file-x"), reader=None)
    run = await ran(store, days_ago, "a", "b", job=job or batch.id)
    await change(store, "UPDATE run SET key = :key WHERE id = :run", key=batch.id, run=run)
    if ended:
        async with opened_blob(store) as output:
            await to_thread.run_sync(output.write, f"{run}".encode())
            await to_thread.run_sync(output.sync)
            await store.batches.end(batch, BatchStatus.COMPLETED, BatchOutcome(2, 0, output=output))
        await change(store, "UPDATE batch SET ended_at = :at WHERE id = :id", at=NOW - days_ago * DAY, id=batch.id)
    return run


async def test_the_run_of_a_batch_goes_with_its_job_files_and_contents_unless_the_batch_needs_it(store: Store) -> None:
    await of_batch(store, 200)
    kept = [await of_batch(store, 200, ended=False), await of_batch(store, 89)]
    await store.files.begin_upload(
        owner="ann", bytes_=1, filename="a", purpose="batch", mime_type="text/plain", expires_after=None
    )
    await change(store, "UPDATE upload SET state = 'expired', expires_at = :at", at=NOW - 200 * DAY)
    assert (await retain(store, KEEP, NOW)).runs == 1
    assert await runs_of(store) == kept
    assert await column(store, "SELECT count(*) FROM batch") == [2]
    assert await column(store, "SELECT count(*) FROM job") == [2]
    assert await column(store, "SELECT count(*) FROM upload") == [0]
    assert await to_thread.run_sync(store.files.blobs.contents) == await column(store, "SELECT sha256 FROM file")
    assert await column(store, "SELECT count(*) FROM file") == [1]
    assert await prune.prune(store, NOW) == (1, 2)
    assert await runs_of(store) == kept[:1]


async def test_the_answers_of_a_job_that_batches_share_are_kept_at_any_age(store: Store) -> None:
    await of_batch(store, 300, job="batch.ann.news")
    kept = await of_batch(store, 200, job="batch.ann.news")
    assert (await retain(store, KEEP, NOW)).runs == 1
    assert await runs_of(store) == [kept]


async def test_a_run_whose_key_is_the_name_of_its_job_keeps_the_answers_of_the_job(store: Store) -> None:
    run = await ran(store, 300, "a", job="night")
    await change(store, "UPDATE run SET key = 'night' WHERE id = :run", run=run)
    assert (await retain(store, KEEP, NOW)).runs == 0
    assert await runs_of(store) == [run]


async def test_retention_leaves_what_somebody_else_put_into_the_folder_of_files(store: Store) -> None:
    await of_batch(store, 200)
    note = store.database.path.with_name(f"{store.database.path.name}.files") / "note.txt"
    await to_thread.run_sync(note.write_text, "mine")
    await retain(store, KEEP, NOW)
    assert await to_thread.run_sync(lambda: list(note.parent.iterdir())) == [note]


async def test_a_batch_outlives_its_pruned_run(store: Store) -> None:
    run = await of_batch(store, 10)
    assert (await prune.prune(store, NOW))[0] == 1
    assert run not in await runs_of(store)
    (found,), _ = await store.batches.listed("ann", limit=10)
    assert (found.status, found.run, found.completed) == (BatchStatus.COMPLETED, None, 2)


async def test_rows_that_refer_to_a_run_are_deleted_with_it(store: Store) -> None:
    old = await ran(store, 200, "a")
    waited, _ = await store.queue.submit(Submission("other", {}, ["e"], 1.0, after=[(old, True)]))
    await change(
        store,
        "UPDATE run SET state = 'cancelled', finished_at = :at, due_at = NULL WHERE id = :run",
        run=waited,
        at=NOW,
    )
    await change(store, "INSERT INTO uses VALUES (:run, 'e')", run=old)
    await change(
        store,
        "INSERT INTO reading (run_id, at, process_id, completed, discarded, requests, in_flight) "
        "SELECT :run, value, 1, 0, 0, 0, 0 FROM json_each('[1, 2, 3]')",
        run=old,
    )
    await ran(store, 100, "a")
    assert (await retain(store, KEEP, NOW)).runs == 1
    for table in ("reading", "wait"):
        assert await column(store, f"SELECT count(*) FROM {table}") == [0]
    assert await column(store, "SELECT run_id FROM uses") == [waited]


async def test_old_readings_of_a_kept_run_are_deleted(store: Store) -> None:
    run = await ran(store, 500, "a")
    for at in (NOW - 91 * DAY, NOW - 89 * DAY):
        sql = "INSERT INTO reading (run_id, at, process_id, completed, discarded, requests, in_flight) "
        await change(store, f"{sql}VALUES (:run, :at, 1, 0, 0, 0, 0)", run=run, at=at)
    assert (await retain(store, KEEP, NOW)).others == 1
    assert await column(store, "SELECT at FROM reading") == [NOW - 89 * DAY]


async def test_schedule_decisions_are_kept_for_their_window_and_at_least_ninety_days(store: Store) -> None:
    for job, window in (("short", 3600.0), ("long", 200 * DAY)):
        await change(
            store,
            "INSERT INTO schedule (job, jobfile, about, endpoints, source, cron, tz, overlap, catch_up,"
            " catch_up_window, jitter) VALUES (:job, 'f', '{}', '[]', 'file', '* * * * *', 'UTC', 'skip', 'latest',"
            " :window, 0.0)",
            job=job,
            window=window,
        )
    for days in (89, 91, 199, 201):
        await change(store, "INSERT INTO slot SELECT id, :at, 'missed', NULL, :at FROM schedule", at=NOW - days * DAY)
    assert (await retain(store, DAY, NOW)).others == 4
    kept = await column(store, "SELECT CAST((:now - slot) / 86400 AS INTEGER) FROM slot ORDER BY 1", now=NOW)
    assert kept == [89, 89, 91, 199]


@pytest.mark.parametrize(("keep", "stay"), [(90, [1, 2]), (500, [1, 2, 3]), (700, [1, 2, 3, 4])])
async def test_costs_and_tuned_values_are_kept_as_long_as_everything_else_if_that_is_longer(
    store: Store, keep: int, stay: list[int]
) -> None:
    for number, days in enumerate((1, 399, 401, 600), 1):
        values: dict[str, object] = {"id": number, "name": f"e{number}", "at": NOW - days * DAY}
        await change(
            store,
            "INSERT INTO awake_window (id, endpoint, pause_with, state, opened_at, closed_at) "
            "VALUES (:id, :name, '{}', 'closed', :at, :at)",
            **values,
        )
        await change(
            store, "INSERT INTO tuning (shape, concurrency, at) VALUES (:id, 1, :at)", id=number, at=values["at"]
        )
    await retain(store, keep * DAY, NOW)
    assert await column(store, "SELECT id FROM awake_window ORDER BY id") == stay
    assert await column(store, "SELECT CAST(shape AS INTEGER) FROM tuning ORDER BY 1") == stay


async def test_costs_are_kept_for_four_hundred_days_and_an_open_window_forever(store: Store) -> None:
    me = await store.runs.register(host="h", pid=1, pid_started=0.0, lease=60)
    await change(store, "UPDATE process SET state = 'ended', lease_until = 1, started_at = 1")
    for number, (days, state) in enumerate([(399, "closed"), (401, "closed"), (600, "open")], 1):
        at = NOW - days * DAY
        await change(
            store,
            "INSERT INTO awake_window (id, endpoint, pause_with, state, opened_at, closed_at) "
            "VALUES (:id, :name, '{}', :state, :at, :closed)",
            id=number,
            name=f"e{number}",
            state=state,
            at=at,
            closed=at if state == "closed" else None,
        )
        await change(store, "INSERT INTO hold (window_id, process_id, since) VALUES (:id, :me, 1)", id=number, me=me)
    assert (await retain(store, KEEP, NOW)).others == 2
    assert await column(store, "SELECT id FROM awake_window ORDER BY id") == [1, 3]
    assert await column(store, "SELECT id FROM process") == [me]


async def test_a_process_is_deleted_when_nothing_refers_to_it(store: Store) -> None:
    for _ in range(3):
        await store.runs.register(host="h", pid=1, pid_started=0.0, lease=60)
    await change(store, "UPDATE process SET state = iif(id = 1, 'live', 'dead'), lease_until = 1, started_at = 1")
    await change(store, "UPDATE process SET lease_until = :at WHERE id = 3", at=NOW)
    assert await retain(store, KEEP, NOW) == Pruned(0, 0, 1)
    assert await column(store, "SELECT id FROM process") == [1, 3]


async def test_rows_delivered_before_a_job_became_incremental_stay_known(store: Store) -> None:
    old = await ran(store, 300, "a", "b")
    await change(store, "UPDATE run SET delivered_at = 1 WHERE id = :run", run=old)
    new = await ran(store, 200, "b")
    await change(store, "UPDATE run SET spec = '{\"incremental\": true}' WHERE id = :run", run=new)
    assert (await retain(store, KEEP, NOW)).runs == 1
    (job,) = await column(store, "SELECT id FROM job")
    rows = [NewItem(name, "h", '"text"', None) for name in ("a", "b", "c")]
    assert await store.delivered_items.delivered(job, rows) == {0, 1}


# -- steps --------------------------------------------------------------------------------


class Watched:
    """Records every step of a deletion: its rows, and how many other transactions could have begun meanwhile."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch, seconds: Iterator[float] | None = None) -> None:
        self.rows: list[int] = []
        self.deleted: list[int] = []
        tidy = store.database.tidy

        async def watched(work: Any) -> tuple[Any, float]:
            def noted(connection: BlockingConnection) -> Any:
                before = connection.execute("SELECT total_changes()").scalar_one()
                done = work(connection)
                self.deleted.append(connection.execute("SELECT total_changes()").scalar_one() - before)
                return done

            self.rows.append(work.args[-1])
            done, _ = await tidy(noted)
            return done, next(seconds) if seconds is not None else 0.0

        monkeypatch.setattr(store.database, "tidy", watched)


async def much(store: Store, runs: int = 2, items: int = 3000, output: str = '"x"') -> None:
    for number in range(runs):
        await ran(store, 300 - number, *(f"{number}.{row}" for row in range(items)), output=output)
    await ran(store, 100, "latest")


async def test_no_pruning_step_exceeds_its_row_limit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await much(store)
    watched = Watched(store, monkeypatch)
    assert await retain(store, KEEP, NOW) == Pruned(2, 6000, 3)
    assert watched.rows[0] == prune.FEWEST
    assert max(watched.rows) == prune.MOST
    assert max(watched.deleted) <= 3 * prune.MOST  # a member, its item, its answer


async def test_a_slow_pruning_step_is_followed_by_a_smaller_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await much(store, items=300)
    watched = Watched(store, monkeypatch, iter([0.0, 0.0, 0.0, 0.0] + [2 * prune.SLOW] * 100))
    await retain(store, KEEP, NOW)
    assert watched.rows[:10] == [20, 40, 80, 160, 320, 160, 80, 40, 20, 20]
    assert min(watched.rows) == prune.FEWEST


async def test_a_pruning_step_deletes_only_a_few_large_answers(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await much(store, runs=1, items=120, output=f'"{"x" * 1_000_000}"')
    watched = Watched(store, monkeypatch)
    assert (await retain(store, KEEP, NOW)).items == 120
    assert max(watched.deleted) <= 3 * prune.BYTES / 1_000_000


async def test_pruning_can_stop_at_any_step_and_leaves_no_run_incomplete(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await much(store, runs=1, items=300)
    (old, latest), steps = await runs_of(store), 0
    tidy = store.database.tidy
    for stop_after in range(40):
        with anyio.CancelScope() as scope:
            count = 0

            async def stopping(work: Any, scope: anyio.CancelScope = scope, most: int = stop_after) -> Any:
                nonlocal count, steps
                done = await tidy(work)
                count, steps = count + 1, steps + 1
                if count > most:
                    scope.cancel()
                return done

            monkeypatch.setattr(store.database, "tidy", stopping)
            await retain(store, KEEP, NOW)
        assert await column(store, "PRAGMA foreign_key_check") == []
        if old in await runs_of(store):
            states: Sequence[str] = await column(store, "SELECT state FROM run WHERE id = :run", run=old)
            assert states == ["superseded"]
        if not scope.cancel_called:
            break
    assert await runs_of(store) == [latest]
    assert steps > 10
    assert await column(store, "SELECT count(*) FROM item") == [1]


async def test_other_processes_can_write_during_pruning(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await much(store)
    watched, written = Watched(store, monkeypatch), 0

    async def write() -> None:
        nonlocal written
        while True:
            await change(store, "INSERT INTO job (name) VALUES (:name)", name=f"w{written}")
            written += 1
            await anyio.lowlevel.checkpoint()  # transactions are shielded

    async with anyio.create_task_group() as group:
        group.start_soon(write)
        await retain(store, KEEP, NOW)
        group.cancel_scope.cancel()
    assert written >= len(watched.rows)


# -- once a day --------------------------------------------------------------------------------


async def test_retention_happens_once_a_day(store: Store) -> None:
    await ran(store, 300, "a")
    await ran(store, 100, "b")
    assert await retain_daily(store, KEEP, NOW, math.inf) == Pruned(1, 1, 2)
    assert await retain_daily(store, KEEP, NOW + DAY - 1, math.inf) is None
    assert await retain_daily(store, KEEP, NOW + DAY, math.inf) == Pruned()


async def test_only_one_of_many_processes_prunes(store: Store) -> None:
    done: list[Pruned | None] = []

    async def one() -> None:
        done.append(await retain_daily(store, KEEP, NOW, math.inf))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(one)
    assert sorted(done, key=str) == [Pruned(), None, None, None, None]


async def test_setting_the_clock_back_does_not_delay_pruning_forever(store: Store) -> None:
    assert await retain_daily(store, KEEP, NOW + 1000 * DAY, math.inf) is not None
    assert await retain_daily(store, KEEP, NOW, math.inf) is not None


async def test_retention_that_is_switched_off_deletes_nothing(store: Store) -> None:
    await ran(store, 300, "a")
    await ran(store, 100, "b")
    assert await retain_daily(store, None, NOW, math.inf) is None
    assert len(await runs_of(store)) == 2


async def test_pruning_that_ran_out_of_time_is_finished_the_next_time(store: Store) -> None:
    await ran(store, 300, "a")
    await ran(store, 100, "b")
    assert await retain_daily(store, KEEP, NOW, 0.0) is None
    assert len(await runs_of(store)) == 2
    assert await retain_daily(store, KEEP, NOW + 1, math.inf) == Pruned(1, 1, 2)


async def test_charges_are_kept_as_long_as_other_costs(store: Store) -> None:
    for run, days in enumerate((399, 401), 1):
        values = {"run": run, "at": NOW - days * DAY}
        columns = "run_id, job, endpoint, day, at, requests, tokens_in, tokens_out, dollars"
        statement = f"INSERT INTO charge ({columns}) VALUES (:run, 'job', 'e', 0.0, :at, 1, 0, 0, 0.5)"
        await change(store, statement, **values)
    await retain(store, KEEP, NOW)
    assert await column(store, "SELECT run_id FROM charge") == [1]
