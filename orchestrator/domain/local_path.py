"""Checks the local paths that users give for sources and sinks."""

from __future__ import annotations

import os
import re
from pathlib import Path

from orchestrator.domain.errors import UsageError

# At least two characters, since C:\ is a drive. One slash is enough, since `Path` turns two into one.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]+):[/\\]")
# For these schemes, fsspec and others also accept URLs without a slash. `notes:1.jsonl` is an ordinary file name.
_BARE = re.compile(
    r"(memory|s3a?|r2|gcs?|gs|az|abfss?|adl|oss|hf|hdfs|webhdfs|https?|s?ftp|ssh|file|github|data):", re.IGNORECASE
)
_OTHER_NAMES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "az": "abfs"}  # those of other tools
_USER = re.compile(r"(?<=/)[^/@]*@")  # and a password
_VARIABLE = re.compile(r"(?:^|(?<=/))\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})(?=/|$)")  # as a whole folder's name
_DRIVE = re.compile(r"[A-Za-z]:\\")


def local_path(given: str | Path) -> Path:
    """Return the path with `~` expanded. Raises `UsageError` for a URL and for anything that cannot be a local path."""
    if scheme := _SCHEME.match(str(given)) or _BARE.match(str(given)):
        shown = _USER.sub("***@", str(given).partition("?")[0])
        ours = _OTHER_NAMES.get(scheme[1].lower())
        remedy = "give a path on this machine" if ours is None else f"write {ours}://"
        raise UsageError(f"{scheme[1]}:// is not supported ({shown}): {remedy}")
    if os.sep == "/" and _DRIVE.match(str(given)):
        raise UsageError(f"{given} is a path on Windows, and would be one file name here: write it with slashes")
    if (found := _VARIABLE.search(str(given))) and not os.path.lexists(str(given)[: found.end()]):
        name = found[1] or found[2]
        raise UsageError(
            f"{given}: only a shell replaces {found[0]}: use Python's os.environ[{name!r}], or write it out"
        )
    if not str(given) or "\0" in str(given):
        raise UsageError(f"{str(given)!r} is not a path: give the path of a file")
    try:
        return Path(given).expanduser()
    except RuntimeError as failure:
        raise UsageError(f"{given} names a home folder that does not exist: write the path out") from failure
