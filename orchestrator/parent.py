"""Whether the process that started this one still lives. Standard library only: guard and supervisor are scripts.

The end of a pipe is no reliable sign: whatever the parent has forked without exec, such as the workers of a process
pool, holds the pipe, too. The number of our parent is one: when it dies, the kernel gives us another parent. So pipes
carry words, and their end counts where it comes.
"""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

LOOK = 0.5  # seconds between two looks at who our parent is


def readable(parent: int, descriptors: Sequence[int], until: float | None = None) -> list[int] | None:
    """Wait until one of the descriptors can be read, or the monotonic clock shows `until`; gives those that can be.

    None once the process `parent`, which started this one, is gone and has left nothing to read.
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
    """Return once the process `parent`, which started this one, is gone, or has closed our standard input."""
    while (ready := readable(parent, [0])) is not None:
        if ready and not os.read(0, 4096):
            return
