"""Whole files: images, recordings, documents."""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.domain.errors import NoFiles, UsageError
from orchestrator.domain.item import File, Row
from orchestrator.sources.columns import identified
from orchestrator.sources.pattern import all_in, covered, matches
from orchestrator.sources.reading import absolute, sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
    """

    glob: str | Path
    id: str | None = None

    def __post_init__(self) -> None:
        if self.id not in {None, "name", "path"}:
            raise UsageError(f"files have no column {self.id!r} for the id: choose name or path")
        object.__setattr__(self, "glob", str(absolute(self.glob)))

    @contextmanager
    def rows(self) -> Iterator[Iterator[Row]]:
        """Find the files and give them in order."""
        yield (self._row(number, path) for number, path in enumerate(self._matches(), 1))

    def _matches(self) -> list[Path]:
        if files := matches(self._pattern()):
            return files
        raise NoFiles(f"{self._pattern()} matches no file: check the pattern")

    def _pattern(self) -> Path:
        path = Path(self.glob)
        return all_in(path) if os.path.isdir(path) else path  # noqa: PTH112 - `Path.is_dir` raises without permission

    def reads(self, paths: Sequence[Path]) -> list[Path]:
        """Those of the paths that match, by whatever name or link, or would if they were there."""
        return covered(self._pattern(), paths)

    def _row(self, number: int, path: Path) -> Row:
        columns: dict[str, object] = {"path": str(path), "name": path.name}
        try:
            str(path).encode()
            digest = sha256_of(path)
        except UnicodeEncodeError:
            legible = str(path).encode(errors="backslashreplace").decode()
            return Row({"path": legible}, unreadable=f"{legible} is not named in UTF-8")
        except UsageError as failure:
            return Row(columns, unreadable=str(failure))
        columns["file"] = File(str(path), digest, _CONTENT_TYPES.get(path.suffix.lower(), "application/octet-stream"))
        return identified(columns, self.id, "file", number)

    def sha256(self) -> str:
        """Return the hex SHA-256 over the paths in order and the hash of each file's content."""
        digest = hashlib.sha256()
        for path in self._matches():
            try:
                content = sha256_of(path)
            except UsageError:  # the row reports it; here it counts as a file without content
                content = ""
            digest.update(bytes(path) + b"\0" + content.encode() + b"\n")
        return digest.hexdigest()

    def describe(self) -> str:
        """Return the pattern."""
        return str(self.glob)
