"""Schedules by hand: list, add, fire and remove them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anyio import to_thread

from orchestrator.domain.command_line import typed
from orchestrator.domain.errors import UsageError
from orchestrator.domain.timetable import Declared

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from orchestrator.domain.schedule import Cron
    from orchestrator.domain.timetable import BrokenFile, Fired, Schedule
    from orchestrator.engine.run.run_request import RunRequest
    from orchestrator.store import Store


@dataclass(frozen=True, slots=True)
class Timetable:
    """All schedules, each with what was decided about its last slot. `served`: whether a daemon is running."""

    schedules: Sequence[tuple[Schedule, Fired | None]]
    broken: Sequence[BrokenFile]
    served: bool


async def timetable_of(store: Store) -> Timetable:
    """Return all schedules, and the job files that could not be used."""
    last = await store.schedules.latest()
    rows = [(one, last.get(one.id)) for one in await store.schedules.listed()]
    return Timetable(rows, await store.schedules.broken(), await store.queue.served())


async def find(job: str, store: Store) -> Schedule:
    """Return the schedule of a job. Raises `UsageError` if it has none."""
    found = await store.schedules.find(job)
    if found is None or found.gone:
        raise UsageError(f"there is no schedule of a job {job!r}; see `orchestrator schedule list`")
    return found


async def add(request: RunRequest, cron: Cron, priority: int, store: Store) -> tuple[Schedule, bool]:
    """Set or change the schedule of a job whose file has none; return it, and whether a daemon is running.

    Raises `UsageError` if the job has its schedule from a file.
    """
    job = request.job
    standing = await store.schedules.find(job.name)
    if standing is not None and not standing.gone and standing.source == "file":
        raise UsageError(f"job {job.name!r} has its schedule from {standing.jobfile}; change it there")
    endpoints, deadline = sorted(job.endpoint_names), job.policy.deadline
    declared = Declared(job.name, request.kept(), endpoints, cron, priority, deadline, job.waits_for)
    await store.schedules.put(declared, "command", time.time())
    await store.schedules.mended(declared.jobfile)
    return await find(job.name, store), await store.queue.served()


async def fire(job: str, store: Store) -> tuple[int, bool]:
    """Queue a run now, in addition to the slots; return its number, and whether a daemon is running."""
    return await store.schedules.fire_now(job, time.time()), await store.queue.served()


async def remove(job: str, watched: Collection[Path], store: Store) -> None:
    """Remove a schedule. Raises `UsageError` if it is in a job file in one of the `watched` folders."""
    found = await find(job, store)
    file = Path(found.jobfile)
    if found.source == "file" and file.parent in watched and await to_thread.run_sync(file.exists):
        raise UsageError(f"the schedule is in {file}: remove schedule= there, or `{typed('schedule', 'pause', job)}`")
    await store.schedules.mark_gone(job, found.jobfile)
