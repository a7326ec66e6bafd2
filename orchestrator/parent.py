"""Detecting that the parent process has died. Standard library only: guard and supervisor are scripts.

End-of-file on a pipe is not a reliable sign: processes that the parent has forked without exec, such as the workers of
a process pool, also hold the pipe. The number of our parent is reliable: when it dies, the kernel gives us another one.
So pipes carry messages, and if end-of-file does arrive, it counts as well.

The end of a pipe alone proves nothing (`orchestrator/parent.py`), because children that the job's code forks hold
it open. Guard, supervisor and workers therefore check `getppid` twice a second. Such children receive signals as
any program does and end with us. Code that never yields cannot keep a run from ending either: a thread receives
signals (`cli/signals.py`) and ends the process if the event loop does not react; the guard pauses.
"""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

LOOK = 0.5  # seconds between two checks of our parent's number


def readable(parent: int, descriptors: Sequence[int], until: float | None = None) -> list[int] | None:
    """Wait until a descriptor can be read, or until `until` on the monotonic clock. Return those that can be read.

    Returns None once the process `parent`, which started this one, has died and there is nothing left to read.
    """
    while True:
        gone = os.getppid() != parent
        left = LOOK if until is None else min(LOOK, max(0.0, until - time.monotonic()))
        ready, _, _ = select.select(descriptors, [], [], 0.0 if gone else left)
        if ready or (until is not None and time.monotonic() >= until and not gone):
            return ready
        if gone:
            return None


def outlive(parent: int) -> None:
    """Wait until the process `parent`, which started this one, has died or has closed our standard input."""
    while (ready := readable(parent, [0])) is not None:
        if ready and not os.read(0, 4096):
            return
