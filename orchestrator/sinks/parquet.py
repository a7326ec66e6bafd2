"""Parquet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from orchestrator.sinks.delivery import FileSink, RecordWriter
from orchestrator.sinks.typed_records import TypedRecords

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.sinks.aside import Aside


class ParquetWriter(RecordWriter):
    """Writes columns with the types of `TypedRecords`, whose records wait in a nameless file on the same disk."""

    def __init__(self, file: Aside, columns: Sequence[str]) -> None:
        super().__init__(file, columns)
        self._records = TypedRecords(file.scratch(), columns)

    def write(self, records: Sequence[Mapping[str, object]]) -> None:
        """Add the records."""
        self._records.add(records)

    def finish(self) -> None:
        """Write the file, now that the types are known."""
        reader = self._records.reader()
        with pq.ParquetWriter(self._file, reader.schema) as parquet:
            for batch in reader:
                parquet.write_batch(batch)


@dataclass(frozen=True, slots=True, init=False)
class ParquetSink(FileSink):
    """Answers as Parquet."""

    def _writer(self, file: Aside, columns: Sequence[str]) -> ParquetWriter:
        return ParquetWriter(file, columns)
