"""Files and batches, as the HTTP server needs them. An owner of None sees those of everybody."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

from anyio import to_thread

from orchestrator.app.batch_job import batch_job
from orchestrator.app.batch_validation import custom_ids, validated, validated_by_child
from orchestrator.domain.batch import BatchStatus, check_new, orders_of
from orchestrator.domain.errors import BatchOver, LedgerError, UsageError
from orchestrator.engine.batches.ending import end_batch
from orchestrator.engine.batches.files import expiry_of, put_together, receiving
from orchestrator.engine.batches.validation import Validator, validate
from orchestrator.engine.daemon.serve import Duty

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from orchestrator.config import Settings
    from orchestrator.domain.batch import Batch, BatchProgress, NewBatch, StoredFile, Upload
    from orchestrator.domain.batch_lines import Route, Validated
    from orchestrator.engine.batches.files import IncomingFile
    from orchestrator.job import Job
    from orchestrator.store import Store


_VALIDATION_EVERY = 0.5  # seconds between two looks for new batches
_ENDS_EVERY = 1.0  # the same for batches whose run is done
_EXPIRY_EVERY = 60.0  # the same for files whose time is up
_SMALL = 1 << 20  # bytes of a file that a thread validates
_ABANDONED = 3600.0  # seconds without a write after which an unfinished file is taken to be a killed process's


def batch_duties(store: Store, settings: Settings) -> tuple[Duty, ...]:
    """Return what a daemon does for batches besides executing their runs.

    New batches and those with a run are looked at apart, so that neither waits for the other.
    """
    validator = Validator(partial(_check, settings), partial(_job, settings))

    async def validate_new(now: float) -> None:
        await _each(await store.batches.new(), lambda progress: validate(progress, validator, store, now))

    async def end(now: float) -> None:
        await _each(await store.batches.may_end(now), lambda progress: end_batch(progress, custom_ids, store, now))

    async def expire(now: float) -> None:
        await store.files.expire(now)
        await to_thread.run_sync(store.files.blobs.drop_abandoned, now - _ABANDONED)

    return (
        Duty("new batches", _VALIDATION_EVERY, validate_new),
        Duty("batches", _ENDS_EVERY, end),
        Duty("files", _EXPIRY_EVERY, expire),
    )


async def _each(batches: Sequence[BatchProgress], do: Callable[[BatchProgress], Awaitable[None]]) -> None:
    """Do something for every batch. A failure for one does not stop the rest, and is raised at the end."""
    failures: list[Exception] = []
    for progress in batches:
        try:
            await do(progress)
        except LedgerError:
            raise
        except Exception as failure:  # noqa: BLE001 - it is tried again
            failures.append(failure)
    if failures:
        raise failures[0]


async def _check(settings: Settings, batch: Batch, path: Path) -> Validated:
    route, served = cast("Route", batch.endpoint), settings.served_models  # `check_new` allows only routes
    most = settings.server.max_batch_requests
    if await to_thread.run_sync(_is_small, path):
        return await to_thread.run_sync(validated, path, route, served, most)
    return await validated_by_child(path, route, served, most)


def _is_small(path: Path) -> bool:
    """Whether a file is validated sooner than a process is started. Blocking."""
    return path.exists() and path.stat().st_size <= _SMALL


def _job(settings: Settings, batch: Batch, path: Path, model: str) -> Job:
    route, budget = cast("Route", batch.endpoint), orders_of(batch.metadata).budget
    return batch_job(settings, name=batch.job, path=path, route=route, model=model, max_cost=budget)


class FileService:
    """Files that were sent, and those that batches made."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def receive(self) -> AbstractAsyncContextManager[IncomingFile]:
        """Yield a file to write to: `await file.write(piece)`, then `await file.keep(...)` or `keep_as_part(...)`."""
        return receiving(self._store)

    async def find(self, id_: str, owner: str | None) -> StoredFile | None:
        """Return a file; None if there is none, it is another owner's, or it has expired."""
        return await self._store.files.find(id_, owner)

    def path_of(self, file: StoredFile) -> Path:
        """Return where its content is. It is there until the file is deleted or expires."""
        return self._store.files.blobs.path(file.sha256)

    async def list(
        self,
        owner: str | None,
        *,
        purpose: str | None = None,
        after: str | None = None,
        limit: int = 10_000,
        newest_first: bool = True,
    ) -> tuple[Sequence[StoredFile], bool]:
        """Return files by their creation, from behind the file `after`, and whether there are more."""
        order = "desc" if newest_first else "asc"
        found = await self._store.files.listed(owner, purpose=purpose, after=after, limit=limit + 1, order=order)
        return found[:limit], len(found) > limit

    async def delete(self, id_: str, owner: str | None) -> bool:
        """Delete a file; False if there is none. An unfinished batch keeps its input."""
        return await self._store.files.delete(id_, owner)

    async def begin_upload(
        self, *, owner: str, size: int, filename: str, purpose: str, mime_type: str, expires_after: float | None = None
    ) -> Upload:
        """Announce a file of `size` bytes that arrives in parts within an hour."""
        return await self._store.files.begin_upload(
            owner=owner,
            bytes_=size,
            filename=filename,
            purpose=purpose,
            mime_type=mime_type,
            expires_after=expiry_of(purpose, expires_after),
        )

    async def find_upload(self, id_: str, owner: str | None) -> Upload | None:
        """Return an upload; None if there is none, or it is another owner's."""
        return await self._store.files.find_upload(id_, owner)

    async def complete_upload(self, upload: Upload, part_ids: Sequence[str], *, md5: str | None = None) -> StoredFile:
        """Make these parts the upload's file. Raises `UsageError` if that cannot be."""
        return await put_together(upload, part_ids, md5, self._store)

    async def cancel_upload(self, upload: Upload) -> Upload:
        """Delete the parts of a pending upload. One that has ended is unchanged; return it as it is then."""
        return await self._store.files.cancel_upload(upload)


class BatchService:
    """Batches: each is a queued run over the lines of its input file, once these are validated."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def owner_of_run(self, run_id: int) -> str | None:
        """Return whose batch a run is of; None if it is of none."""
        return await self._store.batches.owner_of_run(run_id)

    async def create(self, new: NewBatch, *, reads_all: bool = False) -> BatchProgress:
        """Create a batch, which a daemon validates and queues. An equal one of the last minute is returned instead.

        `reads_all`: its input may be another owner's file. Raises `InvalidBatch` if the endpoint, the window or the
        metadata cannot be used; whatever is wrong with the file is found by the validation.
        """
        check_new(new)
        batch = await self._store.batches.add(new, reader=None if reads_all else new.owner)
        return await self._existing(batch.id)

    async def find(self, id_: str, owner: str | None) -> BatchProgress | None:
        """Return a batch as it is now; None if there is none, or it is another owner's."""
        return await self._store.batches.find(id_, owner)

    async def list(
        self, owner: str | None, *, after: str | None = None, limit: int = 20
    ) -> tuple[Sequence[BatchProgress], bool]:
        """Return batches, the newest first, from behind the batch `after`, and whether there are more."""
        found = await self._store.batches.listed(owner, after=after, limit=limit + 1)
        return found[:limit], len(found) > limit

    async def refused(self, owner: str | None, *, since: float, limit: int) -> Sequence[BatchProgress]:
        """Return batches that failed their validation since then, the newest first."""
        return await self._store.batches.refused(owner, since=since, limit=limit)

    async def cancel(self, id_: str, owner: str | None) -> BatchProgress | None:
        """Ask for the end of a batch and return it; None if there is none, or it is another owner's.

        What is answered is kept. Raises `BatchOver` if it has ended otherwise; cancelling again changes nothing.
        """
        found = await self._store.batches.find(id_, owner)
        if found is None:
            return None
        await self._store.batches.cancel(found.batch)
        now = await self._existing(id_)
        if now.status not in {BatchStatus.CANCELLING, BatchStatus.CANCELLED}:
            raise BatchOver(f"Cannot cancel a batch with status '{now.status}'.")
        return now

    async def _existing(self, id_: str) -> BatchProgress:
        found = await self._store.batches.find(id_, None)
        if found is None:
            raise UsageError(f"batch {id_} has been deleted")
        return found
