"""Failpoints: named places at which a test can have a process killed. Outside such tests they do nothing."""

from __future__ import annotations

import os
import signal
from typing import Literal, get_args

Point = Literal[
    "before submit",
    "after submit",
    "before slot",
    "after slot",
    "before claim",
    "after claim",
    "before take",
    "after take",
    "before lease",
    "after lease",
    "before resume",
    "after resume",
    "before send",
    "after send",
    "before commit",
    "after commit",
    "before rename",
    "after rename",
    "before pause",
    "after pause",
    "before put back",
    "after put back",
    "before leave",
    "after leave",
    "before create batch",
    "after create batch",
    "before begin batch",
    "after begin batch",
    "before end batch",
    "after end batch",
]
POINTS: tuple[Point, ...] = get_args(Point)

# A folder. A file in it that is named like a failpoint kills the first process that reaches the point. The process
# deletes the file first, so only one process is killed, and the test can see that the point was reached.
_FOLDER = os.environ.get("ORCHESTRATOR_FAILPOINTS")


def reached(point: Point) -> None:
    """Kill this process if the point is armed. "before" a transaction means inside it, just before the commit."""
    if _FOLDER is not None:
        _die_if_armed(os.path.join(_FOLDER, point))


def _die_if_armed(file: str) -> None:
    try:
        os.unlink(file)
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
