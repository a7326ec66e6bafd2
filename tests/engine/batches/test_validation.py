"""New batches are validated and queued; one that is validated again keeps its run or cancels it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from orchestrator.domain.batch import BatchStatus, NewBatch
from orchestrator.domain.batch_lines import BatchError, Validated
from orchestrator.domain.queue import Submission
from orchestrator.domain.run import RunState
from orchestrator.engine.batches.creation import create_batch
from orchestrator.engine.batches.validation import Validator, validate
from tests.faults.batch_scene import OWNER, ROUTE

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.domain.batch import Batch
    from orchestrator.job import Job
    from orchestrator.store import Store

NOT_SERVED = BatchError("model_not_found", "The model 'm' is not served.", "body.model", 1)


async def _not_served(_batch: Batch, _path: Path) -> Validated:
    return Validated(1, None, (NOT_SERVED,))


def _no_job(_batch: Batch, _path: Path, _model: str) -> Job:
    raise AssertionError("a batch that is not valid needs no job")


async def test_a_batch_that_is_no_longer_valid_after_a_kill_cancels_the_run_that_was_queued_for_it(
    store: Store,
) -> None:
    batch = (await create_batch(NewBatch(OWNER, ROUTE, "file-x"), store)).batch
    async with store.database.write() as connection:
        await connection.execute("UPDATE batch SET input_sha256 = 'a'")
    run_id, _ = await store.queue.submit(Submission(batch.id, {}, [], due_at=0.0, key=batch.id))
    progress = await store.batches.find(batch.id, OWNER)
    assert progress is not None
    await validate(progress, Validator(_not_served, _no_job), store, time.time())
    ended = await store.batches.find(batch.id, OWNER)
    assert ended is not None
    assert (ended.status, list(ended.batch.errors)) == (BatchStatus.FAILED, [NOT_SERVED])
    assert (await store.runs.find(str(run_id))).state is RunState.CANCELLED
