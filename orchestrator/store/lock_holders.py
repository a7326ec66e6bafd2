"""Which process keeps others out of a ledger. Linux says so in /proc/locks; elsewhere nobody does."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

_LOCKS = Path("/proc/locks")
_WRITE_LOCK = (
    "120"  # the byte of the -shm file that whoever writes to a write-ahead log has locked (walformat.html, 2.3)
)


def lock_holders(ledger: Path) -> list[str]:
    """Return the processes that may write to the ledger just now, in words; none where that cannot be told."""
    places = {}
    for path, byte in ((ledger, None), (ledger.with_name(f"{ledger.name}-shm"), _WRITE_LOCK)):
        with suppress(OSError):
            places[str(path.stat().st_ino)] = byte
    try:
        lines = [line.split() for line in _LOCKS.read_text("ascii").splitlines()]
    except OSError:
        return []
    holders = {
        int(pid)
        for _, _, _, kind, pid, place, start, _ in (line for line in lines if "->" not in line)
        if kind == "WRITE" and (inode := place.rpartition(":")[2]) in places and places[inode] in {None, start}
    }
    return [_described(pid) for pid in sorted(holders - {os.getpid()})]


def _described(pid: int) -> str:
    import psutil

    words = f"process {pid}"
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        since = datetime.fromtimestamp(process.create_time(), UTC)
        words += f" ({' '.join(process.cmdline())[:100]}), which has run since {since:%Y-%m-%d %H:%M:%SZ}"
        if process.status() == psutil.STATUS_STOPPED:
            words += f" and is stopped: `kill -CONT {pid}` lets it go on"
    return words
