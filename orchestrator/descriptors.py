"""File descriptors: a connection takes one, and a process may have so many. Standard library only."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

_MOST = 65_536  # more would make those slow that look at each: programs that close all they have inherited
_KEPT = 32  # for what is no request: the ledger, files, the guard, hooks


def raise_limit() -> None:
    """Let this process, and what it starts, have as many as the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def limit() -> int:
    """How many this process may have: what `ulimit -n` says."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def for_connections() -> int | None:
    """How many connections this process can still open; None where the system does not say."""
    if limit() == resource.RLIM_INFINITY:
        return None
    try:
        return max(1, limit() - len([*Path("/dev/fd").iterdir()]) - _KEPT)
    except OSError:
        return None
