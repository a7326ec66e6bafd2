"""A file that others write to, kept from growing for ever: what is in it goes into a file beside it, and it is emptied.

A process has its log open for as long as it lives, so the file cannot be renamed away from under it. It is copied, and
cut to nothing; as it was opened to append, the process goes on at the new end. Words that are written between the two
calls to the system are lost. A folder has one lock: whoever holds it finds files, or readers, at rest.
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

LARGE = 10_000_000  # bytes from which on a file is emptied
KEPT = 3  # files: it, and the older ones NAME.1, NAME.2
_LOOK = 1.0  # seconds


def opened(path: Path) -> int:
    """A descriptor to append to it, for a process that will write; only the user can read it.

    Until the last copy of that descriptor is closed, here and in whatever processes have got it, the file is kept
    small by a thread. That ends with our process: so do, by their supervisor or lifeline, those who write.
    """
    keep_small(path)
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    fcntl.flock(file, fcntl.LOCK_SH)  # goes with the last copy, however its owner ends
    threading.Thread(target=_watch, args=(path,), name=f"log {path.name}", daemon=True).start()
    return file


def keep_small(path: Path) -> None:
    """Empty it where it is large, and keep what was in it."""
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
            shutil.copyfileobj(file, copy)  # what has come meanwhile
            copy.flush()
            file.truncate(0)


def older(path: Path, number: int) -> Path:
    """The file that was emptied so many times ago."""
    return path.with_name(f"{path.name}.{number}")


@contextmanager
def at_rest(path: Path) -> Iterator[None]:
    """Nobody empties a file of its folder during the block."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _watch(path: Path) -> None:
    with suppress(OSError), path.open("rb") as file:  # a full disk, or somebody has tidied up
        while _is_written(file):
            time.sleep(_LOOK)
            keep_small(path)


def _is_written(file: BinaryIO) -> bool:
    """Whether anybody still holds a descriptor that `opened` gave."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False
