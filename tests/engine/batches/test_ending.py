"""The end of a batch follows from its run, and its files from the ledger."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import orjson
import pytest
from anyio import to_thread

from orchestrator.app.batch_validation import custom_ids
from orchestrator.domain.attempt import Completed, Discarded
from orchestrator.domain.batch import BatchStatus, BatchUsage, NewBatch
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.domain.queue import Claim, Submission
from orchestrator.domain.run import RunState, Spec
from orchestrator.engine.batches.creation import cancel_batch, create_batch
from orchestrator.engine.batches.ending import end_batch
from orchestrator.engine.batches.files import receiving
from orchestrator.store.items import Settlement
from orchestrator.store.row_classes import NewItem
from tests.faults.batch_scene import OWNER, ROUTE

if TYPE_CHECKING:
    from orchestrator.domain.batch import Batch, BatchProgress
    from orchestrator.store import Store

ANSWER = orjson.dumps({"id": "1", "usage": {"prompt_tokens": 3, "completion_tokens": 4}}).decode()
REFUSED = RequestFailed(FailureKind.REJECTED, "too long", status=400)


class Executed:
    """A batch of three requests whose run is in the hands of a process: one answered, one refused, one open."""

    def __init__(self, store: Store, batch: Batch, run_id: int, claim: Claim) -> None:
        self.store = store
        self.batch = batch
        self.run_id = run_id
        self.claim = claim

    @classmethod
    async def begin(cls, store: Store) -> Executed:
        batch = (await create_batch(NewBatch(OWNER, ROUTE, "file-x"), store)).batch
        run_id, _ = await store.queue.submit(Submission(batch.id, {}, [], due_at=0.0, key=batch.id))
        await store.batches.begin(batch, run_id, 3, "m")
        process = await store.runs.register(host="h", pid=1, pid_started=0.0, lease=60)
        claim = Claim(run_id, process)
        assert await store.queue.claim(process, time.time()) == run_id
        run = await store.runs.take(Spec(batch.id, "f", "s"), process, claim)
        rows = [NewItem(name, name, "{}", None) for name in ("a", "b", "c")]
        plan = await store.snapshots.ingest(run.id, run.job_id, 0, [rows])
        await store.runs.ingested(run.id, total=3, plan=plan, input_sha256="s")
        (leased,) = await store.items.lease(run.id, process, 1)
        a, b, _ = leased.items
        done = [Settlement(a, Completed(ANSWER, None, 3, 4), 0.1), Settlement(b, Discarded(REFUSED), 0.1)]
        await store.items.settle(done, [])
        return cls(store, batch, run.id, claim)

    async def now(self) -> BatchProgress:
        found = await self.store.batches.find(self.batch.id, OWNER)
        assert found is not None
        return found

    async def stops(self, state: RunState, why: str, *, queued: bool) -> None:
        """End the run as its process does, which then lets go of it."""
        await self.store.runs.end(self.run_id, self.claim.process_id, state, why)
        if not queued:
            await self.store.queue.leave(self.claim)
        await self.store.items.release(self.claim.process_id)
        await self.store.runs.leave(self.claim.process_id)

    async def ends(self, now: float | None = None) -> BatchProgress:
        await end_batch(await self.now(), custom_ids, self.store, time.time() if now is None else now)
        return await self.now()

    async def lines(self, file_id: str | None) -> list[tuple[str, object]]:
        files = self.store.files
        assert file_id is not None
        file = await files.find(file_id, OWNER)
        assert file is not None
        content = await to_thread.run_sync(files.blobs.path(file.sha256).read_bytes)
        found = [orjson.loads(line) for line in content.splitlines()]
        return [
            (line["custom_id"], line["error"]["code"] if line["error"] else line["response"]["status_code"])
            for line in found
        ]


@pytest.fixture
async def executed(store: Store) -> Executed:
    return await Executed.begin(store)


async def test_a_batch_whose_run_goes_on_is_in_progress_with_live_counts(executed: Executed) -> None:
    progress = await executed.ends()
    assert (progress.status, progress.total, progress.completed, progress.failed) == (BatchStatus.IN_PROGRESS, 3, 1, 1)
    assert progress.usage is not None
    assert (progress.usage.input_tokens, progress.usage.output_tokens) == (3, 4)


async def test_a_failed_run_that_is_still_queued_leaves_its_batch_in_progress(executed: Executed) -> None:
    await executed.stops(RunState.FAILED, "401", queued=True)
    assert (await executed.ends()).status is BatchStatus.IN_PROGRESS


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.STOPPED])
async def test_a_run_that_has_left_the_queue_fails_its_batch_and_what_is_answered_stays(
    executed: Executed, state: RunState
) -> None:
    await executed.stops(state, "endpoint m refuses every request: 401", queued=False)
    assert (await executed.now()).status is BatchStatus.FINALIZING
    ended = await executed.ends()
    assert (ended.status, ended.completed, ended.failed) == (BatchStatus.FAILED, 1, 1)
    (error,) = ended.batch.errors
    assert error.message == f"Run {executed.run_id} {state}: endpoint m refuses every request: 401"
    assert await executed.lines(ended.batch.output_file_id) == [("a", 200)]
    assert await executed.lines(ended.batch.error_file_id) == [("b", 400), ("c", "batch_failed")]


async def test_a_cancelled_batch_waits_for_the_process_of_its_run(executed: Executed) -> None:
    await cancel_batch(executed.batch.id, OWNER, executed.store)
    assert (await executed.ends()).status is BatchStatus.CANCELLING
    assert (await executed.store.runs.find(str(executed.run_id))).error == f"batch {executed.batch.id} was cancelled"
    assert (await executed.ends()).status is BatchStatus.CANCELLING
    await executed.stops(RunState.STOPPED, "cancelled", queued=True)
    ended = await executed.ends()
    assert ended.status is BatchStatus.CANCELLED
    assert await executed.lines(ended.batch.error_file_id) == [("b", 400), ("c", "batch_cancelled")]


async def test_a_late_batch_stops_its_run_and_expires(executed: Executed) -> None:
    late = executed.batch.expires_at + 1
    assert (await executed.ends(late)).status is BatchStatus.IN_PROGRESS
    await executed.stops(RunState.STOPPED, "cancelled", queued=True)
    ended = await executed.ends(late)
    assert ended.status is BatchStatus.EXPIRED
    assert await executed.lines(ended.batch.output_file_id) == [("a", 200)]


async def test_a_run_that_a_person_cancels_cancels_its_batch(executed: Executed) -> None:
    await executed.store.runs.cancel(executed.run_id)
    await executed.stops(RunState.STOPPED, "cancelled", queued=True)
    assert (await executed.ends()).status is BatchStatus.CANCELLED


async def test_a_batch_that_two_daemons_end_has_one_end(executed: Executed) -> None:
    await executed.stops(RunState.FAILED, "401", queued=False)
    before = await executed.now()
    first = await executed.ends()
    await end_batch(before, custom_ids, executed.store, time.time())
    assert await executed.now() == first
    assert len((await executed.store.files.listed(OWNER, limit=10))[0]) == 2


async def test_output_files_are_kept_for_as_long_as_the_batch_says(store: Store) -> None:
    executed = await Executed.begin(store)
    async with store.database.write() as connection:
        await connection.execute("UPDATE batch SET output_expires_after = 3600")
    await executed.stops(RunState.FAILED, "401", queued=False)
    await executed.ends()
    files, _ = await store.files.listed(OWNER, limit=10, newest_first=False)
    assert [file.expires_at for file in files] == [file.created_at + 3600 for file in files]


@pytest.mark.parametrize("usage", ["n/a", 5, [1], {"prompt_tokens": "3"}])
async def test_an_answer_with_a_strange_usage_does_not_keep_a_batch_from_ending(
    executed: Executed, usage: object
) -> None:
    async with executed.store.database.write() as connection:
        answer = orjson.dumps({"id": "1", "usage": usage}).decode()
        await connection.execute("UPDATE result SET output = ? WHERE output IS NOT NULL", (answer,))
    await executed.stops(RunState.FAILED, "401", queued=False)
    ended = await executed.ends()
    assert (ended.completed, ended.usage) == (1, BatchUsage())


@pytest.mark.parametrize("read", [0, 1])
async def test_requests_that_the_run_had_not_read_are_in_the_error_file(store: Store, read: int) -> None:
    content = b'\xef\xbb\xbf{"custom_id": "a"}\r\n\n{"custom_id": "b"}\n{"custom_id": "c"}'
    async with receiving(store) as incoming:
        await incoming.write(content)
        file = await incoming.keep(owner=OWNER, filename="a.jsonl", purpose="batch")
    batch = (await create_batch(NewBatch(OWNER, ROUTE, file.id), store)).batch
    run_id, _ = await store.queue.submit(Submission(batch.id, {}, [], due_at=0.0, key=batch.id))
    await store.batches.begin(batch, run_id, 3, "m")
    process = await store.runs.register(host="h", pid=1, pid_started=0.0, lease=60)
    claim = Claim(run_id, process)
    assert await store.queue.claim(process, time.time()) == run_id
    run = await store.runs.take(Spec(batch.id, "f", "s"), process, claim)
    rows = [NewItem(name, name, "{}", None) for name in "abc"[:read]]
    await store.snapshots.ingest(run.id, run.job_id, 0, [rows] if rows else [])
    await store.runs.cancel(run.id)
    executed = Executed(store, batch, run.id, claim)
    await executed.stops(RunState.STOPPED, "cancelled", queued=True)
    ended = await executed.ends()
    assert (ended.status, ended.total, ended.failed) == (BatchStatus.CANCELLED, 3, 0)
    assert await executed.lines(ended.batch.error_file_id) == [(name, "batch_cancelled") for name in "abc"]


async def test_a_batch_whose_run_is_retried_while_its_files_are_written_goes_on(executed: Executed) -> None:
    await executed.stops(RunState.FAILED, "401", queued=False)
    before = await executed.now()
    async with executed.store.database.write() as connection:
        await connection.execute("UPDATE run SET due_at = 0 WHERE id = ?", (executed.run_id,))
    await end_batch(before, custom_ids, executed.store, time.time())
    assert (await executed.now()).status is BatchStatus.IN_PROGRESS


async def test_a_batch_whose_input_is_gone_ends(executed: Executed) -> None:
    async with executed.store.database.write() as connection:
        await connection.execute("UPDATE batch SET total = 4, input_sha256 = ?", ("0" * 64,))
    await executed.stops(RunState.FAILED, "no such file", queued=False)
    ended = await executed.ends()
    assert (ended.status, ended.completed) == (BatchStatus.FAILED, 1)
    assert await executed.lines(ended.batch.error_file_id) == [("b", 400), ("c", "batch_failed")]
