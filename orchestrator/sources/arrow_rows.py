"""Rows from Arrow's batches, whether from Parquet files or from tables in memory.

Where Arrow becomes rows (Parquet files, tables in memory), `rows_of` does it, and nothing
else, with the values of `arrow_values.py`; so an item does not depend on which library held its row. `ArrowSource`
opens whatever it is given as one `RecordBatchReader`. What has a length, and a query, is read again each time,
because it may have changed, as a file may. What has no length can be read only once, but `plan`, `--limit` and a
second `run` of one job object must see the same rows, so its stream is copied to a temporary file at the first
reading, as standard input is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.domain.item import Row
from orchestrator.sources.arrow_values import is_float32, values_of
from orchestrator.sources.columns import identified
from orchestrator.sources.json_columns import json_decoder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import pyarrow as pa

    from orchestrator.sources.json_columns import Decoder

_MOST_BYTES = 8 << 20
_MOST_ROWS = 4096


def rows_at_a_time(total_bytes: float, rows: int) -> int:
    """Return how many rows to hold at a time: few where each is big, as with images."""
    return max(1, min(_MOST_ROWS, int(_MOST_BYTES / max(total_bytes / max(rows, 1), 1))))


def in_parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Yield the batch in parts, each of which fits in memory as rows."""
    size = rows_at_a_time(batch.nbytes, len(batch))
    return (batch.slice(start, size) for start in range(0, len(batch), size))


def rows_of(batches: Iterable[pa.RecordBatch], id_column: str | None, leaves: Iterable[str] | None) -> Iterator[Row]:
    """Yield the rows of the batches, whose schemas may differ.

    `leaves`: what `json_decoder` has to know of each leaf column; None: JSON stays text.
    """
    schema: pa.Schema = None
    number = 0
    for batch in batches:
        if batch.schema != schema:
            schema = batch.schema
            decoders = {} if leaves is None else _decoders(schema, iter(leaves))
            narrow = frozenset(field.name for field in schema if is_float32(field.type))
        for row in zip(*map(values_of, batch.columns), strict=True):
            number += 1
            made = _row(dict(zip(schema.names, row, strict=True)), decoders, id_column, number)
            yield replace(made, float32=narrow) if narrow else made


def _decoders(schema: pa.Schema, leaves: Iterator[str]) -> dict[str, Decoder]:
    found = ((field.name, json_decoder(field.type, leaves)) for field in schema)
    return {name: decode for name, decode in found if decode is not None}


def _row(columns: dict[str, object], decoders: Mapping[str, Decoder], id_column: str | None, number: int) -> Row:
    for name, decode in decoders.items():
        try:
            columns[name] = decode(columns[name])
        except ValueError as failure:
            return Row(columns, unreadable=f"row {number} has invalid JSON in column {name!r}: {failure}")
    return identified(columns, id_column, "row", number)
