"""What a daemon does for batches and files besides executing runs."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING, cast

import anyio
from anyio import to_thread

from orchestrator.app.batch_job import batch_job
from orchestrator.app.batch_validation import custom_ids, validated, validated_by_child
from orchestrator.domain.batch import orders_of
from orchestrator.domain.errors import LedgerError
from orchestrator.engine.batches.ending import end_batch
from orchestrator.engine.batches.validation import Validator, validate
from orchestrator.engine.daemon.serve import Duty
from orchestrator.engine.tasks import task_group

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from orchestrator.app.latest_settings import LatestSettings
    from orchestrator.config import Settings
    from orchestrator.domain.batch import Batch, BatchProgress
    from orchestrator.domain.batch_lines import Route, Validated
    from orchestrator.job import Job
    from orchestrator.store import Store


_VALIDATION_EVERY = 0.5  # seconds between two looks for new batches
_ENDS_EVERY = 1.0  # the same for batches whose run is done
_EXPIRY_EVERY = 60.0  # the same for files whose time is up
_SMALL = 1 << 20  # bytes of a file that a thread validates
_AT_ONCE = 4  # files that are validated at once: small ones, and as many others by processes
_ABANDONED = 3600.0  # seconds without a write after which an unfinished file is taken to be a killed process's


def batch_duties(store: Store, latest: LatestSettings) -> tuple[Duty, ...]:
    """Return what a daemon does for batches besides executing their runs.

    New batches and those with a run are looked at apart, so that neither waits for the other.
    """

    async def end(now: float) -> None:
        await _each(await store.batches.may_end(now), lambda progress: end_batch(progress, custom_ids, store, now))

    async def expire(now: float) -> None:
        await store.files.expire(now)
        await to_thread.run_sync(store.files.blobs.drop_abandoned, now - _ABANDONED)

    return (
        Duty("new batches", _VALIDATION_EVERY, Validations(store, latest).begin),
        Duty("batches", _ENDS_EVERY, end),
        Duty("files", _EXPIRY_EVERY, expire),
    )


class Validations:
    """Validates new batches side by side, so that a small one does not wait for one of 200 MB."""

    def __init__(self, store: Store, latest: LatestSettings) -> None:
        self._store = store
        self._latest = latest
        self._threads = anyio.CapacityLimiter(_AT_ONCE)
        self._processes = anyio.CapacityLimiter(min(_AT_ONCE, os.cpu_count() or 1))
        self._begun: set[str] = set()
        self._running = 0
        self._failures: list[Exception] = []

    async def begin(self, _now: float) -> None:
        """Validate all new batches, and those that are created meanwhile. After a failure, only end what is begun."""
        self._begun.clear()
        self._failures.clear()
        async with task_group() as tasks:
            while True:
                for progress in await self._store.batches.new():
                    if progress.batch.id not in self._begun:
                        self._begun.add(progress.batch.id)
                        self._running += 1
                        tasks.start_soon(self._validate, progress)
                if not self._running or self._failures:
                    break
                await anyio.sleep(_VALIDATION_EVERY)
        if self._failures:
            raise self._failures[0]

    async def _validate(self, progress: BatchProgress) -> None:
        try:
            settings = await self._latest.now()
            validator = Validator(partial(self._check, settings), partial(_job, settings))
            await validate(progress, validator, self._store, time.time())
        except Exception as failure:  # noqa: BLE001 - it is tried again, and the others do not depend on it
            self._failures.append(failure)
        finally:
            self._running -= 1

    async def _check(self, settings: Settings, batch: Batch, path: Path) -> Validated:
        route, served = cast("Route", batch.endpoint), settings.served_models  # `check_new` allows only routes
        most = settings.server.max_batch_requests
        if await to_thread.run_sync(_is_small, path):
            return await to_thread.run_sync(validated, path, route, served, most, limiter=self._threads)
        async with self._processes:
            return await validated_by_child(path, route, served, most)


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


def _is_small(path: Path) -> bool:
    """Whether a file is validated sooner than a process is started. Blocking."""
    return path.exists() and path.stat().st_size <= _SMALL


def _job(settings: Settings, batch: Batch, path: Path, model: str) -> Job:
    route, budget = cast("Route", batch.endpoint), orders_of(batch.metadata).budget
    return batch_job(settings, name=batch.job, path=path, route=route, model=model, max_cost=budget)
