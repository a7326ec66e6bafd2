"""Standard input as a file: it can be read only once, but a source is read for its hash and for its rows."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from threading import Lock
from typing import IO

from orchestrator.domain.errors import UsageError

STDIN = Path("/dev/stdin")

_NAMES = frozenset(map(Path, ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")))
_FD = 0
_OPEN_FILES = Path("/proc/self/fd")  # Linux; elsewhere such a path shares its read position

_spools: list[IO[bytes]] = []  # at most one
_spools_lock = Lock()


def readable(path: Path) -> Path:
    """Return the path where a file can be read: its own, or that of a copy of what is piped into this process.

    Raises `UsageError` if it is standard input and nothing is piped in.
    """
    if path not in _NAMES or stat.S_ISREG(os.fstat(_FD).st_mode):
        return path
    with _spools_lock:
        if not _spools:
            _spools.append(_copy())
        name = _spools[0].name  # a number where it has none
        return Path(name) if isinstance(name, str) else _OPEN_FILES / str(name)


def _copy() -> IO[bytes]:
    mode = os.fstat(_FD).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):  # a terminal; what a daemon starts has an empty device
        raise UsageError(
            "nothing is piped into standard input, of which the source reads: give it a file, or pipe rows in"
        )
    # nameless if that can be opened again, so that it disappears with the process however that ends
    spool = TemporaryFile() if _OPEN_FILES.exists() else NamedTemporaryFile()  # noqa: SIM115 - open as long as the process
    with open(_FD, "rb", closefd=False) as given:
        shutil.copyfileobj(given, spool, 1 << 20)
    spool.flush()
    return spool
