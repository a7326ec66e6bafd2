"""Objects in the stores that Arrow has a file system for."""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Self, cast

import pyarrow as pa
import pyarrow.fs

from orchestrator.domain.path_patterns import fits
from orchestrator.storage.failures import changed, unusable, without_keys
from orchestrator.storage.store import Stat

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from orchestrator.domain.location import Location

_PIECE = 4 << 20  # bytes that are read from a local file at a time
_MAGIC = frozenset("*?[")
_VERSIONS = ("generation", "ETag", "etag")


class ArrowStorage(ABC):
    """One kind of store. Arrow repeats requests that failed for a transient reason."""

    @abstractmethod
    def _system(self, location: Location) -> pa.fs.FileSystem:
        """Return the file system, made once for each account, endpoint and region."""

    def _path(self, location: Location) -> str:
        """Return the path of an object within its file system."""
        return location.rest

    def stat(self, location: Location) -> Stat | None:
        """Return size and version of the object; None if there is none."""
        with _translated(location, "read"):
            try:
                stream = self._system(location).open_input_stream(self._path(location))
            except FileNotFoundError:
                return None
            with stream:
                about = _about(stream)
            size, version = about.get("Content-Length", about.get("size")), _version_in(about)
            if size is not None and version is not None:
                return Stat(int(size), version)
            info = self._system(location).get_file_info(self._path(location))
            return Stat(info.size, version or (f"{info.size} bytes of {info.mtime_ns}" if info.mtime_ns else None))

    def open(self, location: Location) -> BinaryIO:
        """Open the object for reading."""
        with _translated(location, "read"):
            try:
                file = self._system(location).open_input_file(self._path(location))
            except FileNotFoundError:
                self._check_bucket(location, "read")
                raise
            return cast("BinaryIO", _Reader(location, file))

    def check_unchanged(self, location: Location, file: BinaryIO) -> None:
        """Compare the object's version now with that of the opened one, because each read is a request of its own."""
        assert isinstance(file, _Reader)
        now = self.stat(location)
        if file.version is not None and (now is None or now.version != file.version):
            raise changed(location)

    def matches(self, pattern: Location) -> Sequence[Location]:
        """Return the objects that match the pattern now, sorted."""
        parts = tuple(pattern.key.split("/"))
        fixed = next((place for place, part in enumerate(parts) if _MAGIC.intersection(part)), len(parts) - 1)
        folder = pattern.with_key("/".join(parts[:fixed]))
        deep = len(parts) - fixed > 1 or "**" in parts
        selector = pa.fs.FileSelector(self._path(folder).rstrip("/"), recursive=deep, allow_not_found=True)
        with _translated(pattern, "read"):
            found = self._system(pattern).get_file_info(selector)
            if not found:
                self._check_bucket(pattern, "read")
        start = len(self._path(pattern)) - len(pattern.key)
        keys = (info.path[start:] for info in found if info.type == pa.fs.FileType.File)
        return sorted(pattern.with_key(key) for key in keys if fits(tuple(key.split("/")), parts))

    def check_writable(self, location: Location) -> None:
        """Raise `UsageError` if the bucket does not exist or does not let us see it."""
        with _translated(location, "written"):
            self._check_bucket(location, "written")

    def put(self, location: Location, file: BinaryIO) -> None:
        """Write the object, in one request or in one completed multipart upload."""
        with _translated(location, "written"):
            stream = self._system(location).open_output_stream(self._path(location))
            try:
                while piece := file.read(_PIECE):
                    stream.write(piece)
            except BaseException:
                # Arrow completes an upload when its stream is closed, also by the garbage collector: never let it
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(stream))
                raise
            stream.close()

    def copy(self, source: Location, target: Location) -> None:
        """Copy an object within the store."""
        with _translated(target, "written"):
            self._system(target).copy_file(self._path(source), self._path(target))

    def delete(self, location: Location) -> None:
        """Delete the object, if there is one."""
        with _translated(location, "written"):
            try:
                self._system(location).delete_file(self._path(location))
            except FileNotFoundError:
                return

    def abort_unfinished(self, locations: Sequence[Location]) -> None:  # noqa: B027 - not every store needs it
        """Do nothing: these stores discard unfinished uploads themselves after a week."""

    def _check_bucket(self, location: Location, verb: str) -> None:
        bucket = self._path(location).partition("/")[0]
        if self._system(location).get_file_info(bucket).type == pa.fs.FileType.NotFound:
            raise unusable(location, verb, FileNotFoundError("no such bucket"), bucket=bucket)


def _about(file: pa.NativeFile) -> dict[str, str]:
    return {name: value.decode() for name, value in (file.metadata() or {}).items()}


def _version_in(about: Mapping[str, str]) -> str | None:
    return next((about[name] for name in _VERSIONS if about.get(name)), None)


class _Reader:
    """An open object, with failures translated. Each read is one request for that range."""

    def __init__(self, location: Location, file: pa.NativeFile) -> None:
        self._location = location
        self._file = file
        self.version = _version_in(_about(file))

    def read(self, size: int = -1) -> bytes:
        with _translated(self._location, "read"):
            return cast("bytes", self._file.read(None if size < 0 else size))

    def readinto(self, buffer: bytearray | memoryview) -> int:
        with _translated(self._location, "read"):
            return cast("int", self._file.readinto(buffer))

    def seek(self, offset: int, whence: int = 0) -> int:
        return cast("int", self._file.seek(offset, whence))

    def tell(self) -> int:
        return cast("int", self._file.tell())

    def flush(self) -> None:
        pass

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    @property
    def closed(self) -> bool:
        return bool(self._file.closed)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


@contextmanager
def _translated(location: Location, verb: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as failure:
        raise unusable(location, verb, failure) from without_keys(failure)
