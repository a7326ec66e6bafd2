"""The time limit for loading a job file in its own process, which holds in Python code and in C code."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LOADING = 60  # seconds
TOO_SLOW = f"did not say what it declares within {LOADING} seconds"


@contextmanager
def limited() -> Iterator[None]:
    """End this process by SIGALRM if the block takes too long, even if the process that waits for it is gone."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LOADING)
    try:
        yield
    finally:
        signal.alarm(0)
