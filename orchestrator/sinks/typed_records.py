"""Records as Arrow batches with one schema, in constant memory: for Parquet files and for tables in memory."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

import pyarrow as pa

from orchestrator import exact_json
from orchestrator.sinks.delivery import json_lines
from orchestrator.sinks.shape import Mixed, Shape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Record = Mapping[str, object]

_BATCH_BYTES = 16 << 20  # of JSON; what is held in memory at a time


class TypedRecords:
    """Records with these columns, in this order. Each column has the type that preserves every value of every record.

    A column whose values share no type is JSON text. Types are known only once the last record is, and records need not
    fit in memory: they wait as JSON lines in `waiting`, an empty file.
    """

    def __init__(self, waiting: IO[bytes], columns: Sequence[str]) -> None:
        self._waiting = waiting
        self._shapes = {name: Shape() for name in columns}

    def add(self, records: Sequence[Record]) -> None:
        """Add the records."""
        for name, shape in self._shapes.items():
            shape.see(record.get(name) for record in records)
        self._waiting.write(json_lines(records))

    def reader(self) -> pa.RecordBatchReader:
        """Return all records with one schema. No more can be added."""
        types = {name: _type_of(shape) for name, shape in self._shapes.items()}
        schema = pa.schema([(name, kind or pa.string()) for name, kind in types.items()])
        return pa.RecordBatchReader.from_batches(schema, self._batches(types, schema))

    def _batches(self, types: Mapping[str, pa.DataType | None], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        self._waiting.seek(0)
        while lines := self._waiting.readlines(_BATCH_BYTES):
            records = [exact_json.loads(line) for line in lines]
            arrays = [_array([record.get(name) for record in records], kind) for name, kind in types.items()]
            yield pa.record_batch(arrays, schema=schema)


def _type_of(shape: Shape) -> pa.DataType | None:
    try:
        return shape.arrow()
    except Mixed:
        return None


def _array(values: list[object], kind: pa.DataType | None) -> pa.Array:
    if kind is None:
        values = [None if value is None else exact_json.dumps(value).decode() for value in values]
    return pa.array(values, kind or pa.string())
