"""Paths on this machine, as a source or a sink is given them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from orchestrator.domain.errors import UsageError

# two characters at least, since C:\ is a drive; `Path` makes one slash of two
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]+):[/\\]")
# Of these fsspec and others take URLs without a slash, too; `notes:1.jsonl` is a file like any other.
_BARE = re.compile(
    r"(memory|s3a?|r2|gcs?|gs|az|abfss?|adl|oss|hf|hdfs|webhdfs|https?|s?ftp|ssh|file|github|data):", re.IGNORECASE
)
_DRIVE = re.compile(r"[A-Za-z]:\\")


def local_path(given: str | Path) -> Path:
    """Return the path with `~` expanded. `UsageError` for a URL, and for what cannot be a path."""
    if scheme := _SCHEME.match(str(given)) or _BARE.match(str(given)):
        raise UsageError(f"{scheme[1]}:// is not supported ({given}): give a path on this machine")
    if os.sep == "/" and _DRIVE.match(str(given)):
        raise UsageError(f"{given} is a path on Windows, and would be one file name here: write it with slashes")
    if not str(given) or "\0" in str(given):
        raise UsageError(f"{str(given)!r} is not a path: give the path of a file")
    try:
        return Path(given).expanduser()
    except RuntimeError as failure:
        raise UsageError(f"{given} names a home folder that does not exist: write the path out") from failure
