"""Submit a job file that is in a watched folder, for a process that must not load it itself."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from orchestrator import exact_json
from orchestrator.domain.errors import UsageError
from orchestrator.engine.daemon.loading import LOADING, TOO_SLOW

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class FileSubmission:
    """What `orchestrator submit` is given. `jobfile`: the path of a job file, or its name in one of the folders."""

    jobfile: str
    at: str = "+0s"
    deadline: str | None = None
    priority: int = 0
    key: str | None = None
    limit: int | None = None

    @property
    def options(self) -> list[str]:
        """The options of the command."""
        given = {"at": self.at, "deadline": self.deadline, "priority": self.priority, "key": self.key}
        given["limit"] = self.limit
        return [f"--{name}={value}" for name, value in given.items() if value is not None]


async def submit_file(
    asked: FileSubmission, folders: Sequence[Path], ledger: Path, settings: Sequence[str]
) -> Mapping[str, object]:
    """Queue a run of a job file in one of the folders; return what `submit --json` prints.

    A child process loads the file, so it can neither block nor kill this one. `settings`: the options with which it
    reads this process's settings. Raises `UsageError` if the file is not in a folder, or what the child says is wrong.
    """
    jobfile = await to_thread.run_sync(_inside, asked.jobfile, folders)
    command = [sys.executable, "-P", "-m", "orchestrator", *settings, "--db", str(ledger), "submit", str(jobfile)]
    try:
        with anyio.fail_after(LOADING):
            done = await anyio.run_process(
                [*command, "--json", *asked.options], stdin=subprocess.DEVNULL, check=False, start_new_session=True
            )
    except TimeoutError as error:
        raise UsageError(f"{jobfile} {TOO_SLOW}") from error
    said = await to_thread.run_sync(_last_object, done.stdout)
    if "run" not in said:
        raise UsageError(str(said.get("error", f"{jobfile} ended its process with exit code {done.returncode}")))
    return said


def _inside(given: str, folders: Sequence[Path]) -> Path:
    """Return the path of a file that is directly in one of the folders. Looks at the disk."""
    for folder in folders:
        path = Path(os.path.normpath(folder / given))
        if path.parent == folder and path.suffix in {".py", ".json"} and path.is_file():
            return path
    raise UsageError(f"{given} is not a job file in a folder of [serve] jobs")


def _last_object(printed: bytes) -> Mapping[str, object]:
    """Return the JSON object at the end of the output; the job file may print before it."""
    begins = printed.rfind(b"\n{\n") + 1
    try:
        said = exact_json.loads(printed[begins:])
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
