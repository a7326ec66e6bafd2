"""A file elsewhere that is read by ranges."""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod


class RangedFile(io.RawIOBase, ABC):
    """An open file of known size. Each read is one request for that range."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self._place = 0

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def seekable(self) -> bool:
        """Whether it can be read here and there."""
        return True

    def tell(self) -> int:
        """Return the place of the next read."""
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the place of the next read, and return it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = base + offset
        return self._place

    def read(self, size: int = -1) -> bytes:
        """Return exactly `size` bytes, or fewer at the end of the file."""
        end = self._size if size < 0 else min(self._place + size, self._size)
        data = self._between(self._place, end) if self._place < end else b""
        self._place += len(data)
        return data

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # of all buffers, those that are used here
        """Read at most as many bytes as the buffer holds into it, and return how many."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    @abstractmethod
    def _between(self, begin: int, end: int) -> bytes:
        """Return exactly the bytes from `begin` to before `end`, of which there is at least one."""
