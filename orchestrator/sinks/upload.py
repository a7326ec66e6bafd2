"""A file that is written on this machine and then uploaded in one piece."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, BinaryIO, Self, cast

from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.failpoints import reached
from orchestrator.sinks.output_file import OutputFile, abandon
from orchestrator.storage import delete, storage_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.domain.location import Location, Target


class FileToUpload(OutputFile):
    """A file whose bytes wait in a nameless temporary file, which disappears with the process."""

    path: Location

    def __init__(self, path: Location, *, packing: str | None = None) -> None:
        super().__init__(path, packing)
        self._storage = storage_of(path)

    def __enter__(self) -> Self:
        self._file = TemporaryFile()
        self._stack.callback(abandon, self._file)
        return self

    @property
    def _folder(self) -> None:
        return None

    def is_in_place(self, about: Mapping[str, object] | None) -> bool:
        """Whether the object still is what the manifest names, with the same bytes as this file."""
        if about is None or (about.get("sha256"), about.get("bytes")) != (self._digest.hexdigest(), self.size):
            return False
        stat = self._storage.stat(self.path)
        return stat is not None and stat.version is not None and stat.version == about.get("version")

    def put_in_place(self) -> Mapping[str, object]:
        """Upload the file. Return the object's version, by which a change is noticed without reading it.

        The store is asked for it afterwards, so an object of another size is one that somebody has put there since.
        """
        reached("before rename")
        self._put(self.path, self._file)
        reached("after rename")
        stat = self._storage.stat(self.path)
        return {"version": stat.version} if stat and stat.version and stat.size == self.size else {}

    def keep_also_as(self, other: Target) -> None:
        """Copy the older object within the store."""
        assert not isinstance(other, Path)
        self._storage.copy(self.path, other)

    def announce(self, manifest: bytes) -> None:
        """Write the manifest under a hidden name."""
        self._put(announced(self.path), BytesIO(manifest))

    def publish(self, manifest: bytes) -> None:
        """Write the manifest under its own name."""
        reached("before rename")
        self._put(self.path, BytesIO(manifest))
        reached("after rename")
        with suppress(OrchestratorError):  # everything is delivered, and not everybody who may write may delete
            delete(announced(self.path))

    def _put(self, location: Location, file: IO[bytes]) -> None:
        file.seek(0)
        self._storage.put(location, cast("BinaryIO", file))


def announced(manifest: Location) -> Location:
    """Return where a delivery writes its manifest before its files are in place."""
    return manifest.with_name(f".{manifest.name}.tmp")
