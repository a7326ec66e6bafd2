"""Find repeated keys among any number of rows, in memory that does not grow."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING

from orchestrator.store.seen import in_temporary_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

KEY = 16  # bytes of a key, which has to be a hash, as its first byte chooses the part
_PLACE = 6  # bytes of a position
_ENTRY = KEY + _PLACE
_PARTS = 256  # looked at one after the other: of ten million keys, each holds forty thousand
_BUFFERED = 4 << 20  # bytes of entries in memory
_FOUND = 20_000  # pairs that are enough for a page


@dataclass(slots=True)
class Repeats:
    """Keys with their positions, divided by their first byte; what memory does not hold is in a temporary file.

    Blocking: for worker threads.
    """

    _parts: list[bytearray] = field(default_factory=lambda: [bytearray() for _ in range(_PARTS)])
    _spilled: list[list[tuple[int, int]]] = field(default_factory=lambda: [[] for _ in range(_PARTS)])
    _held: int = 0
    _file: IO[bytes] | None = None

    def close(self) -> None:
        """Leave nothing on disk."""
        if self._file is not None:
            self._file.close()

    def add(self, keys: Sequence[bytes | None], position: int) -> None:
        """Add the keys of the rows from this position on; None for a row without one."""
        parts = self._parts
        for place, key in enumerate(keys, position):
            if key is not None:
                parts[key[0]] += key + place.to_bytes(_PLACE, "big")
        self._held += len(keys) * _ENTRY
        if self._held > _BUFFERED:
            self._spill()

    def found(self) -> Iterator[list[tuple[int, int]]]:
        """Yield, page by page, the positions whose key has come by before, each with the first position of that key."""
        for number in range(_PARTS):
            firsts: dict[bytes, int] = {}
            repeated = []
            for entries in self._entries(number):
                for at in range(0, len(entries), _ENTRY):
                    key = entries[at : at + KEY]
                    position = int.from_bytes(entries[at + KEY : at + _ENTRY], "big")
                    if (first := firsts.setdefault(key, position)) != position:
                        repeated.append((position, first))
                if len(repeated) >= _FOUND:
                    yield repeated
                    repeated = []
            if repeated:
                yield repeated

    def _entries(self, number: int) -> Iterator[bytes]:
        """Yield the entries of a part in the order in which they were added."""
        if self._file is not None:
            for offset, length in self._spilled[number]:
                yield os.pread(self._file.fileno(), length, offset)
        yield bytes(self._parts[number])

    def _spill(self) -> None:
        with in_temporary_files():
            if self._file is None:
                self._file = TemporaryFile(buffering=0)  # noqa: SIM115 - `close` closes it
            offset = self._file.seek(0, os.SEEK_END)
            left = memoryview(b"".join(self._parts))
            while left:  # a disk that is almost full takes a part of it, and refuses the rest
                left = left[self._file.write(left) :]
        for part, spilled in zip(self._parts, self._spilled, strict=True):
            spilled.append((offset, len(part)))
            offset += len(part)
        self._parts = [bytearray() for _ in range(_PARTS)]
        self._held = 0
