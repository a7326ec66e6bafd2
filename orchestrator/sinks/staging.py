"""A folder on this machine's disk for files that wait to be uploaded."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.sinks.aside import writing

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOCK = ".lock"


@contextmanager
def staging() -> Iterator[Path]:
    """Yield an empty folder, which disappears with the block. Those that killed processes left are removed first.

    It is where the system keeps temporary files: TMPDIR names another disk.
    """
    parent = Path(tempfile.gettempdir())
    prefix = f"orchestrator-{os.getuid()}-staging-"
    for left in parent.glob(f"{prefix}*"):
        _remove_if_left(left)
    with writing(parent):
        unready = Path(tempfile.mkdtemp(prefix=f".{prefix}", dir=parent))
    folder = unready.with_name(unready.name.removeprefix("."))
    try:
        with (unready / _LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            unready.rename(folder)  # from now on, whoever gets the lock may remove it
            yield folder
    finally:
        for one in (unready, folder):
            shutil.rmtree(one, ignore_errors=True)


def _remove_if_left(folder: Path) -> None:
    with suppress(OSError), (folder / _LOCK).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
