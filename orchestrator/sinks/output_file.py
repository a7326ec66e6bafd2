"""A file of a delivery while it is written: its bytes are counted, hashed and perhaps compressed."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from contextlib import ExitStack, suppress
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Self

from orchestrator.sinks.packing import packer_for

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from orchestrator.domain.location import Target


class OutputFile(ABC):
    """Bytes that are on this machine until the file is put in place, as a whole. Leaving the block gives them up.

    `packing`: how the bytes are compressed; the hash is that of the file.
    """

    def __init__(self, path: Target, packing: str | None) -> None:
        self.path = path
        self.records = 0
        self.closed = False  # Arrow asks
        self._file: IO[bytes]
        self._digest = hashlib.sha256()
        self.size = 0  # bytes so far
        self._packer = None if packing is None else packer_for(packing)
        self._stack = ExitStack()

    @abstractmethod
    def __enter__(self) -> Self: ...

    def __exit__(self, *failure: object) -> None:
        self._stack.close()

    def write(self, data: bytes) -> int:
        """Add the bytes."""
        self._add(data if self._packer is None else self._packer.compress(data))
        return len(data)

    def _add(self, data: bytes) -> None:
        self._digest.update(data)
        self.size += len(data)
        self._file.write(data)

    @property
    @abstractmethod
    def _folder(self) -> Path | None:
        """The folder of temporary files; None for the system's."""

    def scratch(self) -> IO[bytes]:
        """Open a nameless file on the same disk, which disappears when the block or the process ends."""
        file = TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed with the block
        self._stack.callback(abandon, file)
        return file

    def sync(self) -> dict[str, object]:
        """Wait until every byte is on disk; none follows. Return the file's entry for the manifest."""
        if self._packer is not None:
            self._add(self._packer.flush())
        self._file.flush()
        os.fsync(self._file.fileno())
        return {"sha256": self._digest.hexdigest(), "bytes": self.size, "records": self.records}

    @abstractmethod
    def is_in_place(self, about: Mapping[str, object] | None) -> bool:
        """Whether the file already exists with the same bytes. `about`: its entry in the manifest beside it."""

    @abstractmethod
    def put_in_place(self) -> Mapping[str, object]:
        """Give the file its own name, replacing an older one. Return what else the manifest says of it."""

    @abstractmethod
    def keep_also_as(self, other: Target) -> None:
        """Keep the older file under a second name."""

    @abstractmethod
    def announce(self, manifest: bytes) -> None:
        """Leave proof of whose files are in place, should the process die before the manifest is."""

    @abstractmethod
    def publish(self, manifest: bytes) -> None:
        """Put the manifest in place, after the files that it names. It is what was announced, perhaps with more."""


def abandon(file: IO[bytes]) -> None:
    """Close a file whose bytes are not needed any more."""
    with suppress(OSError):  # on a full disk, closing the abandoned file fails a second time
        file.close()
