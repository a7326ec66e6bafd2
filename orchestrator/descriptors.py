"""File descriptors: of the standard streams, and how many there may be for connections. Standard library only."""

from __future__ import annotations

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

_MOST = 65_536  # a higher limit slows down programs that close every possible descriptor at start
_KEPT = 32  # descriptors for everything but requests: the ledger, files, the guard, hooks


def open_standard_streams() -> None:
    """Open the null device in place of each standard stream that was closed (`>&-`).

    Otherwise the next file to be opened gets its number: the event loop aborts the process when it closes that, and
    what a child process prints would go into the file.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # it gets the lowest number, which is this one
            os.set_inheritable(null, True)  # noqa: FBT003 - it takes no keywords
            setattr(sys, name, open(null, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - as the others are


def raise_limit() -> None:
    """Raise the limit of this process and its children as far as the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):  # macOS allows less than it reports
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def limit() -> int:
    """Return the number of descriptors that this process may have, as `ulimit -n` does."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def for_connections() -> int | None:
    """Return how many connections this process can still open; None if that is unlimited or not known."""
    if limit() == resource.RLIM_INFINITY:
        return None
    try:
        return max(1, limit() - len([*Path("/dev/fd").iterdir()]) - _KEPT)
    except OSError:
        return None
