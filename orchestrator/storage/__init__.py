"""Storage: the only package that reads and writes what is not on this machine; one file per kind of store.

A `Target` is a local path or a `Location`. The functions here take either where callers have either.
"""

from __future__ import annotations

import hashlib
import io
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from orchestrator.domain.location import Location
from orchestrator.storage.store import Stat, Storage

if TYPE_CHECKING:
    from orchestrator.domain.location import Target

_STORES = {
    "s3": "orchestrator.storage.s3:S3",
    "gs": "orchestrator.storage.gcs:Gcs",
    "abfs": "orchestrator.storage.azure:Azure",
    "abfss": "orchestrator.storage.azure:Azure",
    "hf": "orchestrator.storage.hf:Hf",
    "https": "orchestrator.storage.web:Web",
    "http": "orchestrator.storage.web:Web",
}
READ_AHEAD = 8 << 20  # bytes of one request where an object is read from beginning to end


def storage_of(location: Location) -> Storage:
    """Return the storage for the location's scheme."""
    return _storage(_STORES[location.scheme])


@cache
def _storage(kind: str) -> Storage:
    module, _, name = kind.partition(":")
    return cast("Storage", getattr(import_module(module), name)())  # some import Arrow, which takes 0.1 s


def opened(location: Location) -> io.BufferedReader:
    """Open the object for reading it as a stream, in requests of `READ_AHEAD` bytes."""
    return io.BufferedReader(cast("io.RawIOBase", storage_of(location).open(location)), READ_AHEAD)


def fingerprint(location: Location) -> str:
    """Return the store's own version of the object, or else a hash of its bytes, which are then read.

    Raises `UsageError` if there is no such object.
    """
    stat = storage_of(location).stat(location)
    if stat is not None and stat.version is not None:
        return stat.version
    with opened(location) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def exists(target: Target) -> bool:
    """Whether there is a file or an object."""
    return target.exists() if isinstance(target, Path) else storage_of(target).stat(target) is not None


def contents(target: Target) -> bytes:
    """Return all bytes of a small file or object. Raises `FileNotFoundError` if there is none."""
    if isinstance(target, Path):
        return target.read_bytes()
    if storage_of(target).stat(target) is None:
        raise FileNotFoundError(target)
    with opened(target) as file:
        return file.read()


def delete(target: Target) -> None:
    """Delete the file or object, if there is one."""
    if isinstance(target, Path):
        target.unlink(missing_ok=True)
    else:
        storage_of(target).delete(target)


__all__ = [
    "READ_AHEAD",
    "Location",
    "Stat",
    "Storage",
    "contents",
    "delete",
    "exists",
    "fingerprint",
    "opened",
    "storage_of",
]
