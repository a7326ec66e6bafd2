"""Processes as the ledger knows them, and whether they are alive."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

LIVE = "SELECT id, host, pid, pid_started, lease_until FROM process WHERE state = 'live'"
_SAME_START = 2.0  # seconds by which two readings of the same process's start may differ


@dataclass(frozen=True, slots=True)
class Process:
    """One start of one process: where it runs and until when its lease lasts."""

    id: int
    host: str
    pid: int
    pid_started: float
    lease_until: float

    def is_here(self) -> bool:
        """Whether it runs on this machine and can be inspected. Blocking."""
        return self.host == this_host()

    def is_dead(self) -> bool:
        """Whether it is dead, as far as this machine can tell. Blocking.

        On this machine it is inspected; elsewhere, or if it hangs, its lease decides.
        """
        here = self.is_here()
        me = here and self.pid == os.getpid()
        # our own lease may be over although we live: the clock was put forward, or the machine slept
        if self.lease_until < time.time() and not (me and self._is_there()):
            return True
        return here and not self._is_there()

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.partition('/')[0]}"

    def _is_there(self) -> bool:
        import psutil  # it takes a while, and most commands find no process to look at

        try:
            running = psutil.Process(self.pid)
            started: float = running.create_time()
            return running.status() != psutil.STATUS_ZOMBIE and abs(started - self.pid_started) <= _SAME_START
        except psutil.NoSuchProcess:
            return False


def this_host() -> str:
    """Return machine, boot and pid namespace: processes for which these are equal see each other's pids."""
    parts = [socket.gethostname()]
    for source in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        path = Path(source)
        if path.is_symlink():
            parts.append(str(path.readlink()))
        elif path.exists():
            parts.append(path.read_text().strip())
    return "/".join(parts)
