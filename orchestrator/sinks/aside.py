"""A file that is written under a temporary name in the same folder and then renamed."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from contextlib import ExitStack, contextmanager, suppress
from glob import escape
from pathlib import Path
from secrets import token_hex
from shutil import move
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Self

from orchestrator.domain.errors import UsageError
from orchestrator.domain.failpoints import reached
from orchestrator.sinks.packing import packer_for

if TYPE_CHECKING:
    from collections.abc import Iterator


class Aside:
    """A file whose bytes are hashed as they are written. Leaving the block removes it, unless it was renamed.

    If the path is a symbolic link, the link stays, and the file that it leads to is written. Files that killed
    processes left are removed first; with `sweeps_late`, only after this file is in place. `packing`: how the bytes are
    compressed; the hash is that of the file.
    """

    def __init__(self, path: Path, *, sweeps_late: bool = False, packing: str | None = None) -> None:
        self.path = path
        self._sweeps_late = sweeps_late
        self.records = 0
        self.outlives = False  # the block, even if it was not renamed: it proves whose files the renamed ones are
        self.closed = False  # Arrow asks
        self._place = _place_of(path)
        self.temporary = aside_of(path)
        self._digest = hashlib.sha256()
        self.size = 0  # bytes so far
        self._packer = None if packing is None else packer_for(packing)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if not self._sweeps_late:
            _sweep(self.path)
        self._file = self.temporary.open("xb")
        self._stack.callback(self._remove)
        self._stack.callback(_abandon, self._file)
        with suppress(OSError):  # on a disk without locks nothing is ever removed
            fcntl.flock(self._file, fcntl.LOCK_EX)
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.close()

    def _remove(self) -> None:
        if not self.outlives:
            self.temporary.unlink(missing_ok=True)

    def write(self, data: bytes) -> int:
        """Add the bytes."""
        self._add(data if self._packer is None else self._packer.compress(data))
        return len(data)

    def _add(self, data: bytes) -> None:
        self._digest.update(data)
        self.size += len(data)
        self._file.write(data)

    def scratch(self) -> IO[bytes]:
        """Open a nameless file on the same disk, which disappears when the block or the process ends."""
        file = TemporaryFile(dir=self._place.parent)  # noqa: SIM115 - closed with the block
        self._stack.callback(_abandon, file)
        return file

    def sync(self) -> dict[str, object]:
        """Wait until every byte is on disk; none follows. Return the file's entry for the manifest."""
        if self._packer is not None:
            self._add(self._packer.flush())
        self._file.flush()
        os.fsync(self._file.fileno())
        return {"sha256": self._digest.hexdigest(), "bytes": self.size, "records": self.records}

    def put_in_place(self) -> None:
        """Rename the file to its own name, replacing an older one."""
        reached("before rename")
        self.temporary.replace(self._place)
        reached("after rename")
        if self._place.parent != self.path.parent:
            sync_folder(self._place.parent)
        if self._sweeps_late:
            _sweep(self.path)


def keep_also_as(path: Path, other: Path) -> None:
    """Give the file a second name, which it keeps when a new file takes its own name."""
    place = _place_of(path)
    try:
        os.link(place, other)
    except OSError:  # a disk without hard links, or the place is on another disk
        move(place, other)


def aside_of(path: Path) -> Path:
    """Return an unused name beside the file's own, or beside the file that a symbolic link leads to."""
    place = _place_of(path)
    return place.with_name(f".{place.name}.{os.getpid()}-{token_hex(4)}.tmp")


def left_aside(path: Path) -> Iterator[Path]:
    """Return the temporary files of deliveries to this path: of live ones and of killed ones."""
    place = _place_of(path)
    return place.parent.glob(f".{escape(place.name)}.*-????????.tmp")


def _place_of(path: Path) -> Path:
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _sweep(path: Path) -> None:
    """Remove the files that killed processes left; a live process holds the lock on its file."""
    for left in left_aside(path):
        with suppress(OSError), left.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def _abandon(file: IO[bytes]) -> None:
    with suppress(OSError):  # on a full disk, closing the abandoned file fails a second time
        file.close()


def sync_folder(folder: Path) -> None:
    """Wait until the folder's entries are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Translate errors in writing the files of a delivery."""
    try:
        yield
    except OSError as failure:
        match failure.errno:
            case errno.ENOSPC | errno.EDQUOT:
                remedy = "free some space and run again"
            case errno.EACCES | errno.EPERM | errno.EROFS:
                remedy = "give this user permission to write there, or choose another folder"
            case _:
                remedy = "choose another path"
        raise UsageError(f"{path} cannot be written ({failure.strerror or failure}): {remedy}") from failure
