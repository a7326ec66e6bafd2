"""A file that is written under a temporary name in the same folder and then renamed."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from secrets import token_hex
from shutil import move
from tempfile import gettempdir
from typing import TYPE_CHECKING, Self

from orchestrator.domain.errors import UsageError
from orchestrator.domain.failpoints import reached
from orchestrator.domain.location import Location
from orchestrator.sinks.output_file import OutputFile, abandon

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from orchestrator.domain.location import Target


class Aside(OutputFile):
    """A file with a temporary name in the folder of its own one. Leaving the block removes it, unless it was renamed.

    If the path is a symbolic link, the link stays, and the file that it leads to is written. Files that killed
    processes left are removed first; with `sweeps_late`, only after this file is in place.
    """

    path: Path

    def __init__(self, path: Path, *, sweeps_late: bool = False, packing: str | None = None) -> None:
        super().__init__(path, packing)
        self._sweeps_late = sweeps_late
        self._outlives = False  # the block, even if it was not renamed: it proves whose files the renamed ones are
        self._place = _place_of(path)
        self.temporary = aside_of(path)

    def __enter__(self) -> Self:
        if not self._sweeps_late:
            _sweep(self.path)
        self._file = self.temporary.open("xb")
        self._stack.callback(self._remove)
        self._stack.callback(abandon, self._file)
        with suppress(OSError):  # on a disk without locks nothing is ever removed
            fcntl.flock(self._file, fcntl.LOCK_EX)
        return self

    def _remove(self) -> None:
        if not self._outlives:
            self.temporary.unlink(missing_ok=True)

    @property
    def _folder(self) -> Path:
        return self._place.parent

    def is_in_place(self, about: Mapping[str, object] | None) -> bool:
        """Return False, because writing a file again costs nothing that reading it does not."""
        return False

    def put_in_place(self) -> Mapping[str, object]:
        """Rename the file to its own name, replacing an older one."""
        reached("before rename")
        self.temporary.replace(self._place)
        reached("after rename")
        if self._place.parent != self.path.parent:
            sync_folder(self._place.parent)
        if self._sweeps_late:
            _sweep(self.path)
        return {}

    def keep_also_as(self, other: Target) -> None:
        """Give the older file a second name, which it keeps when this one takes its own name."""
        keep_also_as(self.path, Path(other))

    def announce(self, manifest: bytes) -> None:
        """Write the manifest under its temporary name, which a killed process leaves."""
        self.write(manifest)
        self.sync()
        self._outlives = True

    def publish(self, manifest: bytes) -> None:
        """Rename the manifest, and wait until the names of all files in the folder are on disk."""
        self.put_in_place()
        sync_folder(self.path.parent)


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


def sync_folder(folder: Path) -> None:
    """Wait until the folder's entries are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing(path: Target) -> Iterator[None]:
    """Translate errors in writing the files of a delivery."""
    try:
        yield
    except OSError as failure:
        why = failure.strerror or failure
        if isinstance(path, Location):  # the store's own failures are translated already
            raise UsageError(
                f"{path} cannot be written ({why} in {gettempdir()}, where it waits for its upload): "
                "free some space there, or set TMPDIR to another folder, and run again"
            ) from failure
        match failure.errno:
            case errno.ENOSPC | errno.EDQUOT:
                remedy = "free some space and run again"
            case errno.EACCES | errno.EPERM | errno.EROFS:
                remedy = "give this user permission to write there, or choose another folder"
            case _:
                remedy = "choose another path"
        raise UsageError(f"{path} cannot be written ({why}): {remedy}") from failure
