"""JSON Lines: one object a line; or one array of objects."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from orchestrator.domain.errors import UsageError
from orchestrator.domain.item import Row
from orchestrator.sources import written_json
from orchestrator.sources.columns import identified
from orchestrator.sources.json_array import elements, is_array
from orchestrator.sources.reading import MOST_OF_LINE, FileSource, excerpt, filled_lines, reading, unpacked
from orchestrator.sources.signature import HEAD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class JsonlSource(FileSource):
    """Rows of JSONL files, or of files that are one JSON array of objects.

    They may be packed (gzip, bzip2, xz, Zstandard). Blank lines are skipped; a malformed line is one unreadable row.
    NaN and Infinity become None, half a surrogate pair U+FFFD.
    `id` names the column that identifies a row: text or whole numbers.
    """

    id: str | None = None

    @contextmanager
    def _open(self, path: Path) -> Iterator[Iterator[Row]]:
        with unpacked(path, markup=True) as stream:
            yield self._rows(path, stream)

    def _rows(self, path: Path, stream: BufferedReader) -> Iterator[Row]:
        with reading(path):
            if is_array(stream.peek(HEAD)):
                yield from self._elements(path, stream)
                return
            for number, line in filled_lines(stream):
                yield self._row("line", number, line)

    def _elements(self, path: Path, stream: BufferedReader) -> Iterator[Row]:
        try:
            for number, element in enumerate(elements(stream), 1):
                yield self._row("row", number, element)
        except ValueError as failure:
            raise UsageError(f"{path} is not a whole JSON array ({failure}): write it again") from failure

    def _row(self, unit: str, number: int, text: bytes) -> Row:
        if len(text) > MOST_OF_LINE:
            too_long = f"{unit} {number} is longer than {MOST_OF_LINE:,} bytes"
            return Row({unit: number, "raw": excerpt(text)}, unreadable=too_long)
        try:
            value = written_json.loads(text)
        except orjson.JSONDecodeError as failure:
            return _unreadable(unit, number, text, failure.msg)
        if isinstance(value, dict):
            return identified(value, self.id, unit, number)
        return _unreadable(unit, number, text, "it is not an object")


def _unreadable(unit: str, number: int, text: bytes, reason: str) -> Row:
    if text.strip() in {b"{", b"["}:
        reason = "what it opens is closed in another line, and each line is one object, as `jq -c .` writes them"
    return Row({unit: number, "raw": excerpt(text)}, unreadable=f"{unit} {number} is not valid JSON: {reason}")
