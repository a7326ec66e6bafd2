"""Comma-separated values with a header row (RFC 4180)."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator import exact_json
from orchestrator.sinks.delivery import FileSink, RecordWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from orchestrator.sinks.aside import Aside


# what a spreadsheet reads as a formula, also in the wide forms of East Asian keyboards, and what it may skip before one
_FORMULA = re.compile("\\s*[-=+@\uff0d\uff1d\uff0b\uff20]|[\t\r\n]")


class CsvWriter(RecordWriter):
    """Text and numbers as they are, true and false in small letters, nothing for null, JSON for everything else.

    With `escape_formulas`, text that a spreadsheet would take for a formula begins with an apostrophe.
    """

    def __init__(self, file: Aside, columns: Sequence[str], *, escape_formulas: bool) -> None:
        super().__init__(file, columns)
        self._text = _as_text if escape_formulas else str
        self._add([[self._text(name) for name in columns]])

    def write(self, records: Sequence[Mapping[str, object]]) -> None:
        """Add the records."""
        self._add([self._cell(record.get(name)) for name in self._columns] for record in records)

    def _cell(self, value: object) -> str:
        if isinstance(value, str):
            return self._text(value)
        return "" if value is None else exact_json.dumps(value).decode()

    def _add(self, rows: Iterable[Sequence[str]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        self._file.write(text.getvalue().encode())


def _as_text(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) else text


@dataclass(frozen=True, slots=True, init=False)
class CsvSink(FileSink):
    """Answers as CSV.

    `escape_formulas`: text that a spreadsheet would take for a formula, as `=HYPERLINK(...)`, gets an apostrophe before
    it. Off by itself, since the cells are then no longer the text itself.
    """

    escape_formulas: bool

    def __init__(
        self,
        path: str | Path,
        keep: Iterable[str] = (),
        *,
        overwrite: bool = False,
        escape_formulas: bool = False,
    ) -> None:
        FileSink.__init__(self, path, keep, overwrite=overwrite)
        object.__setattr__(self, "escape_formulas", escape_formulas)

    def _writer(self, file: Aside, columns: Sequence[str]) -> CsvWriter:
        return CsvWriter(file, columns, escape_formulas=self.escape_formulas)
