"""Frequent statements read few rows, however long the history of the ledger is: a million items here."""

from __future__ import annotations

import re
import tempfile
import time
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from anyio import to_thread

from orchestrator.domain.attempt import Completed, Discarded, Outcome, RetryLater
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.domain.item import ItemState
from orchestrator.domain.queue import Submission
from orchestrator.domain.readings import Reading
from orchestrator.domain.run import Spec
from orchestrator.domain.schedule import decide
from orchestrator.domain.terms import Spent, Terms
from orchestrator.domain.timetable import Declared
from orchestrator.store import Store, prune
from orchestrator.store.answers import Reparsed
from orchestrator.store.connections import Pool
from orchestrator.store.items import Settlement
from orchestrator.store.row_classes import NewItem
from orchestrator.store.sqlite import DRIVER
from tests.store.big_ledger import CHUNK, FINISHED, ITEMS, JOB, OPEN, make_big_ledger
from tests.store.places import IN_MEMORY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from orchestrator.store.connection import BlockingConnection

WITHOUT_ITEMS = 7  # items of a run
STEPS = 100  # instructions of SQLite's virtual machine between two samples
A_CHUNK = 60_000  # instructions for a statement over the five hundred items of a chunk
A_PAGE = 80_000  # for a page of a thousand items
A_SUM = 60_000  # for a statement that sums a run's two thousand chunks
A_STEP = 300_000  # for a retention step: two thousand rows and what refers to them
FEW = 3_000  # for all others
# what may be scanned: a few rows each, or an index of unfinished rows only
_SMALL = (
    "schedule",
    "tuning",
    "broken_file",
    "json_each",
    "few",
    "VALUES CLAUSE",
    "USING INDEX ix_process_lease_until",
    "USING INDEX ix_run_queued",
    "USING INDEX ux_awake_window_endpoint",
    "USING INDEX ix_run_holder",
)
_ONE_ROW = re.compile(r"SCAN (s|\(subquery-\d+\))")  # of sums
_OPEN_OR_FEW = re.compile(r"SCAN (w|running_total|c|chunk USING INDEX ix_chunk_(available|leased))")  # c: these chunks
_SORTED = ("ix_run_queued", "ux_awake_window_endpoint")
FAILURE = RequestFailed(FailureKind.UNAVAILABLE, "busy", status=503)


@dataclass
class Executed:
    """A statement with its parameters, and its instructions so far."""

    sql: str
    steps: int = 0


@pytest.fixture(scope="module")
def big() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        path = Path(folder) / "ledger.db"
        make_big_ledger(path)
        yield path


class Recorder:
    """Records every statement that the ledger executes."""

    def __init__(self, store: Store) -> None:
        self.executed: list[Executed] = []
        for pool in vars(store.database).values():
            if isinstance(pool, Pool):
                pool._make = partial(self._made, pool._make)

    def _made(self, make: Callable[[], BlockingConnection]) -> BlockingConnection:
        connection = make()
        connection.driver.set_progress_handler(self._step, STEPS)
        connection.driver.set_trace_callback(self._begin)
        return connection

    def _begin(self, sql: str) -> None:
        self.executed.append(Executed(sql.replace(" Inf ", " 9e999 ")))  # SQLite cannot read what it writes there

    def _step(self) -> int:
        if self.executed:
            self.executed[-1].steps += STEPS
        return 0


@asynccontextmanager
async def recorded(path: Path) -> AsyncIterator[tuple[Store, Recorder, int]]:
    """Yield the ledger, the recorder, and a process."""
    async with Store.open(str(path)) as store:
        recorder = Recorder(store)
        me = await store.runs.register(host="h", pid=1, pid_started=0.0, lease=600, serves=True)
        recorder.executed.clear()
        yield store, recorder, me
        recorder.executed.clear()
        await store.items.release(me)
        await store.runs.leave(me)


# -- hot statements -----------------------------------------------------------------------------


async def lease_and_settle(store: Store, me: int) -> None:
    (leased,) = await store.items.lease(OPEN, me, 1)
    assert len(leased.items) == CHUNK
    ways: list[Outcome] = [Completed('"x"'), RetryLater(0.0, FAILURE), Discarded(FAILURE)]
    done = [Settlement(item, ways[n % 3] if n < 9 else ways[0], 0.1) for n, item in enumerate(leased.items)]
    await store.items.settle(done, [leased.lease])
    await store.items.settle(done)  # a replay


async def lose_leases(store: Store, me: int) -> None:
    await store.items.lease(OPEN, me, 1)
    await store.items.release(me)
    await store.items.lease(OPEN, me, 1)
    await store.items.expire(me)


async def ingest(store: Store, me: int) -> None:
    run = await store.runs.take(Spec("job7", f"{time.time()}", None), me)
    rows = [NewItem(f"new {number}", "h", '"text"', None) for number in range(CHUNK)]
    rows[3] = NewItem("new 3", "h", None, None, unreadable="no text")
    await store.snapshots.classify(run.job_id, rows)
    plan = await store.snapshots.ingest(run.id, run.job_id, 0, [rows])
    await store.runs.ingested(run.id, total=CHUNK, plan=plan, input_sha256="s")
    await store.delivered_items.delivered(run.job_id, rows)


async def reuse(store: Store, me: int) -> None:
    run = await store.runs.take(Spec("job9", f"{time.time()}", None), me)
    rows = [NewItem(f"item {number}", f"{number:064d}", '"text"', None) for number in range(1, CHUNK + 1)]
    answered = await store.reuse.answered(run.job_id, rows, [1])
    plan = await store.snapshots.ingest(run.id, run.job_id, 0, [rows], [1])
    await store.runs.ingested(run.id, total=CHUNK, plan=plan, input_sha256="s")
    assert answered == {1: plan.reused} == {1: CHUNK * 49 // 50}
    async for part in store.reuse.parts(run.id, 1):
        await store.reuse.adopt(part, [Reparsed(key, answer, None, None) for key, answer in part.answers])
    assert (await store.views.counts(run.id, CHUNK)).completed == plan.reused


async def stay_alive(store: Store, me: int) -> None:
    await store.runs.beat(me, 600, run_id=OPEN, rate=1.0)
    await store.runs.prolong(me, 600)
    await store.runs.controls(OPEN)
    await store.readings.note(OPEN, Reading(time.time(), me, 1, 0, 1, None, None, 1, 0.1))


async def look(store: Store, _me: int) -> None:
    await store.runs.find(None)
    await store.runs.find(JOB)
    await store.runs.newest(20)
    await store.runs.living()
    await store.views.causes(WITHOUT_ITEMS)


async def queue(store: Store, me: int) -> None:
    for number in range(3):
        await store.queue.submit(Submission(f"job{number + 20}", {}, ["endpoint"], time.time(), key=f"{time.time()}"))
    claimed = await store.queue.claim(me, time.time())
    assert claimed is not None
    await store.queue.coming("endpoint", claimed, time.time(), free=True)
    await store.queue.listed(time.time())
    await store.queue.in_the_way([claimed], time.time())
    await store.queue.cancelled([claimed])
    await store.runs.cancel(claimed)
    for queued in await store.queue.listed(time.time()):
        await store.runs.cancel(queued.id)


async def schedules(store: Store, _me: int) -> None:
    now = time.time() + 3e6  # three of them are due
    standing = (await store.schedules.due(now))[0]
    assert standing.next_slot is not None
    cron = await to_thread.run_sync(standing.meant, now)  # reads the time zone file
    waits = Declared(standing.job, {"jobfile": "f"}, standing.endpoints, cron, after=((JOB, False),))
    assert await store.schedules.put(waits, "file", now)
    (standing,) = [one for one in await store.schedules.due(now) if one.job == standing.job]
    assert standing.next_slot is not None
    assert await store.schedules.fire(standing, cron, decide(cron, standing.next_slot, now, 3), now)
    await store.schedules.find("job8")
    for queued in await store.queue.listed(time.time()):
        await store.runs.cancel(queued.id)


async def windows(store: Store, me: int) -> None:
    terms = Terms("endpoint", {})
    window = await store.windows.enter(terms, me, OPEN, JOB)
    assert window is not None
    await store.windows.take_on(window, terms, 1.0)
    await store.windows.owe(window, terms, EndpointState.PAUSED)
    await store.windows.may_look(window, 2.0)
    await store.windows.saw(window, EndpointState.AWAKE, "running")
    await store.windows.seen(window)
    await store.windows.holders("endpoint")
    await store.windows.leave(window, me, Spent())
    await store.windows.close(window, me, EndpointState.PAUSED, "paused", by="run", spent=Spent())
    await store.windows.debts()


async def bury(store: Store, me: int) -> None:
    other = await store.runs.register(host="h", pid=2, pid_started=0.0, lease=-1)
    for process in await store.runs.living():
        if process.id == other:
            assert await store.runs.bury(process)
            await store.items.expire(other)
    await store.runs.end(OPEN, me, (await store.runs.find(str(OPEN))).state)


async def a_page(store: Store, _me: int) -> None:
    async for _ in store.views.pages(FINISHED):
        break
    await store.views.item(FINISHED, "item 700000")
    async for _ in store.answers.pages(1):
        break


async def items_by_state(store: Store, _me: int) -> None:
    """From the first members on, each chunk's are read once; far into a run, the earlier ones are not."""
    assert len(await store.views.in_state(FINISHED, ItemState.DISCARDED, -1, 100)) == 100  # ten in each chunk
    far = ITEMS - 2 * CHUNK
    for state in (ItemState.COMPLETED, ItemState.DISCARDED):
        assert await store.views.in_state(FINISHED, state, far, 10)
    assert await store.views.in_state(OPEN, ItemState.AVAILABLE, 5000, 10)
    assert await store.views.alike(FINISHED, "item 100", far, 10)
    await store.runs.current([FINISHED], FINISHED, 10)
    await store.readings.after(FINISHED, time.time())


HOT: list[tuple[Callable[[Store, int], Awaitable[None]], int]] = [
    (lease_and_settle, A_CHUNK),
    (lose_leases, A_CHUNK),
    (ingest, 2 * A_CHUNK),
    (reuse, 2 * A_CHUNK),
    (a_page, A_PAGE),
    (items_by_state, A_PAGE),
    (stay_alive, FEW),
    (look, FEW),
    (queue, FEW),
    (schedules, FEW),
    (windows, FEW),
    (bury, FEW),
]


@pytest.mark.untraced
@pytest.mark.parametrize(("method", "most"), HOT, ids=[method.__name__ for method, _ in HOT])
async def test_a_hot_statement_reads_few_rows(
    big: Path, method: Callable[[Store, int], Awaitable[None]], most: int
) -> None:
    async with recorded(big) as (store, recorder, me):
        await method(store, me)
        executed = list(recorder.executed)
    assert executed
    if method is lease_and_settle:  # bypasses SQLAlchemy
        assert any("INSERT INTO result" in one.sql for one in executed)
    for one in executed:
        assert scans(big, one) == [], one.sql
        assert one.steps <= most, one.sql


async def test_counts_are_sums_over_chunks(big: Path) -> None:
    async with recorded(big) as (store, recorder, _):
        counts = await store.views.counts(FINISHED, ITEMS)
        await store.views.tokens(FINISHED)
        assert counts.settled == ITEMS
        for one in recorder.executed:
            assert scans(big, one) == [], one.sql
            assert one.steps <= A_SUM, one.sql


async def test_a_scrape_looks_only_at_what_is_open_and_at_awake_windows(big: Path) -> None:
    async with recorded(big) as (store, recorder, _):
        metrics = await store.metrics.now()
        assert metrics.items["available"] > 0
        assert metrics.endpoints.keys() == {"endpoint"}
        assert any("FROM chunk" in one.sql for one in recorder.executed)
        for one in recorder.executed:
            assert [scan for scan in scans(big, one) if not _OPEN_OR_FEW.fullmatch(scan)] == [], one.sql
            assert one.steps <= A_STEP, one.sql


async def test_a_retention_step_finds_its_rows_by_index(big: Path) -> None:
    async with recorded(big) as (store, recorder, _):
        (oldest,) = [run.finished_at for run in [await store.runs.find(str(FINISHED))] if run.finished_at is not None]
        now = time.time()
        pruned = await prune.retain(store, now - oldest - 6000, now)  # a hundred minutes later, one run a minute
        executed = list(recorder.executed)
    assert pruned.runs == 97
    assert pruned.others > 5000
    distinct = {one.sql: one for one in sorted(executed, key=lambda one: one.steps)}  # the most expensive statement
    for one in distinct.values():
        if one.sql.lstrip().startswith("DELETE"):  # other writers wait for these; rows to delete are read before
            assert scans(big, one) == [], one.sql
        if "UNION SELECT process_id" not in one.sql:  # read once a day
            assert one.steps <= A_STEP, one.sql


def scans(path: Path, executed: Executed) -> list[str]:
    """Return the plan steps that scan a growing table or sort rows."""
    if not executed.sql.lstrip().startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")):
        return []
    with closing(DRIVER.connect(path)) as connection:
        rows = connection.execute(f"EXPLAIN QUERY PLAN {executed.sql}").fetchall()
    plan = [str(row[3]) for row in rows]
    # sorted rows are unfinished or grouped
    small = executed.steps <= FEW and any(name in step for step in plan[:1] for name in _SORTED)
    whole = [step for step in plan if step.startswith("SCAN") and not _small(step)]
    if "LIMIT" in executed.sql and executed.steps <= FEW:
        whole = []  # it stops early
    return whole + [step for step in plan if "TEMP B-TREE FOR ORDER BY" in step and not small]


def _small(step: str) -> bool:
    return "VIRTUAL TABLE" in step or any(name in step for name in _SMALL) or _ONE_ROW.fullmatch(step) is not None
