"""A file as bytes or lines, decompressed if needed. Whatever prevents reading it is a `UsageError`."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import stat
import zlib
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, cast

from orchestrator.domain.errors import NoFiles, OrchestratorError, UsageError
from orchestrator.domain.local_path import local_path
from orchestrator.domain.location import Location, Target, is_location
from orchestrator.sources.folder import has_suffix, with_rows
from orchestrator.sources.partitions import partitions_of
from orchestrator.sources.pattern import all_in, is_pattern, matches, read_by
from orchestrator.sources.signature import HEAD, foreign, packing
from orchestrator.sources.stdin import STDIN, readable
from orchestrator.storage import fingerprint, storage_of
from orchestrator.storage import opened as stream_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from orchestrator.domain.item import Row

_BUFFER = 1 << 20
REQUESTS = 16  # at a time, where each object of many is asked for its version
_BOM = b"\xef\xbb\xbf"
MOST_OF_LINE = 64 << 20  # bytes: the row made from it takes ten times as much memory


@dataclass(frozen=True, slots=True)
class FileSource(ABC):
    """What the sources that read files have in common. The path is made absolute and `~` is expanded.

    A path with `*`, `?` or `[` is a pattern, unless there is a file with that name. Its files are read one after the
    other, sorted by path; `**` matches folders at any depth. The path of a folder stands for the files in it, at any
    depth, that have a suffix of the source's format; hidden ones, and those with `_` before their name or a folder's,
    are left out. Folders named like `year=2024` become columns. `-` is what is piped into the process; it is kept in a
    temporary file while the process lives.

    A location (`s3://bucket/in/*.parquet`, `https://host/file.csv`) is read as a stream from there. In stores that can
    list their objects it may be a pattern, or a folder, which ends with `/`.
    """

    # the suffixes of the files in a folder; of the second group only if there are none of the first
    suffixes: ClassVar[Sequence[Sequence[str]]]

    path: str | Path

    def __post_init__(self) -> None:
        if is_location(self.path):
            object.__setattr__(self, "path", Location(self.path))
        else:
            object.__setattr__(self, "path", STDIN if self.path == "-" else absolute(self.path))

    @contextmanager
    def rows(self) -> Iterator[Iterator[Row]]:
        """Open the first file, check it as far as possible, and yield the rows of all files in order."""
        first, *others = self.files()
        placed = {} if first == self.path else partitions_of((first, *others))
        with ExitStack() as opened_first:
            rows = opened_first.enter_context(self._open(first))
            if not others:
                yield _placed(rows, placed.get(first))
                return
            with closing(self._following(opened_first, others, placed)) as following:
                yield chain(_said_where(first, _placed(rows, placed.get(first))), following)

    def files(self) -> list[Target]:
        """Return the files that exist now. Raises `NoFiles` if a pattern matches none."""
        if isinstance(self.path, Location):
            return list(self._objects(self.path))
        path = Path(self.path)
        if os.path.isdir(path):  # noqa: PTH112 - `Path.is_dir` raises without permission
            return list(self._files_in(path))
        if not is_pattern(path):
            return [path]
        if files := matches(path):
            return list(files)
        raise NoFiles(f"{path} matches no file: check the pattern")

    def _objects(self, location: Location) -> Sequence[Location]:
        """Return the objects that exist now."""
        if location.is_pattern:
            if found := storage_of(location).matches(location):
                return found
            raise NoFiles(f"{location} matches no object: check the pattern")
        if not location.is_folder:
            return [location]
        inside = len(location.key)
        found = storage_of(location).matches(location.with_key(f"{location.key}**/*"))
        files = {one.key[inside:]: one for one in found}
        return with_rows(str(location), files, self.suffixes)

    def _files_in(self, folder: Path) -> Sequence[Path]:
        """Return the files of the source's format in a folder."""
        files = {file.relative_to(folder).as_posix(): file for file in matches(all_in(folder))}
        hidden = {path.name: path for path in folder.iterdir() if path.name.startswith(".")}  # they tell what it is
        return with_rows(str(folder), files | hidden, self.suffixes)

    def reads(self, paths: Sequence[Path]) -> list[Path]:
        """Return those of the paths that lead to its files, by any name or link, or that its pattern would match."""
        if isinstance(self.path, Location):
            return []
        path = Path(self.path)
        if not os.path.isdir(path):  # noqa: PTH112 - as above
            return read_by(path, paths)
        known = tuple(chain(*self.suffixes))
        return [one for one in read_by(all_in(path), paths) if has_suffix(one.name, known)]

    def reads_objects(self, locations: Sequence[Location]) -> list[Location]:
        """Return those of the locations that it reads, or that its pattern would match."""
        if not isinstance(self.path, Location):
            return []
        covered = [one for one in locations if self.path.covers(one)]
        known = tuple(chain(*self.suffixes))
        return [one for one in covered if has_suffix(one.name, known)] if self.path.is_folder else covered

    def sha256(self) -> str:
        """Return the hex SHA-256 of the file's bytes on disk; for several files, over paths and contents.

        For objects, it covers their locations and the stores' own versions of them, so that they need not be read.
        """
        if isinstance(self.path, Location):
            return sha256_of_versions(self._objects(self.path))
        first, *others = self.files()
        if not others and first == self.path:
            return sha256_of(first)
        digest = hashlib.sha256()
        for path in (first, *others):
            digest.update(os.fsencode(path) + b"\0" + sha256_of(path).encode() + b"\n")
        return digest.hexdigest()

    def describe(self) -> str:
        """Return the path."""
        return str(self.path)

    @abstractmethod
    def _open(self, path: Target) -> AbstractContextManager[Iterator[Row]]:
        """Open one file, check it as far as possible, and yield its rows in order."""

    def _following(
        self, opened_first: ExitStack, paths: Sequence[Target], placed: Mapping[Target, Mapping[str, object]]
    ) -> Generator[Row, None, None]:
        opened_first.close()
        for path in paths:
            with self._open(path) as rows:
                yield from _said_where(path, _placed(rows, placed.get(path)))


def sha256_of_versions(locations: Sequence[Location]) -> str:
    """Return the hex SHA-256 over the locations and the stores' own versions of the objects."""
    with ThreadPoolExecutor(REQUESTS) as threads:
        versions = threads.map(fingerprint, locations)
        lines = [f"{location}\0{version}\n" for location, version in zip(locations, versions, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _placed(rows: Iterator[Row], values: Mapping[str, object] | None) -> Iterator[Row]:
    """Yield the rows with the columns that the file's folders name; the file's own columns take precedence."""
    if not values:
        return rows
    names = frozenset(values)
    return (
        replace(row, columns={**values, **row.columns}, from_path=names - row.columns.keys(), text=None) for row in rows
    )


def _said_where(path: Target, rows: Iterable[Row]) -> Iterator[Row]:
    """Yield the rows; if there are several files, an unreadable row says which file it is in."""
    for row in rows:
        yield row if row.unreadable is None else replace(row, unreadable=f"{path.name}, {row.unreadable}")


def absolute(path: str | Path) -> Path:
    """Return the path with `~` expanded, relative to the current folder."""
    return local_path(path).absolute()


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Translate errors in opening or reading the file."""
    try:
        yield
    except FileNotFoundError as failure:
        raise UsageError(f"{path} does not exist: check the path") from failure
    except PermissionError as failure:
        raise UsageError(f"{path} may not be read: give this user permission to read it") from failure
    except (zlib.error, lzma.LZMAError, EOFError, OSError) as failure:
        if not isinstance(failure, OSError) or failure.errno is None:  # not the disk's error but a decompressor's
            kind = _packing_of(path) or "packed"
            raise UsageError(f"{path} is not a whole {kind} file ({failure}): copy it again or unpack it") from failure
        raise UsageError(f"{path} cannot be read ({failure.strerror or failure}): check the path") from failure


@contextmanager
def opened(path: str | Path) -> Iterator[io.BufferedReader]:
    """Open the file's bytes unchanged. The path has to be a regular file, so that a later run can read it again."""
    if isinstance(path, Location):
        with stream_of(path) as stream:
            yield stream
            storage_of(path).check_unchanged(path, cast("BinaryIO", stream.raw))
        return
    with ExitStack() as stack:
        with reading(path):
            there = readable(Path(path))
            mode = there.stat().st_mode
            if stat.S_ISDIR(mode):
                raise UsageError(f"{path} is a folder, not a file: give the path of a file")
            if not stat.S_ISREG(mode):
                raise UsageError(f"{path} is not a file: give the path of a file")
            file = stack.enter_context(there.open("rb", buffering=_BUFFER))
        yield cast("io.BufferedReader", file)


@contextmanager
def opened_for_ranges(path: Target) -> Iterator[tuple[BinaryIO, bytes]]:
    """Open the file's bytes to be read here and there; of an object, only what is read is asked for.

    Yields the file and its first bytes.
    """
    if isinstance(path, Location):
        with storage_of(path).open(path) as file:
            yield file, file.read(HEAD)
            storage_of(path).check_unchanged(path, file)
    else:
        with opened(path) as stream:
            yield stream, stream.peek(HEAD)


@contextmanager
def unpacked(path: Target, *, markup: bool = False, wide: bool = False) -> Iterator[io.BufferedReader]:
    """Open the file's bytes, decompressed if its first bytes or its name say that it is compressed.

    Raises `UsageError` if the first bytes show another kind of file; `markup` and `wide` as in `foreign`.
    """
    with opened(path) as file, ExitStack() as stack:
        with reading(path):
            stream = _unpacked(file, packing(file.peek(HEAD), path.suffix), stack)
            found = foreign(stream.peek(HEAD), markup=markup, wide=wide)
        if found is not None:
            raise UsageError(f"{path} is {found[0]}: {found[1]}")
        yield stream


def _unpacked(file: io.BufferedReader, packed: str | None, stack: ExitStack) -> io.BufferedReader:
    raw: Any  # Arrow's streams have no known type
    match packed:
        case None:
            return file
        case "gzip":
            raw = gzip.GzipFile(fileobj=file)
        case "bzip2":
            raw = _Streams(file, bz2.BZ2Decompressor)
        case "xz":
            raw = _Streams(file, lzma.LZMADecompressor)
        case _:
            arrow = import_module("pyarrow")  # importing takes 0.1 s, and few files need it
            raw = arrow.CompressedInputStream(arrow.PythonFile(file, "r"), "zstd")
    stack.enter_context(raw)
    # they read lines in Python; a buffer around them reads them in C
    return stack.enter_context(io.BufferedReader(raw, _BUFFER))


class _Streams(io.RawIOBase):
    """What one or several compressed streams in a row hold. `BZ2File` and `LZMAFile` would pass over a damaged one."""

    def __init__(self, file: BinaryIO, new: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor]) -> None:
        self._file = file
        self._new = new
        self._stream = new()

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer. Return the number of bytes, which is smaller only at the end."""
        filled = 0
        while filled < len(buffer) and (data := self._decompressed(len(buffer) - filled)):
            buffer[filled : filled + len(data)] = data
            filled += len(data)
        return filled

    def _decompressed(self, most: int) -> bytes:
        """Return the next bytes, at least one unless it is the end."""
        data = b""
        while not data:
            packed = b""
            if self._stream.eof:
                if not (packed := self._next()):
                    return b""
                self._stream = self._new()
            elif self._stream.needs_input and not (packed := self._file.read(_BUFFER)):
                raise EOFError("it ends before the end-of-stream marker")
            data = self._stream.decompress(packed, most)
        return data

    def _next(self) -> bytes:
        """Return what follows a stream, but for zeros, which may pad it."""
        packed = self._stream.unused_data.lstrip(b"\0")
        while not packed and (more := self._file.read(_BUFFER)):
            packed = more.lstrip(b"\0")
        return packed


def _packing_of(path: str | Path) -> str | None:
    there = path if isinstance(path, Location) else Path(path)
    with suppress(OSError, OrchestratorError), opened(there) as file:
        return packing(file.peek(HEAD), there.suffix)
    return None


def filled_lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, numbered from 1, with their line ends.

    A byte order mark at the beginning of a line is dropped, because `cat` leaves one at the beginning of each file. Of
    a line longer than `MOST_OF_LINE`, the first `MOST_OF_LINE` + 1 bytes are yielded.
    """
    number = 0
    while line := stream.readline(MOST_OF_LINE + 1):
        number += 1
        if len(line) > MOST_OF_LINE and not line.endswith(b"\n"):
            _skip_line(stream)
        kept = line.removeprefix(_BOM)
        if kept.strip():
            yield number, kept


def _skip_line(stream: BinaryIO) -> None:
    while (rest := stream.readline(_BUFFER)) and not rest.endswith(b"\n"):
        pass


def sha256_of(path: str | Path) -> str:
    """Return the hex SHA-256 of the file's bytes on disk, read as a stream."""
    with opened(path) as file, reading(path):
        digest = hashlib.sha256()
        while data := file.read(_BUFFER):
            digest.update(data)
        return digest.hexdigest()


def excerpt(data: bytes) -> str:
    """Return the first 500 characters of arbitrary bytes, so that a person can find the place."""
    return data[:2000].decode(errors="replace")[:500]
