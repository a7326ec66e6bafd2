"""Comma-separated values with a header row (RFC 4180)."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from orchestrator import exact_json
from orchestrator.sinks.delivery import FileSink, RecordWriter, json_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import IO

    from orchestrator.sinks.output_file import OutputFile


_MAX_KEYS = 256  # an object with more is a dictionary of data, not a record
_GROUP_BYTES = 16 << 20  # of JSON; what is held in memory at a time

# what a spreadsheet reads as a formula, including full-width forms, and what it may skip before one
_FORMULA = re.compile("\\s*[-=+@\uff0d\uff1d\uff0b\uff20]|[\t\r\n]")


class CsvWriter(RecordWriter):
    """Writes text and numbers as they are, booleans in lower case, null as nothing, and everything else as JSON.

    If every output is an object of such values, its keys become columns in place of `output`, unless one of them is the
    name of another column. Only the last record can tell, so records wait in a file beside the output until then.
    With `escape_formulas`, text that a spreadsheet would take for a formula begins with an apostrophe.
    """

    def __init__(self, file: OutputFile, columns: Sequence[str], *, escape_formulas: bool) -> None:
        super().__init__(file, columns)
        self._text = _as_text if escape_formulas else str
        self._keys: dict[str, None] = {}  # of the outputs so far, in the order in which they came
        self._waiting: IO[bytes] | None = file.scratch()

    def write(self, records: Sequence[Mapping[str, object]]) -> None:
        """Add the records."""
        if self._waiting is not None and all(map(self._has_columns, records)):
            self._waiting.write(json_lines(records))
            return
        self._keys.clear()
        self.finish()
        self._add([self._cell(record.get(name)) for name in self._columns] for record in records)

    def finish(self) -> Mapping[str, object]:
        """Write the records that waited, now that the columns are known."""
        if self._waiting is None:
            return {}
        names = [name for name in self._columns if name != "output"] if self._keys else self._columns
        self._add([[self._text(name) for name in (*names, *self._keys)]])
        self._waiting.seek(0)
        while lines := self._waiting.readlines(_GROUP_BYTES):
            records = map(exact_json.loads, lines)
            flat = ({**record["output"], **record} if self._keys else record for record in records)
            self._add([self._cell(record.get(name)) for name in (*names, *self._keys)] for record in flat)
        self._waiting = None
        return {}

    def _has_columns(self, record: Mapping[str, object]) -> bool:
        """Collect the output's keys. Return whether they can be columns."""
        output = record.get("output")
        if not isinstance(output, dict) or any(isinstance(value, dict | list) for value in output.values()):
            return False
        self._keys.update(dict.fromkeys(output))
        return len(self._keys) <= _MAX_KEYS and self._keys.keys().isdisjoint(self._columns)

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
    """Writes answers as CSV, compressed if the path ends with `.gz`, `.zst`, `.bz2` or `.xz`.

    If all outputs are flat objects, as `parse` may make them, their keys become columns.

    `escape_formulas`: put an apostrophe before text that a spreadsheet would take for a formula, such as
    `=HYPERLINK(...)`. Off by default, because the cells then no longer hold the text itself.
    """

    packs: ClassVar[bool] = True

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

    def _writer(self, file: OutputFile, columns: Sequence[str]) -> CsvWriter:
        return CsvWriter(file, columns, escape_formulas=self.escape_formulas)
