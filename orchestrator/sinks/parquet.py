"""Parquet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator import exact_json
from orchestrator.sinks.delivery import FileSink, RecordWriter, json_lines
from orchestrator.sinks.shape import Mixed, Shape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.sinks.aside import Aside

_GROUP_BYTES = 16 << 20  # of JSON; what is held in memory at a time


class ParquetWriter(RecordWriter):
    """Writes columns with their types; a column whose values share no type becomes JSON text.

    Types are known only when every record is, and records need not fit in memory. They wait as JSON lines in a nameless
    file on the same disk.
    """

    def __init__(self, file: Aside, columns: Sequence[str]) -> None:
        super().__init__(file, columns)
        self._shapes = {name: Shape() for name in columns}
        self._waiting = file.scratch()

    def write(self, records: Sequence[Mapping[str, object]]) -> None:
        """Add the records."""
        for name, shape in self._shapes.items():
            shape.see(record.get(name) for record in records)
        self._waiting.write(json_lines(records))

    def finish(self) -> None:
        """Write the file, now that the types are known."""
        types = {name: _type_of(shape) for name, shape in self._shapes.items()}
        schema = pa.schema([(name, kind or pa.string()) for name, kind in types.items()])
        self._waiting.seek(0)
        with pq.ParquetWriter(self._file, schema) as parquet:
            while lines := self._waiting.readlines(_GROUP_BYTES):
                records = [exact_json.loads(line) for line in lines]
                arrays = [_array([record.get(name) for record in records], kind) for name, kind in types.items()]
                parquet.write_batch(pa.record_batch(arrays, schema=schema))


def _type_of(shape: Shape) -> pa.DataType | None:
    try:
        return shape.arrow()
    except Mixed:
        return None


def _array(values: list[object], kind: pa.DataType | None) -> pa.Array:
    if kind is None:
        values = [None if value is None else exact_json.dumps(value).decode() for value in values]
    return pa.array(values, kind or pa.string())


@dataclass(frozen=True, slots=True, init=False)
class ParquetSink(FileSink):
    """Answers as Parquet."""

    def _writer(self, file: Aside, columns: Sequence[str]) -> ParquetWriter:
        return ParquetWriter(file, columns)
