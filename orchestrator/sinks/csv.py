"""Comma-separated values with a header row (RFC 4180)."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from orchestrator.sinks.delivery import FileSink, RecordWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from orchestrator.sinks.aside import Aside


class CsvWriter(RecordWriter):
    """Text and numbers as they are, true and false in small letters, nothing for null, JSON for everything else."""

    def __init__(self, file: Aside, columns: Sequence[str]) -> None:
        super().__init__(file, columns)
        self._add([columns])

    def write(self, records: Sequence[Mapping[str, object]]) -> None:
        """Add the records."""
        self._add([_cell(record.get(name)) for name in self._columns] for record in records)

    def _add(self, rows: Iterable[Sequence[str]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        self._file.write(text.getvalue().encode())


def _cell(value: object) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else orjson.dumps(value).decode()


@dataclass(frozen=True, slots=True, init=False)
class CsvSink(FileSink):
    """Answers as CSV."""

    writer = CsvWriter
