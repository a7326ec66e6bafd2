"""Loading a job file in a process of its own: its time limit, and what it says about the job."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from orchestrator import exact_json
from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.schedule import Cron
from orchestrator.domain.timetable import Declared
from orchestrator.spec import stored_spec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from orchestrator.job import Job

LOADING = 60  # seconds
TOO_SLOW = f"did not say what it declares within {LOADING} seconds"


@contextmanager
def limited() -> Iterator[None]:
    """End this process by SIGALRM if the block takes too long, in Python code or in C code.

    This holds even if the process that waits for it is gone.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LOADING)
    try:
        yield
    finally:
        signal.alarm(0)


# -- in the child ------------------------------------------------------------------------------------------------------


def description_of(job: Job) -> dict[str, object]:
    """Return what a job declares, for another process."""
    return {
        "job": job.name,
        "schedule": None if job.schedule is None else asdict(job.schedule),
        "endpoints": sorted(job.endpoint_names),
        "priority": 0,
        "deadline": job.policy.deadline,
        "after": job.waits_for,
        "fingerprint": _fingerprint(job),
    } | stored_spec(job)


def _fingerprint(job: Job) -> str | None:
    """Return the job's fingerprint; None if an input to it, such as a model's folder, is not on this machine."""
    try:
        return job.fingerprint(job.identity(), None)
    except (OrchestratorError, OSError):
        return None


# -- in the process that waits for it ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Described:
    """What a job file declares, or why it cannot be loaded; neither if it declares no schedule."""

    declared: Declared | None = None
    error: str | None = None


async def described(path: Path) -> Described:
    """Return what a job file declares, loaded by a child process, so that it can neither block nor kill this one."""
    command = [sys.executable, "-P", "-m", "orchestrator", "describe", str(path), "--json"]
    try:
        with anyio.fail_after(LOADING + 30):  # the child gives up by itself before that
            done = await anyio.run_process(command, stdin=subprocess.DEVNULL, check=False)
    except TimeoutError:
        return Described(error=f"it {TOO_SLOW}")
    except OSError as error:
        return Described(error=f"it could not be loaded: {error}")
    if done.returncode == -signal.SIGALRM:
        return Described(error=f"it {TOO_SLOW}")
    try:
        description = exact_json.loads(done.stdout.strip().rpartition(b"\n")[2])
        return await to_thread.run_sync(_as_described, path, description)
    except (ValueError, KeyError, TypeError):
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        return Described(error=f"it ended with exit code {done.returncode}; its last message: {last or 'none'}")


def _as_described(path: Path, said: Mapping[str, Any]) -> Described:
    """Parse the output of `describe --json`. Reads the zone's file. Relative paths count from our own folder."""
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
