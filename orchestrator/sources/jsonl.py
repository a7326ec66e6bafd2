"""JSON Lines: one object a line."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from orchestrator.domain.item import Row
from orchestrator.sources.columns import identified
from orchestrator.sources.reading import FileSource, excerpt, filled_lines, reading, unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO


@dataclass(frozen=True, slots=True)
class JsonlSource(FileSource):
    """Rows of a JSONL file, plain or gzip. Blank lines are skipped; a malformed line is one unreadable row.

    `id` names the column that identifies a row: text or whole numbers.
    """

    id: str | None = None

    @contextmanager
    def rows(self) -> Iterator[Iterator[Row]]:
        """Open the file and give its rows in order."""
        with unpacked(self.path) as stream:
            yield self._rows(stream)

    def _rows(self, stream: BinaryIO) -> Iterator[Row]:
        with reading(self.path):
            for number, line in filled_lines(stream):
                try:
                    value = orjson.loads(line)
                except orjson.JSONDecodeError as failure:
                    yield _unreadable(number, line, failure.msg)
                    continue
                if isinstance(value, dict):
                    yield identified(value, self.id, "line", number)
                else:
                    yield _unreadable(number, line, "it is not an object")


def _unreadable(number: int, line: bytes, reason: str) -> Row:
    return Row({"line": number, "raw": excerpt(line)}, unreadable=f"line {number} is not valid JSON: {reason}")
