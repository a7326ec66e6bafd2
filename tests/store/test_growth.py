"""The file grows only with the rows that are kept, and its log only with a single write."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

from orchestrator.domain.attempt import Completed
from orchestrator.domain.run import RunState, Spec
from orchestrator.store import Store
from orchestrator.store.items import Settlement
from orchestrator.store.prune import retain, retain_daily
from orchestrator.store.row_classes import NewItem
from tests.store.places import IN_MEMORY

DAY = 86400.0
NIGHTS = 120
KEPT = 10  # days
ITEMS = 40


async def a_night(store: Store, number: int, items: int = ITEMS, size: int = 500) -> int:
    """Write what one night leaves in the ledger: a run of new rows, with answers and readings."""
    me = await store.runs.register(host="h", pid=1, pid_started=0.0, lease=60)
    run = await store.runs.take(Spec("nightly", f"{number}", None), me)
    rows = [NewItem(f"{number}.{row}", "h", f'"{"x" * size}"', None) for row in range(items)]
    plan = await store.snapshots.ingest(run.id, run.job_id, 0, [rows])
    await store.runs.ingested(run.id, total=items, plan=plan, input_sha256="s")
    for part in await store.items.lease(run.id, me, 100):
        done = [Settlement(item, Completed(f'"{"y" * size}"'), 0.1) for item in part.items]
        await store.items.settle(done, [part.lease])
    await store.runs.end(run.id, me, RunState.FINISHED)
    await store.runs.leave(me)
    at = number * DAY
    async with store.database.write() as connection:
        for sql in (
            "UPDATE run SET created_at = :at, finished_at = :at WHERE id = :run",
            "UPDATE process SET started_at = :at, lease_until = :at WHERE id = :me",
            (
                "INSERT INTO reading (run_id, at, process_id, completed, discarded, requests, in_flight, latency) "
                "SELECT :run, :at + value, :me, 1, 0, 1, 1, 0.1 FROM json_each('[1, 2]')"
            ),
        ):
            await connection.execute(sql, {"run": run.id, "me": me, "at": at})
    return run.id


async def pragma(store: Store, name: str) -> int:
    async with store.database.read() as connection:
        return int((await connection.execute(f"PRAGMA {name}")).scalar_one())


async def test_hundreds_of_nights_need_no_more_space_than_those_that_are_kept() -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        async with Store.open(str(Path(folder) / "ledger.db")) as store:
            sizes = []
            for night in range(1, NIGHTS + 1):
                await a_night(store, night)
                await retain_daily(store, KEPT * DAY, night * DAY + 3600, math.inf)
                sizes.append(await pragma(store, "page_count"))
            for table in ("run", "chunk", "process", "reading", "item", "result", "member"):
                async with store.database.read() as connection:
                    rows = (await connection.execute(f"SELECT count(*) FROM {table}")).scalar_one()
                assert rows <= (KEPT + 1) * ITEMS, table
            assert max(sizes[NIGHTS // 2 :]) <= 1.05 * max(sizes[: NIGHTS // 2])


async def test_the_file_shrinks_after_a_large_deletion() -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        async with Store.open(str(Path(folder) / "ledger.db")) as store:
            await a_night(store, 1, items=400, size=30_000)
            await a_night(store, 500)
            large = await pragma(store, "page_count")
            assert (await retain(store, 90 * DAY, 501 * DAY)).items == 400
            assert await pragma(store, "page_count") < large / 2
            assert await pragma(store, "freelist_count") <= 1000


async def test_the_write_ahead_log_stays_short_beside_a_slow_reader() -> None:
    """A delivery, like any reader that pages through a run, has no open transaction while it does something else."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        path = Path(folder) / "ledger.db"
        log = path.with_name("ledger.db-wal")
        async with Store.open(str(path)) as store:
            run = await a_night(store, 1, items=1500)
            pages, answers = store.views.pages(run), store.answers.pages(1)
            assert len(await anext(pages)) == 1000
            assert len(await anext(answers)) == 1000
            longest = 0
            for night in range(2, 40):  # more than a hundred megabytes
                await a_night(store, night, items=100, size=15_000)
                longest = max(longest, log.stat().st_size)
            assert longest < 64e6
            assert len(await anext(pages)) == 500
            assert [page async for page in pages] == []
            assert sum([len(page) async for page in answers]) > 3000


async def test_the_write_ahead_log_is_truncated_after_a_long_reader_ends() -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        path = Path(folder) / "ledger.db"
        log = path.with_name("ledger.db-wal")
        async with Store.open(str(path)) as store:
            await a_night(store, 1)
            async with store.database.read() as connection:
                await connection.execute("SELECT count(*) FROM run")
                for night in range(2, 40):
                    await a_night(store, night, items=100, size=15_000)
                assert log.stat().st_size > 100e6
            for night in range(40, 43):
                await a_night(store, night, items=400, size=15_000)
            assert log.stat().st_size <= 64 * 1024 * 1024
