"""A file as bytes or lines, unpacked where its name ends in .gz. What keeps it from being read is a `UsageError`."""

from __future__ import annotations

import gzip
import hashlib
import io
import stat
import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from orchestrator.domain.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_BUFFER = 1 << 20
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class FileSource:
    """What the sources that read one file have in common. The path is made absolute, `~` is expanded."""

    path: str | Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", absolute(self.path))

    def sha256(self) -> str:
        """Return the hex SHA-256 of the file as it lies on disk, packed or not."""
        return sha256_of(self.path)

    def describe(self) -> str:
        """Return the path."""
        return str(self.path)


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
