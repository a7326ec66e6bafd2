"""Whole files: images, recordings, documents."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.domain.errors import NoFiles, UsageError
from orchestrator.domain.item import File, Row
from orchestrator.domain.location import Location, Target, is_location
from orchestrator.sources.columns import identified
from orchestrator.sources.pattern import all_in, covered, matches
from orchestrator.sources.reading import REQUESTS, absolute, sha256_of, sha256_of_versions
from orchestrator.storage import storage_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# written out, because what `mimetypes` says depends on the machine, and an item must be the same item everywhere
_CONTENT_TYPES = {
    ".aac": "audio/aac",
    ".avif": "image/avif",
    ".bmp": "image/bmp",
    ".flac": "audio/flac",
    ".gif": "image/gif",
    ".heic": "image/heic",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".json": "application/json",
    ".m4a": "audio/mp4",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".oga": "audio/ogg",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".txt": "text/plain",
    ".wav": "audio/wav",
    ".weba": "audio/webm",
    ".webm": "video/webm",
    ".webp": "image/webp",
}


@dataclass(frozen=True, slots=True)
class FilesSource:
    """One row for each file in a folder, at any depth, or that a pattern matches: columns `path`, `name` and `file`.

    The rows are sorted by path; hidden files are left out.
    `id` may be "name" or "path". A file that cannot be read is one unreadable row. `**` matches folders at any depth.
    The files may be objects on another machine (`s3://bucket/photos/`): each is read to identify it, and again to send
    it.
    """

    glob: str | Path
    id: str | None = None

    def __post_init__(self) -> None:
        if self.id not in {None, "name", "path"}:
            raise UsageError(f"files have no column {self.id!r} for the id: choose name or path")
        given = Location(self.glob) if is_location(self.glob) else str(absolute(self.glob))
        object.__setattr__(self, "glob", given)

    @contextmanager
    def rows(self) -> Iterator[Iterator[Row]]:
        """Find the files and give them in order."""
        found = self._matches()
        if not isinstance(self.glob, Location):
            yield (self._row(number, path, _file(path)) for number, path in enumerate(found, 1))
            return
        with ThreadPoolExecutor(REQUESTS) as threads:
            yield (self._row(number, *read) for number, read in enumerate(_read_ahead(found, threads), 1))

    def _matches(self) -> Sequence[Target]:
        if isinstance(self.glob, Location):
            pattern = self.glob.with_key(f"{self.glob.key}**/*") if self.glob.is_folder else self.glob
            found = storage_of(pattern).matches(pattern) if pattern.is_pattern else [pattern]
            if found:
                return found
            raise NoFiles(f"{pattern} matches no object: check the pattern")
        if files := matches(self._pattern()):
            return files
        raise NoFiles(f"{self._pattern()} matches no file: check the pattern")

    def _pattern(self) -> Path:
        path = Path(self.glob)
        return all_in(path) if os.path.isdir(path) else path  # noqa: PTH112 - `Path.is_dir` raises without permission

    def reads(self, paths: Sequence[Path]) -> list[Path]:
        """Those of the paths that match, by whatever name or link, or would if they were there."""
        return [] if isinstance(self.glob, Location) else covered(self._pattern(), paths)

    def reads_objects(self, locations: Sequence[Location]) -> list[Location]:
        """Those of the locations that match, or would if they were there."""
        return [one for one in locations if self.glob.covers(one)] if isinstance(self.glob, Location) else []

    def _row(self, number: int, path: Target, file: File | str) -> Row:
        names = {"path": str(path), "name": path.name}
        if isinstance(file, str):
            shown = {column: name.encode(errors="backslashreplace").decode() for column, name in names.items()}
            return Row(shown, unreadable=file)
        return identified({**names, "file": file}, self.id, "file", number)

    def sha256(self) -> str:
        """Return the hex SHA-256 over the paths in order and the hash of each file's content.

        For objects, it covers their locations and the stores' own versions of them.
        """
        if isinstance(self.glob, Location):
            return sha256_of_versions([one for one in self._matches() if isinstance(one, Location)])
        digest = hashlib.sha256()
        for path in self._matches():
            try:
                content = sha256_of(path)
            except UsageError:  # the row reports it; here it counts as a file without content
                content = ""
            digest.update(os.fsencode(path) + b"\0" + content.encode() + b"\n")
        return digest.hexdigest()

    def describe(self) -> str:
        """Return the pattern."""
        return str(self.glob)


def _file(path: Target) -> File | str:
    """Read a file to identify it; return why it cannot be used, if it cannot."""
    try:
        str(path).encode()
        if isinstance(path, Location):
            Location(path)  # a key may be any text; this one will be stored
        kind = _CONTENT_TYPES.get(path.suffix.lower(), "application/octet-stream")
        return File(str(path), sha256_of(path), kind)
    except UnicodeEncodeError:
        return f"{str(path).encode(errors='backslashreplace').decode()} is not named in UTF-8"
    except UsageError as failure:
        return str(failure)


def _read_ahead(found: Iterable[Target], threads: ThreadPoolExecutor) -> Iterator[tuple[Target, File | str]]:
    """Read the objects, a few at a time, and yield them in order."""
    waiting: deque[tuple[Target, Future[File | str]]] = deque()
    for path in found:
        waiting.append((path, threads.submit(_file, path)))
        if len(waiting) == REQUESTS:
            first, read = waiting.popleft()
            yield first, read.result()
    yield from ((path, read.result()) for path, read in waiting)
