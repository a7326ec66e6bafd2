"""Create and cancel batches for clients. An owner of None means every owner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain.batch import BatchStatus, check_new
from orchestrator.domain.errors import BatchOver, UsageError

if TYPE_CHECKING:
    from orchestrator.domain.batch import BatchProgress, NewBatch
    from orchestrator.store import Store


async def create_batch(new: NewBatch, store: Store, *, reads_all: bool = False) -> BatchProgress:
    """Create a batch, which a daemon validates and queues. If the last minute has an equal one, return that instead.

    `reads_all`: its input may be another owner's file. Raises `InvalidBatch` if the endpoint, the window or the
    metadata cannot be used; the validation finds whatever is wrong with the file.
    """
    check_new(new)
    batch = await store.batches.add(new, reader=None if reads_all else new.owner)
    return await _existing(batch.id, store)


async def cancel_batch(id_: str, owner: str | None, store: Store) -> BatchProgress | None:
    """Ask for the end of a batch and return it; None if there is none, or it is another owner's.

    What is answered is kept. Raises `BatchOver` if it has ended otherwise; cancelling again changes nothing.
    """
    found = await store.batches.find(id_, owner)
    if found is None:
        return None
    await store.batches.cancel(found.batch)
    now = await _existing(id_, store)
    if now.status not in {BatchStatus.CANCELLING, BatchStatus.CANCELLED}:
        raise BatchOver(f"Cannot cancel a batch with status '{now.status}'.")
    return now


async def _existing(id_: str, store: Store) -> BatchProgress:
    found = await store.batches.find(id_, None)
    if found is None:
        raise UsageError(f"batch {id_} has been deleted")
    return found
