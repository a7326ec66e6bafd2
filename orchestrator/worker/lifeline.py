"""The worker ends with its parent: neither a crash nor a kill -9 of the parent leaves a model in memory."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from typing import NoReturn

from orchestrator.parent import outlive

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with(parent: int) -> None:
    """End this process when its parent is gone or closes our standard input."""
    threading.Thread(target=_end_after, args=(parent,), name="lifeline", daemon=True).start()
    killed_with_parent()


def killed_with_parent() -> None:
    """On Linux, let the kernel end this process too, even if its interpreter is blocked inside a model call."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def leave(reason: str) -> NoReturn:
    """End this process after an error that every later call would meet; the parent starts a fresh worker."""
    sys.stderr.write(f"\n{reason}\n")
    sys.stderr.flush()
    os._exit(1)


def _end_after(parent: int) -> None:
    outlive(parent)
    os._exit(0)  # no clean-up, because the model's thread may be busy for minutes
