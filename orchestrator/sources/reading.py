"""A file as bytes or lines, unpacked where its name ends in .gz. What keeps it from being read is a `UsageError`."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import stat
import zlib
from abc import ABC, abstractmethod
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from glob import iglob
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from orchestrator.domain.errors import NoFiles, UsageError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from orchestrator.domain.item import Row

_BUFFER = 1 << 20
_BOM = b"\xef\xbb\xbf"
_MAGIC = re.compile(r"[*?[]")


@dataclass(frozen=True, slots=True)
class FileSource(ABC):
    """What the sources that read files have in common. The path is made absolute, `~` is expanded.

    One with `*`, `?` or `[` in it is a pattern, unless there is a file of that name: its files are read one after the
    other, sorted by path; `**` matches folders at any depth.
    """

    path: str | Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", absolute(self.path))

    @contextmanager
    def rows(self) -> Iterator[Iterator[Row]]:
        """Open the first file, check what can be checked of it, and give the rows of all in order."""
        first, *others = self.files()
        with self._open(first) as rows:
            if not others:
                yield rows
                return
            with closing(self._following(others)) as following:
                yield chain(_said_where(first, rows), following)

    def files(self) -> list[Path]:
        """The files there are now. `NoFiles` where a pattern matches none."""
        path = Path(self.path)
        if not _MAGIC.search(str(path)) or path.exists():
            return [path]
        matches = (Path(match) for match in sorted(iglob(str(path), recursive=True)))  # noqa: PTH207 - absolute
        files = [match for match in matches if not match.is_dir()]
        if not files:
            raise NoFiles(f"{path} matches no file: check the pattern")
        return files

    def sha256(self) -> str:
        """Return the hex SHA-256 of the file as it lies on disk, packed or not; of several, over paths and contents."""
        first, *others = self.files()
        if not others and first == self.path:
            return sha256_of(first)
        digest = hashlib.sha256()
        for path in (first, *others):
            digest.update(bytes(path) + b"\0" + sha256_of(path).encode() + b"\n")
        return digest.hexdigest()

    def describe(self) -> str:
        """Return the path."""
        return str(self.path)

    @abstractmethod
    def _open(self, path: Path) -> AbstractContextManager[Iterator[Row]]:
        """Open one file, check what can be checked of it, and give its rows in order."""

    def _following(self, paths: Sequence[Path]) -> Generator[Row, None, None]:
        for path in paths:
            with self._open(path) as rows:
                yield from _said_where(path, rows)


def _said_where(path: Path, rows: Iterable[Row]) -> Iterator[Row]:
    """Of several files, a row that cannot be read says in which it stands."""
    for row in rows:
        yield row if row.unreadable is None else replace(row, unreadable=f"{path.name}, {row.unreadable}")


def absolute(path: str | Path) -> Path:
    """Return the path with `~` expanded, counted from the folder that is current now."""
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as failure:
        raise UsageError(f"{path} names a home folder that does not exist: write the path out") from failure


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Translate what goes wrong while the file is opened or read."""
    try:
        yield
    except FileNotFoundError as failure:
        raise UsageError(f"{path} does not exist: check the path") from failure
    except PermissionError as failure:
        raise UsageError(f"{path} may not be read: give this user permission to read it") from failure
    except (gzip.BadGzipFile, zlib.error, EOFError) as failure:
        raise UsageError(f"{path} is not a whole gzip file ({failure}): copy it again or unpack it") from failure
    except OSError as failure:
        raise UsageError(f"{path} cannot be read ({failure.strerror or failure}): check the path") from failure


@contextmanager
def opened(path: str | Path) -> Iterator[BinaryIO]:
    """Lend the file's bytes as they are. The path has to be a regular file, which can be read again by a later run."""
    with ExitStack() as stack:
        with reading(path):
            if not stat.S_ISREG(Path(path).stat().st_mode):
                raise UsageError(f"{path} is not a file: give the path of a file")
            file = stack.enter_context(Path(path).open("rb", buffering=_BUFFER))
        yield file


@contextmanager
def unpacked(path: str | Path) -> Iterator[BinaryIO]:
    """Lend the file's bytes, unpacked where the name says gzip."""
    with opened(path) as file:
        if Path(path).suffix.lower() != ".gz":
            yield file
            return
        # GzipFile reads lines in Python; a buffer around it reads them in C
        with gzip.GzipFile(fileobj=file) as packed, io.BufferedReader(packed, _BUFFER) as stream:
            yield stream


def filled_lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Give the lines that are not blank, numbered from 1, without a byte order mark and with their line ends."""
    for number, line in enumerate(stream, 1):
        kept = line.removeprefix(_BOM) if number == 1 else line
        if kept.strip():
            yield number, kept


def sha256_of(path: str | Path) -> str:
    """Return the hex SHA-256 of the file's bytes as they lie on disk, read as a stream."""
    with opened(path) as file, reading(path):
        digest = hashlib.sha256()
        while data := file.read(_BUFFER):
            digest.update(data)
        return digest.hexdigest()


def excerpt(data: bytes) -> str:
    """Return the first 500 characters of bytes that may be anything, for a person to find the place."""
    return data[:2000].decode(errors="replace")[:500]
