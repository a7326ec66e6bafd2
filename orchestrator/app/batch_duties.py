"""What a daemon does for batches and files besides executing runs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

from anyio import to_thread

from orchestrator.app.batch_job import batch_job
from orchestrator.app.batch_validation import custom_ids, validated, validated_by_child
from orchestrator.domain.batch import orders_of
from orchestrator.domain.errors import LedgerError
from orchestrator.engine.batches.ending import end_batch
from orchestrator.engine.batches.validation import Validator, validate
from orchestrator.engine.daemon.serve import Duty

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from orchestrator.config import Settings
    from orchestrator.domain.batch import Batch, BatchProgress
    from orchestrator.domain.batch_lines import Route, Validated
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
