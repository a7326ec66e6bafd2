"""Parquet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from orchestrator.domain.errors import UsageError
from orchestrator.domain.file_names import packing_of
from orchestrator.sinks.delivery import FileSink, RecordWriter
from orchestrator.sinks.output_schema import declared, schema_form
from orchestrator.sinks.typed_records import TypedRecords

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

    from orchestrator.sinks.output_file import OutputFile
    from orchestrator.sinks.output_schema import DeclaredType


class ParquetWriter(RecordWriter):
    """Writes columns with the types of `TypedRecords`, whose records wait in a nameless file on the same disk."""

    def __init__(self, file: OutputFile, columns: Sequence[str], output: pa.Field | None) -> None:
        super().__init__(file, columns)
        self._records = TypedRecords(file.scratch(), columns, output)

    def write(self, records: Sequence[Mapping[str, object]]) -> None:
        """Add the records."""
        self._records.add(records)

    def finish(self) -> Mapping[str, object]:
        """Write the file, now that the types are known. Return them for the manifest."""
        reader = self._records.reader()
        with pq.ParquetWriter(self._file, reader.schema) as parquet:
            for batch in reader:
                parquet.write_batch(batch)
        return {"types": self._records.types()}


@dataclass(frozen=True, slots=True, init=False)
class ParquetSink(FileSink):
    """Answers as Parquet.

    `schema`: the type of the outputs, as a pydantic model, a JSON Schema, or an Arrow schema (of an object's fields) or
    type. An output that does not fit it exactly ends the delivery; no value is changed to fit. By default, each column
    gets the type that preserves every value, or is JSON text if there is none.
    """

    schema: Mapping[str, object] | None

    def __init__(
        self,
        path: str | Path,
        keep: Iterable[str] = (),
        *,
        overwrite: bool = False,
        schema: DeclaredType | None = None,
    ) -> None:
        FileSink.__init__(self, path, keep, overwrite=overwrite)
        if packing_of(self.path.name) is not None:
            raise UsageError(f"{path}: Parquet files are compressed within: leave out {self.path.suffix}")
        object.__setattr__(self, "schema", schema_form(schema))

    def _writer(self, file: OutputFile, columns: Sequence[str]) -> ParquetWriter:
        return ParquetWriter(file, columns, None if self.schema is None else declared(self.schema))
