"""Keep a log that other processes write to from growing for ever: copy it to a file beside it, then truncate it.

A process keeps its log open as long as it runs, so the file cannot be renamed. It is copied and truncated instead. As
it was opened to append, the process goes on at the new end. Output that is written between these two system calls is
lost. Each folder has one lock, so that logs are not truncated while they are read.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

LARGE = 10_000_000  # bytes at which a file is truncated
KEPT = 3  # files: the log and the older ones, NAME.1 and NAME.2
_LOOK = 1.0  # seconds


def opened(path: Path) -> int:
    """Open the log for a process that appends to it, and return the descriptor. Only the user can read the file.

    A thread keeps the file small until the last copy of the descriptor is closed, in this and every other process. The
    thread ends with our process; so do the processes that write, thanks to their supervisor or lifeline.
    """
    keep_small(path)
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    fcntl.flock(file, fcntl.LOCK_SH)  # released with the last copy, however its owner ends
    threading.Thread(target=_watch, args=(path,), name=f"log {path.name}", daemon=True).start()
    return file


def keep_small(path: Path) -> None:
    """If the log is large, move its content to the older files and truncate it."""
    with at_rest(path):
        if not path.exists() or path.stat().st_size < LARGE:
            return
        aside = path.with_name(f"{path.name}.new")
        private = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(private, "wb") as copy, path.open("r+b") as file:
            shutil.copyfileobj(file, copy)
            for number in range(KEPT - 1, 1, -1):
                with suppress(FileNotFoundError):
                    older(path, number - 1).replace(older(path, number))
            aside.replace(older(path, 1))
            shutil.copyfileobj(file, copy)  # what was written in the meantime
            copy.flush()
            file.truncate(0)


def older(path: Path, number: int) -> Path:
    """Return the path of the log's content from `number` truncations ago."""
    return path.with_name(f"{path.name}.{number}")


@contextmanager
def at_rest(path: Path) -> Iterator[None]:
    """Ensure that no log in this log's folder is truncated during the block."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _watch(path: Path) -> None:
    with suppress(OSError), path.open("rb") as file:  # the disk is full, or the file was deleted
        while _is_written(file):
            time.sleep(_LOOK)
            keep_small(path)


def _is_written(file: BinaryIO) -> bool:
    """Whether any process still has a descriptor from `opened`."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False
