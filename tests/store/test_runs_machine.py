"""Any sequence of run, --limit, retry, edits, prune, cancel, reuse, new parse and crashes keeps finished runs complete.

Several runs of two jobs share items, and two processes write. In each finished run every row is completed or discarded;
completed rows stay completed and are not asked again. The counters of every chunk always agree with the results.
"""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.domain.attempt import Completed, Discarded, Outcome, RetryLater
from orchestrator.domain.errors import Busy, FailureKind, RequestFailed
from orchestrator.domain.run import RunState, Spec
from orchestrator.store import Store
from orchestrator.store.answers import Reparsed
from orchestrator.store.items import Settlement
from orchestrator.store.prune import prune
from orchestrator.store.row_classes import NewItem
from tests.ledgers import forgive
from tests.store.counters import check_counters
from tests.store.places import IN_MEMORY

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from orchestrator.domain.run import Run
    from orchestrator.store.items import Leased

JOBS = st.sampled_from(["a", "b"])
LIMITS = st.sampled_from([None, None, 3])
ROWS = 7
CHUNK = 3
WAYS = st.sampled_from(["complete", "complete", "discard", "later"])
FAILURE = RequestFailed(FailureKind.UNAVAILABLE, "busy", status=503)
FAR = 1e12  # a time after everything
_COMPLETED = """
SELECT j.name, i.item_id, i.hash FROM result r JOIN item i ON i.key = r.item_key JOIN job j ON j.id = i.job_id
WHERE r.outcome = 'completed'
"""
_REFUSED = "SELECT key FROM item WHERE item_id = :name"
_CHUNKS = "SELECT state FROM chunk WHERE run_id = :run"
_WRITTEN = """
SELECT count(*), coalesce(sum(r.outcome = 'completed'), 0), coalesce(sum(r.outcome = 'discarded'), 0)
FROM member m LEFT JOIN result r ON r.item_key = m.item_key WHERE m.run_id = :run
"""


class Alive:
    """A process that executes a run, and the chunks that it has leased."""

    def __init__(self, store: Store, process_id: int, run: Run) -> None:
        self.store = store
        self.process_id = process_id
        self.run = run
        self.hands: list[Leased] = []


class RunsMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=IN_MEMORY)
        self.loop = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.rows = {job: dict.fromkeys(range(ROWS), 0) for job in "ab"}  # versions of the rows of the source
        self.incremental = dict.fromkeys("ab", False)
        self.alive: dict[str, Alive] = {}
        self.zombies: list[Alive] = []
        self.answered: set[tuple[str, str, str]] = set()

    def do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run(coroutine)

    async def rows_of(self, sql: str, **values: object) -> list[tuple[Any, ...]]:
        async with self.store.database.read() as connection:
            return [tuple(row) for row in await connection.execute(sql, values)]

    async def completed(self) -> set[tuple[Any, ...]]:
        return set(await self.rows_of(_COMPLETED))

    @initialize(incremental=st.booleans())
    def open(self, *, incremental: bool) -> None:
        path = str(Path(self.folder.name) / "ledger.db")
        self.stores = [self.do(self.stack.enter_async_context(Store.open(path))) for _ in range(2)]
        self.store: Store = self.stores[0]
        self.incremental["b"] = incremental

    # -- what changes the source ----------------------------------------------------------------------------------

    @rule(job=JOBS, row=st.integers(0, ROWS - 1), version=st.integers(0, 1))
    def edit(self, job: str, row: int, version: int) -> None:
        """Change a row, possibly back to an earlier version."""
        self.rows[job][row] = version

    @rule(job=JOBS, row=st.integers(0, ROWS - 1))
    def delete(self, job: str, row: int) -> None:
        if len(self.rows[job]) > 1:
            self.rows[job].pop(row, None)

    # -- what a person does -------------------------------------------------------------------------------------------

    @rule(job=JOBS, limit=LIMITS, reuse=st.booleans())
    def run(self, job: str, limit: int | None, *, reuse: bool) -> None:
        self.do(self._run(job, limit, None, reuse=reuse))

    @rule(which=st.integers(0, 99))
    def retry(self, which: int) -> None:
        runs = self.do(self.store.runs.newest(99))
        if runs:
            run = runs[which % len(runs)]
            asks = self.do(self.store.runs.retried_by(run))
            self.do(self._run(run.job, asks.spec.about["limit"], run.id, reuse=False))

    @rule(which=st.integers(0, 99))
    def cancel(self, which: int) -> None:
        if runs := self.do(self.store.runs.newest(99)):
            self.do(self.store.runs.cancel(runs[which % len(runs)].id))

    @rule(share=st.sampled_from([0.3, 1.0]))
    def prune(self, share: float) -> None:
        """Prune the runs that ended first; answers that only they had are gone."""
        ended = sorted(self.do(self.rows_of("SELECT finished_at FROM run WHERE finished_at IS NOT NULL")))
        moment = FAR if share == 1.0 else (ended[int(len(ended) * share)][0] if ended else 0.0)
        self.do(prune(self.store, moment))
        self.answered = self.do(self.completed())

    @rule(job=JOBS, refused=st.integers(-1, ROWS))
    def reparse(self, job: str, refused: int) -> None:
        """Use a `parse` that refuses one row, or none."""
        if (number := self.do(self.store.runs.job_id(job))) is not None and job not in self.alive:
            self.do(self._reparse(number, refused))
            self.answered = {one for one in self.answered if one[0] != job} | self.do(self.completed())

    # -- what processes do --------------------------------------------------------------------------------------------

    @rule(job=JOBS)
    def lease(self, job: str) -> None:
        if alive := self.alive.get(job):
            alive.hands += self.do(alive.store.items.lease(alive.run.id, alive.process_id, 1))

    @rule(job=JOBS, ways=st.lists(WAYS, min_size=CHUNK, max_size=CHUNK), chunks=st.integers(1, 2))
    def settle(self, job: str, ways: list[str], chunks: int) -> None:
        alive = self.alive.get(job)
        if alive and alive.hands:
            self._settle(alive, ways, chunks)

    @precondition(lambda self: self.zombies)
    @rule(which=st.integers(0, 99), ways=st.lists(WAYS, min_size=CHUNK, max_size=CHUNK), chunks=st.integers(1, 2))
    def settle_as_a_zombie(self, which: int, ways: list[str], chunks: int) -> None:
        zombie = self.zombies[which % len(self.zombies)]
        if zombie.hands:
            self._settle(zombie, ways, chunks)

    @rule(job=JOBS)
    def forgive_discards(self, job: str) -> None:
        if alive := self.alive.get(job):
            self.do(forgive(self.store, alive.run.id))

    @rule(job=JOBS, zombie=st.booleans())
    def die(self, job: str, *, zombie: bool) -> None:
        if alive := self.alive.pop(job, None):
            self.do(self._bury(alive))
            self.zombies += [alive] if zombie else []

    @rule(job=JOBS)
    def stop(self, job: str) -> None:
        if alive := self.alive.pop(job, None):
            self.do(alive.store.items.release(alive.process_id))
            self.do(self.store.runs.end(alive.run.id, alive.process_id, RunState.STOPPED))
            self.do(self.store.runs.leave(alive.process_id))

    @rule(job=JOBS, ways=st.lists(WAYS, min_size=CHUNK, max_size=CHUNK))
    def finish(self, job: str, ways: list[str]) -> None:
        """Settle everything that is left, and deliver."""
        if alive := self.alive.pop(job, None):
            while alive.hands or self._has_more(alive):
                self._settle(alive, [way if way != "later" else "complete" for way in ways])
            self.do(self._deliver(alive))

    # -- how ----------------------------------------------------------------------------------------------------------

    async def _run(self, job: str, limit: int | None, retry: int | None, *, reuse: bool) -> None:
        rows = list(self.rows[job].items())[:limit]
        incremental = self.incremental[job]
        about: dict[str, object] = {"limit": limit, "incremental": incremental, "identity": {}}
        process = await self.store.runs.register(host="h", pid=1, pid_started=0.0, lease=60)
        try:
            run = await self.store.runs.take(Spec(job, f"f{limit}", str(rows), about), process, retry=retry)
        except Busy:
            assert job in self.alive
            return
        if job in self.alive:  # it has a delivered run and nothing to ask: it delays no run
            self.zombies.append(self.alive.pop(job))
        others = await self._others(job) if reuse else []
        if run.state is RunState.INGESTING:
            await self._ingest(run, rows, others, incremental=incremental)
        for other in others:
            async for part in self.store.reuse.parts(run.id, other):
                await self.store.reuse.adopt(part, [Reparsed(key, answer, None, None) for key, answer in part.answers])
        self.answered |= await self.completed()
        run = await self.store.runs.find(str(run.id))
        if (await self.store.views.counts(run.id, run.total)).unfinished:
            await self.store.runs.reopen(run.id)
        self.alive[job] = Alive(self.stores[process % 2], process, run)

    async def _others(self, job: str) -> list[int]:
        number = await self.store.runs.job_id("b" if job == "a" else "a")
        return [] if number is None else [number]

    async def _ingest(self, run: Run, rows: list[tuple[int, int]], others: list[int], *, incremental: bool) -> None:
        items = [NewItem(f"i{row}", f"v{version}", f'"{row}.{version}"', None) for row, version in rows]
        if incremental:
            left_out = await self.store.delivered_items.delivered(run.job_id, items)
            items = [item for place, item in enumerate(items) if place not in left_out]
        chunks = [items[at : at + CHUNK] for at in range(0, len(items), CHUNK)]
        plan = await self.store.snapshots.ingest(run.id, run.job_id, 0, chunks, others)
        assert plan.total == len(items)
        await self.store.runs.ingested(run.id, total=len(items), plan=plan, input_sha256=str(rows))

    def _has_more(self, alive: Alive) -> bool:
        alive.hands = self.do(alive.store.items.lease(alive.run.id, alive.process_id, 1))
        return bool(alive.hands)

    def _settle(self, alive: Alive, ways: list[str], chunks: int = 1) -> None:
        """Items of so many chunks in one commit."""
        parts, alive.hands = alive.hands[:chunks], alive.hands[chunks:]
        outcomes: dict[str, Outcome] = {
            "complete": Completed(f'"{alive.process_id}"', None, 3, None),
            "discard": Discarded(FAILURE),
            "later": RetryLater(0.0, FAILURE),
        }
        done = [
            Settlement(item, outcomes[way], 0.1) for part in parts for item, way in zip(part.items, ways, strict=False)
        ]
        whole = not any(isinstance(one.outcome, RetryLater) for one in done)
        if whole:
            assert {one.item.id for one in done} == {item.id for part in parts for item in part.items}
        self.do(alive.store.items.settle(done, [part.lease for part in parts] if whole else []))
        if not whole:
            self.do(alive.store.items.release(alive.process_id))
            alive.hands = []
        self.answered |= self.do(self.completed())

    async def _bury(self, alive: Alive) -> None:
        for process in await self.store.runs.living():
            if process.id == alive.process_id:
                await self.store.runs.bury(process)
        await self.store.items.expire(alive.process_id)

    async def _deliver(self, alive: Alive) -> None:
        await self.store.runs.end(alive.run.id, alive.process_id, RunState.FINISHED)
        if self.incremental[alive.run.job]:
            await self.store.delivered_items.add(alive.run)
        await self.store.runs.delivered(alive.run.id, alive.process_id)
        await self.store.runs.leave(alive.process_id)

    async def _reparse(self, job_id: int, refused: int) -> None:
        refuses = {row[0] for row in await self.rows_of(_REFUSED, name=f"i{refused}")}
        async for page in self.store.answers.pages(job_id):
            outcomes = [
                Reparsed(key, None, answer, "no") if key in refuses else Reparsed(key, answer, answer, None)
                for key, answer in page
            ]
            await self.store.answers.reparse(outcomes)

    # -- what holds ---------------------------------------------------------------------------------------------------

    @invariant()
    def finished_runs_are_whole_and_counted_right(self) -> None:
        if not hasattr(self, "store"):
            return
        for run in self.do(self.store.runs.newest(99)):
            executed = any(alive.run.id == run.id for alive in self.alive.values())
            if run.state is RunState.FINISHED and not executed:
                ((inputs, completed, discarded),) = self.do(self.rows_of(_WRITTEN, run=run.id))
                counts = self.do(self.store.views.counts(run.id, run.total))
                assert (inputs, completed + discarded) == (run.total, inputs), "a row is in no output and no failures"
                assert (counts.completed, counts.discarded, counts.leased) == (completed, discarded, 0)
                assert all(state == "done" for (state,) in self.do(self.rows_of(_CHUNKS, run=run.id)))

    @invariant()
    def what_was_answered_stays_answered(self) -> None:
        if hasattr(self, "store"):
            assert self.answered <= self.do(self.completed())

    @invariant()
    def the_counters_of_every_run_say_what_its_results_say(self) -> None:
        if hasattr(self, "store"):
            self.do(check_counters(self.store))

    def teardown(self) -> None:
        try:
            if hasattr(self, "store"):
                for job in "ab":
                    self.stop(job)
                    self.run(job, None, reuse=False)
                    self.finish(job, ["complete"] * CHUNK)
                self.finished_runs_are_whole_and_counted_right()
                assert self.do(self.rows_of("PRAGMA quick_check")) == [("ok",)]
                assert self.do(self.rows_of("PRAGMA foreign_key_check")) == []
        finally:
            self.do(self.stack.aclose())
            self.loop.close()
            self.folder.cleanup()


TestRuns = RunsMachine.TestCase
TestRuns.settings = settings(max_examples=15, stateful_step_count=30)
