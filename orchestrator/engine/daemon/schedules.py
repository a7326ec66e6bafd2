"""Schedules: fire those that are due, and keep the ledger up to date with the job files in some folders."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from orchestrator.domain.schedule import decide
from orchestrator.domain.timetable import in_order
from orchestrator.engine.daemon.loading import Described, described
from orchestrator.engine.tasks import task_group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from orchestrator.domain.timetable import Fired, Schedule
    from orchestrator.store import Store

_STEPS = 50  # transactions per schedule and pass, so that a year of missed minutes does not delay the others
_AT_ONCE = 2  # files loaded at the same time
_GONE = (0, -1)  # the stamp of a missing folder

Stamps = dict[Path, tuple[int, int]]


async def fire_due(store: Store, now: float, mine: Callable[[Schedule], bool] | None = None) -> list[Fired]:
    """Decide about every due slot of the schedules that `mine` accepts (None: all), and queue the runs.

    Any number of processes may do this at any time.
    If a schedule's runs wait for those of another one that is also due, it comes after that one.
    An invalid schedule is reported and no longer fires; the others do.
    """
    fired: list[Fired] = []
    for schedule in in_order(filter(mine, await store.schedules.due(now))):
        fired += await _fire(store, schedule, now)
    return fired


async def _fire(store: Store, schedule: Schedule, now: float) -> list[Fired]:
    fired: list[Fired] = []
    try:
        cron = await to_thread.run_sync(schedule.meant, now)
    except ValueError as error:
        await store.schedules.spoil(schedule, f"the schedule of job {schedule.job!r} no longer fires: {error}", now)
        return fired
    for _ in range(_STEPS):
        if schedule.next_slot is None or schedule.next_slot > now:
            break
        due = await to_thread.run_sync(decide, cron, schedule.next_slot, now)
        done = await store.schedules.fire(schedule, cron, due, now)
        if done is None:  # another process was faster
            break
        fired += done
        schedule = replace(schedule, next_slot=due.following)
    return fired


class JobFolders:
    """The job files of some folders. New, changed and removed files are noticed by their time and size.

    Files whose names begin with `_` are skipped, as are those without a job or a schedule. A broken file is reported,
    and the schedule that it declared before still fires. Files are loaded by child processes.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._seen: Stamps | None = None
        self._known: dict[Path, Described] = {}

    def concern(self, schedule: Schedule) -> bool:
        """Whether to fire this schedule: it comes from a command, or from a file in one of these folders."""
        return schedule.source != "file" or self._is_mine(schedule.jobfile)

    async def look(self, store: Store, now: float) -> list[str]:
        """Update the ledger from the files; return messages for the user. Cheap if nothing has changed."""
        stamps = await to_thread.run_sync(_stamps, self._folders)
        if stamps == self._seen:
            return []
        before = self._seen or {}
        changed = {path for path, stamp in stamps.items() if stamp != before.get(path)}
        self._known = {path: known for path, known in self._known.items() if stamps.get(path, _GONE) != _GONE}
        missing = {str(path): "there is no such folder" for path, stamp in stamps.items() if stamp == _GONE}
        loading = {path for path in changed if stamps[path] != _GONE}
        told = await self._sync(store, changed, missing, now, loading)
        places, turn = anyio.CapacityLimiter(_AT_ONCE), anyio.Lock()

        async def load(path: Path) -> None:
            async with places:
                found = await described(path)
            async with turn:  # a file is processed without waiting for the others
                declared = self._known.get(path, found).declared if found.error else found.declared
                self._known[path] = Described(declared, found.error)
                loading.remove(path)
                told.extend(await self._sync(store, {path}, missing, now, loading))

        async with task_group() as group:
            for path in sorted(loading):
                group.start_soon(load, path)
        self._seen = stamps
        return told

    async def _sync(
        self, store: Store, changed: set[Path], missing: Mapping[str, str], now: float, loading: set[Path]
    ) -> list[str]:
        """Record what these files declare, while others are still being loaded."""
        standing = {schedule.job: schedule for schedule in await store.schedules.listed()}
        winners, clashes = await self._winners(standing, loading)
        told = []
        for job, path in winners.items():
            declared, row = self._known[path].declared, standing.get(job)
            fresh = path in changed - loading or row is None or row.jobfile != str(path)
            if declared is not None and fresh and await store.schedules.put(declared, "file", now):
                told.append(f"{path}: job {job!r} is run at {declared.cron.expression!r}, {declared.cron.tz}")
        for row in standing.values():
            stale = row.source == "file" and row.job not in winners and self._is_mine(row.jobfile)
            if stale and Path(row.jobfile) not in loading and await store.schedules.mark_gone(row.job, row.jobfile):
                told.append(f"{row.jobfile} no longer has a schedule of job {row.job!r}")
        errors = {str(path): known.error for path, known in self._known.items() if known.error is not None}
        return told + await self._report(store, {**missing, **clashes, **errors}, loading, now)

    async def _winners(
        self, standing: Mapping[str, Schedule], loading: set[Path]
    ) -> tuple[dict[str, Path], dict[str, str]]:
        """Return the file that declares each job's schedule, and errors for files that lost theirs to another.

        A file whose schedule is in the ledger keeps it as long as it declares it; otherwise the first loaded file by
        name gets it.
        """
        said: dict[str, list[Path]] = {}
        for path, known in sorted(self._known.items()):
            if known.declared is not None:
                said.setdefault(known.declared.job, []).append(path)
        winners: dict[str, Path] = {}
        clashes: dict[str, str] = {}
        for job, paths in said.items():
            row = standing.get(job)
            holder = paths[0] if row is None else Path(row.jobfile)
            if (
                holder not in paths
                and holder not in loading
                and (self._is_mine(str(holder)) or not await anyio.Path(holder).exists())
            ):
                holder = paths[0]
            if holder in paths:
                winners[job] = holder
            error = f"job {job!r} has its schedule from {holder}; only one file can declare it"
            clashes |= {str(path): error for path in paths if path != holder}
        return winners, clashes

    async def _report(self, store: Store, errors: Mapping[str, str], loading: set[Path], now: float) -> list[str]:
        recorded = {
            broken.path: broken.error for broken in await store.schedules.broken() if self._is_mine(broken.path)
        }
        for path in recorded.keys() - errors.keys() - set(map(str, loading)):
            await store.schedules.mended(path)
        told = []
        for path, error in errors.items():
            if recorded.get(path) != error:
                await store.schedules.report_broken(path, error, now)
                told.append(f"{path} is broken: {error}")
        return told

    def _is_mine(self, path: str) -> bool:
        return Path(path) in self._folders or Path(path).parent in self._folders


def _stamps(folders: Iterable[Path]) -> Stamps:
    """Return time and size of every job file; a missing folder gets a stamp of its own.

    Raises `OSError` if that cannot be found out, for example without file descriptors: then nothing has changed.
    """
    stamps: Stamps = {}
    for folder in folders:
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.endswith(".py") and not entry.name.startswith(("_", ".")):
                        with suppress(FileNotFoundError):  # removed just now
                            status = entry.stat()
                            stamps[folder / entry.name] = (status.st_mtime_ns, status.st_size)
        except (FileNotFoundError, NotADirectoryError):
            stamps[folder] = _GONE
    return stamps
