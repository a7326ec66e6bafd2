"""JSON Lines: one object per line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from orchestrator.sinks.delivery import FileSink, RecordWriter, json_lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.sinks.output_file import OutputFile


class JsonlWriter(RecordWriter):
    """Writes one record per line, without escaping non-ASCII characters."""

    def write(self, records: Sequence[Mapping[str, object]]) -> None:
        """Add the records."""
        columns = tuple(self._columns)
        self._file.write(
            json_lines(
                record if (*record,) == columns else {name: record.get(name) for name in columns} for record in records
            )
        )


@dataclass(frozen=True, slots=True, init=False)
class JsonlSink(FileSink):
    """Answers as JSONL, compressed if the path ends with `.gz`, `.zst`, `.bz2` or `.xz`."""

    packs: ClassVar[bool] = True

    def _writer(self, file: OutputFile, columns: Sequence[str]) -> JsonlWriter:
        return JsonlWriter(file, columns)
