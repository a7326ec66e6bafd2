"""Records as Arrow batches with one schema, in constant memory: for Parquet files and for tables in memory.

Where records become Arrow (Parquet files, tables in memory), `TypedRecords` does it, and nothing else:
`add` the records page by page, which wait as JSON lines in a file, then `reader()` returns a `RecordBatchReader`
with one schema for all of them. Only the last record can settle the types, so there are always
two passes, and memory stays constant. `Shape` learns the type that preserves every value of a column; a column
without such a type is JSON text. A declared output type (`output_schema.py`) is kept in the sink as JSON: a JSON
Schema, or an Arrow schema in base64. `fitting.py` makes what Arrow accepts for it and refuses the rest, because
pyarrow itself writes 1.5 as the integer 1. An output that does not fit fails the delivery instead of discarding the
item: the ledger has its answer as completed, a manifest that says otherwise would not add up, and a corrected
schema delivers it without asking.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

import pyarrow as pa

from orchestrator import exact_json
from orchestrator.domain.errors import UsageError
from orchestrator.sinks.delivery import json_lines
from orchestrator.sinks.fitting import Fit, UnfitValue, fit
from orchestrator.sinks.shape import Mixed, Shape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Record = Mapping[str, object]

_JSON = "JSON as text"
_BATCH_BYTES = 16 << 20  # of JSON; what is held in memory at a time


class TypedRecords:
    """Records with these columns, in this order. Each column has the type that preserves every value of every record.

    A column whose values share no type is JSON text. Types are known only once the last record is, and records need not
    fit in memory: they wait as JSON lines in `waiting`, an empty file. `output`: the column of outputs if its type is
    declared (`declared`).
    """

    def __init__(self, waiting: IO[bytes], columns: Sequence[str], output: pa.Field | None = None) -> None:
        self._waiting = waiting
        self._columns = columns
        self._declared = {} if output is None else {output.name: output}
        self._fits = {name: fit(field.type, nullable=field.nullable) for name, field in self._declared.items()}
        self._shapes = {name: Shape() for name in columns if name not in self._declared}

    def add(self, records: Sequence[Record]) -> None:
        """Add the records."""
        for name, shape in self._shapes.items():
            shape.see(record.get(name) for record in records)
        self._waiting.write(json_lines(records))

    def types(self) -> dict[str, str]:
        """Return the type of each column, in words. It is final once all records are added."""
        words = {name: str(field.type).replace(str(pa.json_()), _JSON) for name, field in self._declared.items()}
        words |= {name: str(_type_of(shape) or _JSON) for name, shape in self._shapes.items()}
        return {name: words[name] for name in self._columns}

    def reader(self) -> pa.RecordBatchReader:
        """Return all records with one schema. No more can be added.

        Reading raises `UsageError` for an output that does not fit its declared type.
        """
        found = {name: _type_of(shape) for name, shape in self._shapes.items()}
        schema = pa.schema([self._field(name, found.get(name)) for name in self._columns])
        return pa.RecordBatchReader.from_batches(schema, self._batches(found, schema))

    def _field(self, name: str, found: pa.DataType | None) -> pa.Field:
        if name in self._declared:
            return self._declared[name].with_type(self._fits[name].type)
        return pa.field(name, found or pa.string())

    def _batches(self, found: Mapping[str, pa.DataType | None], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        self._waiting.seek(0)
        while lines := self._waiting.readlines(_BATCH_BYTES):
            records = [exact_json.loads(line) for line in lines]
            arrays = [
                _fitted(records, name, self._fits[name]) if name in self._fits else _array(records, name, found[name])
                for name in self._columns
            ]
            yield pa.record_batch(arrays, schema=schema)


def _type_of(shape: Shape) -> pa.DataType | None:
    try:
        return shape.arrow()
    except Mixed:
        return None


def _array(records: Sequence[Record], name: str, kind: pa.DataType | None) -> pa.Array:
    values = [record.get(name) for record in records]
    if kind is None:
        values = [None if value is None else exact_json.dumps(value).decode() for value in values]
    return pa.array(values, kind or pa.string())


def _fitted(records: Sequence[Record], name: str, column: Fit) -> pa.Array:
    values = []
    for record in records:
        try:
            values.append(column.convert(record.get(name)))
        except UnfitValue as unfit:
            raise UsageError(
                f"item {record.get('id')!r}: {name}{unfit}, so it does not fit the declared type: correct `schema`, or "
                "let `parse` refuse such answers"
            ) from unfit
    try:
        made = pa.array(values, column.type)
        return made if made.type == column.type else made.cast(column.type)  # Arrow widens the keys of a dictionary
    except pa.ArrowException as failure:  # all values together, as more than the keys of a dictionary
        raise UsageError(
            f"{name} cannot be written as {column.type} ({failure}): declare another `schema`"
        ) from failure
