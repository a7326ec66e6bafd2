"""Whether the file of an open ledger is still there and still its own, as far as that can be seen from outside."""

from __future__ import annotations

import os
import struct
import threading
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.domain.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HEADER = 100  # bytes (sqlite.org/fileformat2.html, "The Database Header")
_WAL = 2  # the file format of a ledger with a write-ahead log


class _Header(NamedTuple):
    """What a ledger's file says of itself. The counters of one file only ever rise; `number` is its own."""

    changes: int
    schema: int
    number: int

    def follows(self, earlier: _Header) -> bool:
        """Whether the same file may have said the other before. Ledgers of older versions have the number 0."""
        rises = self.changes >= earlier.changes and self.schema >= earlier.schema
        return rises and earlier.number in {0, self.number}


_FILES: dict[tuple[int, int], tuple[int, int]] = {}  # of each file that is open here: its descriptor and its users
_TURN = threading.Lock()


@contextmanager
def held_open(path: Path) -> Iterator[int]:
    """Yield a descriptor of a ledger's file. The process has one for each file, which the last user closes.

    Closing any descriptor of a file gives up all locks on it that the process has, including SQLite's: while one
    thread uses a ledger, no other one may close it. Raises `OSError` if it cannot be opened.
    """
    with _TURN:
        file = identity(path)
        descriptor, users = _FILES.get(file, (-1, 0)) if file is not None else (-1, 0)
        if not users:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            found = os.fstat(descriptor)
            file = found.st_dev, found.st_ino
        assert file is not None
        _FILES[file] = descriptor, users + 1
    try:
        yield descriptor
    finally:
        with _TURN:
            descriptor, users = _FILES.pop(file)
            if users > 1:
                _FILES[file] = descriptor, users - 1
            else:
                os.close(descriptor)


class LedgerFile:
    """The file at a path, as it was when this was opened. It is held open as long as it is used."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path = path
        self.real_path = path.resolve()  # without links
        self._descriptor = descriptor
        self._identity = identity(path if descriptor is None else descriptor)
        self._header = self._read()

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[LedgerFile]:
        """Note which file it is now."""
        with ExitStack() as stack:
            descriptor = None
            with suppress(OSError):  # SQLite says what is wrong
                descriptor = stack.enter_context(held_open(path))
            yield cls(path, descriptor)

    def check(self) -> None:
        """`LedgerError` once it was removed, another one is in its place, or another one's content is in it."""
        if identity(self.path) != self._identity:
            raise LedgerError(f"ledger {self.path} was removed or replaced while it was in use")
        before, now = self._header, self._read()
        if before is not None and (now is None or not now.follows(before)):
            raise LedgerError(f"ledger {self.path} was written over by a copy while it was in use")
        self._header = now

    def _read(self) -> _Header | None:
        """None where that says nothing: with a rollback journal, what one writes may be taken back by the next."""
        header = b"" if self._descriptor is None else os.pread(self._descriptor, _HEADER, 0)
        if len(header) < _HEADER or header[18] != _WAL:
            return None
        return _Header(*(struct.unpack_from(">I", header, place)[0] for place in (24, 40, 60)))


def identity(file: Path | int) -> tuple[int, int] | None:
    """Which file it is, whatever its name; None where there is none."""
    try:
        found = os.stat(file)  # noqa: PTH116 - of a descriptor, too
    except OSError:
        return None
    return found.st_dev, found.st_ino
