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
    from pathlib import Path
    from typing import BinaryIO


@dataclass(frozen=True, slots=True)
class JsonlSource(FileSource):
    """Rows of JSONL files, plain or gzip. Blank lines are skipped; a malformed line is one unreadable row.

    `id` names the column that identifies a row: text or whole numbers.
    """

    id: str | None = None

    @contextmanager
    def _open(self, path: Path) -> Iterator[Iterator[Row]]:
        with unpacked(path) as stream:
            yield self._rows(path, stream)

    def _rows(self, path: Path, stream: BinaryIO) -> Iterator[Row]:
        with reading(path):
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
