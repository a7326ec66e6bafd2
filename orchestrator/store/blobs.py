"""Contents of files, beside the ledger: each is written once and named by its SHA-256."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING, BinaryIO

from orchestrator.domain.errors import DamagedFile, LedgerError
from orchestrator.store.private import made_by_others

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_TEMPORARY = ".tmp"
_MOST_CHECKED = 1000
_PIECE = 1 << 20  # bytes that are copied at once
_UNFINISHED = re.compile(r"\d+-[0-9a-f]{16}\.tmp")
_CONTENT = re.compile("[0-9a-f]{64}")  # names of contents; whatever else is in the folder is not ours


@dataclass(slots=True)
class NewBlob:
    """A content that is being written. Its methods block."""

    temporary: Path
    _file: BinaryIO
    size: int = 0  # bytes
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    @property
    def sha256(self) -> str:
        """The hash of what was written so far."""
        return self._hash.hexdigest()

    def write(self, content: bytes) -> None:
        """Append to it."""
        with _writable(self.temporary):
            self._file.write(content)
        self._hash.update(content)
        self.size += len(content)

    def md5(self) -> str:
        """Return the MD5 of what was written so far, in hexadecimal, which a client may know."""
        with _writable(self.temporary):
            self._file.flush()
            with self.temporary.open("rb") as written:
                return hashlib.file_digest(written, partial(hashlib.md5, usedforsecurity=False)).hexdigest()

    def sync(self) -> None:
        """Return once everything written is on disk."""
        with _writable(self.temporary):
            self._file.flush()
            os.fsync(self._file.fileno())


class Blobs:
    """The folder of contents of one ledger. Its methods block.

    `place` and `drop` belong into a write transaction of the ledger, which keeps a content from being removed while a
    row that names it is written.
    """

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._folder = ledger.with_name(f"{ledger.name}.files")
        self._checked: dict[str, tuple[int, int, int]] = {}  # what was seen of each content when it was whole

    def path(self, sha256: str) -> Path:
        """Return where the content with this hash is."""
        return self._folder / sha256

    def check(self, sha256: str) -> None:
        """Raise `DamagedFile` if the content with this hash is another one by now. One that is gone is not read."""
        path = self.path(sha256)
        try:
            with path.open("rb") as content:
                found = os.fstat(content.fileno())
                stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
                if self._checked.get(sha256) == stamp:
                    return
                if hashlib.file_digest(content, "sha256").hexdigest() != sha256:
                    raise DamagedFile(
                        f"the stored file {path} is damaged: its content is not the one that was written. Restore it "
                        "from a backup, or delete the file and send it again"
                    )
        except FileNotFoundError:
            return
        except OSError as error:
            raise DamagedFile(f"the stored file {path} cannot be read: {error.strerror}") from error
        if len(self._checked) >= _MOST_CHECKED:
            self._checked.clear()
        self._checked[sha256] = stamp

    @contextmanager
    def new(self) -> Iterator[NewBlob]:
        """Yield a content to be written; it is gone after the block unless it was placed. `LedgerError` if it fails."""
        temporary = self._folder / f"{os.getpid()}-{token_hex(8)}{_TEMPORARY}"
        with _writable(temporary):
            self._folder.mkdir(mode=0o700, exist_ok=True)
            if made_by_others(self._folder, self._ledger):
                raise LedgerError(f"another user of this machine made the folder {self._folder}: move the ledger")
            file = os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        try:
            with file:
                yield NewBlob(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)

    def place(self, new: NewBlob) -> None:
        """Give a synced content its own name."""
        with _writable(new.temporary):
            new.temporary.replace(self.path(new.sha256))
            descriptor = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def drop(self, sha256: str) -> None:
        """Remove a content, if it is there."""
        with suppress(OSError):  # the next look at all contents tries again
            self.path(sha256).unlink()

    def contents(self) -> list[str]:
        """Return the hashes of all contents."""
        return [path.name for path in self._paths() if _CONTENT.fullmatch(path.name)]

    def copy_to(self, other: Blobs, contents: Sequence[str], pulse: Callable[[], None]) -> int:
        """Copy these contents, and remove all others there. Returns how many of them are there then.

        A content that is gone by now was deleted, or has expired. `pulse` may raise to stop between two of them.
        """
        wanted, there = {sha256 for sha256 in contents if self.path(sha256).exists()}, set(other.contents())
        for sha256 in sorted(wanted - there):
            pulse()
            with suppress(FileNotFoundError), self.path(sha256).open("rb") as content, other.new() as made:
                while piece := content.read(_PIECE):
                    made.write(piece)
                made.sync()
                other.place(made)
        for sha256 in there - wanted:
            other.drop(sha256)
        return len(wanted)

    def drop_abandoned(self, before: float) -> None:
        """Remove what killed processes left half written: nobody has written to it since `before`."""
        for path in self._paths():
            with suppress(OSError):
                if _UNFINISHED.fullmatch(path.name) and path.stat().st_mtime < before:
                    path.unlink()

    def _paths(self) -> list[Path]:
        return list(self._folder.iterdir()) if self._folder.is_dir() else []


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LedgerError(
            f"the folder of files {path.parent} cannot be written: {error.strerror}; free some space or check its "
            "permissions"
        ) from error
