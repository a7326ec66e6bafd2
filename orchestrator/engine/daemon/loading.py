"""How long a job file has to say what it declares, in a process of its own: neither in Python nor in C may it hang."""

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
    """The block ends in time, or this process does, by SIGALRM: also when whoever waits for it is gone."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LOADING)
    try:
        yield
    finally:
        signal.alarm(0)
