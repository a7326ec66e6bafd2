"""JSON Lines: one object per line; or one array of objects."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import orjson

from orchestrator.domain.errors import UsageError
from orchestrator.domain.item import Row
from orchestrator.sources import written_json
from orchestrator.sources.columns import identified
from orchestrator.sources.json_array import documents, elements, is_array, is_indented, is_joined
from orchestrator.sources.pandas_json import rows_of
from orchestrator.sources.reading import MOST_OF_LINE, FileSource, excerpt, filled_lines, reading, unpacked
from orchestrator.sources.signature import HEAD

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import BufferedReader

    from orchestrator.domain.location import Target

_RECORD_SEPARATOR = b"\x1e"  # before each text of a JSON text sequence (RFC 7464)


@dataclass(frozen=True, slots=True)
class JsonlSource(FileSource):
    """Rows of JSONL files, of files that are one JSON array of objects, or of objects over several lines or on one.

    A file that is a single object in one of the shapes of pandas' `to_json` is read as a table.
    Files may be compressed (gzip, bzip2, xz, Zstandard). Blank lines are skipped; a malformed line is one unreadable
    row. NaN and Infinity become None, and half a surrogate pair becomes U+FFFD.
    `id` names the column that identifies a row: text or integers.
    """

    suffixes: ClassVar[Sequence[Sequence[str]]] = ((".jsonl", ".ndjson"), (".json",))

    id: str | None = None

    @property
    def reads_as(self) -> str:
        """What shapes its rows besides their lines."""
        return f"JSON lines, id {self.id!r}"

    @contextmanager
    def texts(self) -> Iterator[Iterator[tuple[int, bytes]] | None]:
        """Yield the lines of a single file with one object per line; None if it is anything else.

        None for a subclass too, because it may make other rows of the lines.
        """
        if type(self) is not JsonlSource or self.files() != [self.path]:
            yield None
            return
        with unpacked(Path(self.path) if isinstance(self.path, str) else self.path, markup=True) as stream:
            with reading(self.path):
                head = stream.peek(HEAD)
                in_lines = not (is_array(head) or is_indented(head) or is_joined(head))
                first = list(islice(lines := filled_lines(stream), 2)) if in_lines else []
            # a single line may be a table
            yield _read(self.path, chain(first, lines)) if len(first) > 1 else None

    def row_of(self, number: int, text: bytes) -> Row:
        """Return the row of a line."""
        return self._row("line", number, text)

    @contextmanager
    def _open(self, path: Target) -> Iterator[Iterator[Row]]:
        with unpacked(path, markup=True) as stream:
            yield self._rows(path, stream)

    def _rows(self, path: Target, stream: BufferedReader) -> Iterator[Row]:
        with reading(path):
            head = stream.peek(HEAD)
            if is_array(head):
                for number, text in enumerate(_whole(path, "a whole JSON array", elements(stream, MOST_OF_LINE)), 1):
                    yield self._row("row", number, text)
            elif is_indented(head) or is_joined(head):
                yield from self._tabled(
                    "row", enumerate(_whole(path, "whole JSON", documents(stream, MOST_OF_LINE)), 1)
                )
            else:
                yield from self._tabled("line", filled_lines(stream))

    def _tabled(self, unit: str, texts: Iterator[tuple[int, bytes]]) -> Iterator[Row]:
        """Yield a row for each text; if there is only one and it is a table as pandas writes it, that table's rows."""
        first = next(texts, None)
        if first is None:
            return
        second = next(texts, None)
        table = rows_of(_value(first[1])) if second is None else None
        if table is not None:
            yield from (identified(row, self.id, "row", number) for number, row in enumerate(table, 1))
            return
        for number, text in chain((first,), () if second is None else (second,), texts):
            yield self._row(unit, number, text)

    def _row(self, unit: str, number: int, text: bytes) -> Row:
        if len(text) > MOST_OF_LINE:
            too_long = f"{unit} {number} is longer than {MOST_OF_LINE:,} bytes"
            return Row({unit: number, "raw": excerpt(text)}, unreadable=too_long)
        try:
            value = written_json.loads(text.removeprefix(_RECORD_SEPARATOR))
        except orjson.JSONDecodeError as failure:
            return _unreadable(unit, number, text, failure.msg)
        if isinstance(value, dict):
            row = identified(value, self.id, unit, number)
            row.text = text
            return row
        return _unreadable(unit, number, text, "it is not an object")


def _read(path: str | Path, texts: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    with reading(path):
        yield from texts


def _whole(path: Target, what: str, texts: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from texts
    except ValueError as failure:
        raise UsageError(f"{path} is not {what} ({failure}): write it again") from failure


def _value(text: bytes) -> object:
    try:
        return written_json.loads(text) if len(text) <= MOST_OF_LINE else None
    except orjson.JSONDecodeError:
        return None


def _unreadable(unit: str, number: int, text: bytes, reason: str) -> Row:
    if text.strip() in {b"{", b"["}:
        reason = "a bracket is not closed on this line; write each object on one line, as `jq -c .` does"
    return Row({unit: number, "raw": excerpt(text)}, unreadable=f"{unit} {number} is not valid JSON: {reason}")
