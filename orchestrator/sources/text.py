"""Plain text: one item a line."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.domain.item import Row
from orchestrator.sources.reading import FileSource, excerpt, filled_lines, reading, unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO


@dataclass(frozen=True, slots=True)
class TextSource(FileSource):
    """Lines of a UTF-8 text file, plain or gzip, as column `text`. Blank lines are skipped.

    The number of a line is not a column: it would change the identity of every line below an insertion.
    """

    @contextmanager
    def rows(self) -> Iterator[Iterator[Row]]:
        """Open the file and give its lines in order."""
        with unpacked(self.path) as stream:
            yield self._rows(stream)

    def _rows(self, stream: BinaryIO) -> Iterator[Row]:
        with reading(self.path):
            for number, line in filled_lines(stream):
                try:
                    text = line.removesuffix(b"\n").removesuffix(b"\r").decode()
                except UnicodeDecodeError as failure:
                    yield Row(
                        {"line": number, "raw": excerpt(line)},
                        unreadable=f"line {number} is not valid UTF-8: {failure.reason}",
                    )
                else:
                    yield Row({"text": text})
