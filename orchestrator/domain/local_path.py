"""Paths on this machine, as a source or a sink is given them."""

from __future__ import annotations

import re
from pathlib import Path

from orchestrator.domain.errors import UsageError

# two characters at least, since C:\ is a drive; `Path` makes one slash of two
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]+):[/\\]")


def local_path(given: str | Path) -> Path:
    """Return the path with `~` expanded. `UsageError` for a URL, and for what cannot be a path."""
    if scheme := _SCHEME.match(str(given)):
        raise UsageError(f"{scheme[1]}:// is not supported ({given}): give a path on this machine")
    if not str(given) or "\0" in str(given):
        raise UsageError(f"{str(given)!r} is not a path: give the path of a file")
    try:
        return Path(given).expanduser()
    except RuntimeError as failure:
        raise UsageError(f"{given} names a home folder that does not exist: write the path out") from failure
