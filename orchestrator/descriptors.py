"""The limit on file descriptors, of which each connection needs one. Standard library only."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

_MOST = 65_536  # a higher limit slows down programs that close every possible descriptor at start
_KEPT = 32  # descriptors for everything but requests: the ledger, files, the guard, hooks


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
