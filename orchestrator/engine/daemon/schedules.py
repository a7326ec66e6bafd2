"""Schedules: what is due is fired, and what the job files in some folders say is kept in the ledger."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from orchestrator import exact_json
from orchestrator.domain.schedule import Cron, decide
from orchestrator.domain.timetable import Declared, in_order
from orchestrator.engine.daemon.loading import LOADING, TOO_SLOW
from orchestrator.engine.tasks import task_group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from orchestrator.domain.timetable import Fired, Schedule
    from orchestrator.store import Store

_STEPS = 50  # transactions for one schedule in one look: a year of missed minutes does not keep the others waiting
_AT_ONCE = 2  # files that are loaded at the same time
_GONE = (0, -1)  # the stamp of a folder that is not there

Stamps = dict[Path, tuple[int, int]]


async def fire_due(store: Store, now: float, mine: Callable[[Schedule], bool] | None = None) -> list[Fired]:
    """Decide about every slot of these schedules (None: of all) that is due, and queue the runs.

    Any number of processes may do that at any time.
    A schedule whose runs wait for those of another one that is due, too, comes after it.
    A schedule that cannot be made sense of is reported and fires no more; the others do.
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
        await store.schedules.spoil(schedule, f"the schedule of job {schedule.job!r} fires no more: {error}", now)
        return fired
    for _ in range(_STEPS):
        if schedule.next_slot is None or schedule.next_slot > now:
            break
        due = await to_thread.run_sync(decide, cron, schedule.next_slot, now)
        done = await store.schedules.fire(schedule, cron, due, now)
        if done is None:  # somebody else was faster
            break
        fired += done
        schedule = replace(schedule, next_slot=due.following)
    return fired


@dataclass(frozen=True, slots=True)
class Described:
    """What a job file declares, or why it cannot be loaded. Neither: it declares no schedule."""

    declared: Declared | None = None
    error: str | None = None


class JobFolders:
    """The job files of some folders: new, changed and removed ones are noticed by their time and size.

    A file whose name begins with `_` is not looked at, and one that declares no job, or no schedule, is of no interest.
    A broken one is reported, and what it said before it broke goes on. Files are loaded by child processes.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._seen: Stamps | None = None
        self._known: dict[Path, Described] = {}

    def concern(self, schedule: Schedule) -> bool:
        """Whether it is to be fired: a command has made it, or a file in one of these folders."""
        return schedule.source != "file" or self._is_mine(schedule.jobfile)

    async def look(self, store: Store, now: float) -> list[str]:
        """Bring the ledger up to what the files say; gives what there is to tell. Cheap where nothing has changed."""
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
            async with turn:  # what one file says does not wait for the others
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
        """Keep what is known of these files, while others are still being loaded."""
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
        """Which file declares which job's schedule; and files that declare one of another file's job, with that said.

        The file whose schedule is in the ledger has it as long as it declares it; else the first by name of those that
        are loaded.
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
    """Time and size of every job file; a folder that is not there is a name with no file behind it.

    `OSError` where nobody can tell, as without file descriptors: then nothing has changed.
    """
    stamps: Stamps = {}
    for folder in folders:
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.endswith(".py") and not entry.name.startswith(("_", ".")):
                        with suppress(FileNotFoundError):  # removed just now
                            found = entry.stat()
                            stamps[folder / entry.name] = (found.st_mtime_ns, found.st_size)
        except (FileNotFoundError, NotADirectoryError):
            stamps[folder] = _GONE
    return stamps


async def described(path: Path) -> Described:
    """What a job file declares, as a child process finds out: it can neither block nor kill this one."""
    command = [sys.executable, "-P", "-m", "orchestrator", "describe", str(path), "--json"]
    try:
        with anyio.fail_after(LOADING + 30):  # the child gives up by itself before
            done = await anyio.run_process(command, stdin=subprocess.DEVNULL, check=False)
    except TimeoutError:
        return Described(error=f"it {TOO_SLOW}")
    except OSError as error:
        return Described(error=f"it could not be loaded: {error}")
    if done.returncode == -signal.SIGALRM:
        return Described(error=f"it {TOO_SLOW}")
    try:
        said = exact_json.loads(done.stdout.strip().rpartition(b"\n")[2])
        return await to_thread.run_sync(_as_described, path, said)
    except (ValueError, KeyError, TypeError):
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        return Described(error=f"it ended with exit code {done.returncode} and said: {last or 'nothing'}")


def _as_described(path: Path, said: Mapping[str, Any]) -> Described:
    """What `describe --json` says. Reads the zone's file. Relative paths in the job are relative to our own folder."""
    if "error" in said:
        return Described(error=str(said["error"]))
    if said["schedule"] is None:
        return Described()
    about: dict[str, object] = {"jobfile": str(path), "folder": str(Path.cwd()), "overrides": [], "limit": None}
    about |= {name: said[name] for name in ("spec", "no_spec") if name in said}
    cron = Cron(**said["schedule"])
    after = tuple((str(job), bool(any_end)) for job, any_end in said["after"])
    declared = Declared(said["job"], about, said["endpoints"], cron, said["priority"], said["deadline"], after)
    return Described(declared)
