"""Validate new batches and queue the valid ones, each as one run with the batch's id as its key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyio import to_thread

from orchestrator.domain.batch import BatchStatus, orders_of
from orchestrator.domain.batch_lines import BatchError, Validated
from orchestrator.domain.errors import DamagedFile, UsageError
from orchestrator.domain.moment import deadline_at
from orchestrator.engine.daemon.submit import Queueing, submit
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.store.batches import BatchOutcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from orchestrator.domain.batch import Batch, BatchProgress
    from orchestrator.job import Job
    from orchestrator.store import Store


@dataclass(frozen=True, slots=True)
class Validator:
    """How a batch's file is checked, and which job asks its lines; that raises `UsageError` if there is none."""

    check: Callable[[Batch, Path], Awaitable[Validated]]
    job: Callable[[Batch, Path, str], Job]


async def validate(progress: BatchProgress, validator: Validator, store: Store, now: float) -> None:
    """Fail a new batch whose file has bad lines, otherwise queue its run.

    Safe to repeat after any interruption: a run that was queued with the batch's key is found. If the batch is no
    longer valid, as with other settings than before the interruption, that run is cancelled.
    """
    batch = progress.batch
    if batch.run_id is not None or (progress.run is not None and batch.cancelling_at is not None):
        return
    if progress.run is None and (batch.cancelling_at is not None or now >= batch.expires_at):
        cancelled = batch.cancelling_at is not None
        await store.batches.end(batch, BatchStatus.CANCELLED if cancelled else BatchStatus.EXPIRED)
        return
    try:
        found = await _checked(batch, validator, store)
        if found.errors or found.model is None:
            await _fail(progress, found.errors, store)
            return
        run_id = progress.run.id if progress.run is not None else await _queued(batch, found.model, validator, store)
    except UsageError as error:
        await _fail(progress, [BatchError("invalid_request", str(error))], store)
        return
    if not await store.batches.begin(batch, run_id, found.total, found.model):
        await store.runs.cancel(run_id, f"batch {batch.id} was cancelled")


async def _fail(progress: BatchProgress, errors: Sequence[BatchError], store: Store) -> None:
    """Fail a batch. A run that was queued for it earlier is cancelled first, since nobody would get its answers."""
    if progress.run is not None:
        await store.runs.cancel(progress.run.id, f"batch {progress.batch.id} is not valid")
    await store.batches.end(progress.batch, BatchStatus.FAILED, BatchOutcome(errors=errors))


async def _checked(batch: Batch, validator: Validator, store: Store) -> Validated:
    if batch.input_sha256 is None:
        message = (
            f"Cannot find file {batch.input_file_id}: it is deleted, has expired, or does not belong to {batch.owner}."
        )
        return Validated(0, None, (BatchError("invalid_request", message, "file_id"),))
    try:
        await to_thread.run_sync(store.files.blobs.check, batch.input_sha256)
    except DamagedFile as error:
        return Validated(0, None, (BatchError("server_error", str(error)),))
    return await validator.check(batch, store.files.blobs.path(batch.input_sha256))


async def _queued(batch: Batch, model: str, validator: Validator, store: Store) -> int:
    assert batch.input_sha256 is not None
    path = store.files.blobs.path(batch.input_sha256)
    orders = orders_of(batch.metadata)
    deadline = batch.expires_at
    if orders.deadline is not None:
        deadline = min(deadline, deadline_at(orders.deadline, batch.created_at))
    request = RunRequest(validator.job(batch, path, model), about={"folder": str(path.parent), "limit": None})
    queueing = Queueing(deadline=deadline, priority=orders.priority, key=batch.id)
    return (await submit(request, queueing, store)).run.id
