"""Tables that other libraries hold in memory (pandas, polars, Arrow, DuckDB), read by Arrow's stream interface."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pyarrow as pa

from orchestrator.domain.errors import UsageError
from orchestrator.sources.arrow_values import values_of
from orchestrator.sources.columns import check_header

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROWS = 4096
_UNNAMED_INDEX = re.compile(r"__index_level_\d+__")  # what pandas calls a column that it adds


def rows_of(frame: object, id_column: str | None) -> Iterator[dict[str, object]]:
    """Yield the rows, with values as in `ParquetSource`. Raises `UsageError` if they cannot be read or lack the id."""
    kind = type(frame).__name__
    try:
        reader = pa.RecordBatchReader.from_stream(frame)
    except (pa.ArrowException, TypeError, ValueError, NotImplementedError) as failure:
        reason = str(failure).partition("\n")[0]
        raise UsageError(
            f"a {kind} cannot be read as rows ({reason}): give a list of dicts, as df.to_dict('records') makes it"
        ) from failure
    check_header(f"the {kind}", reader.schema.names, id_column)
    return _rows(reader)


def _rows(reader: pa.RecordBatchReader) -> Iterator[dict[str, object]]:
    names = [name for name in reader.schema.names if not _UNNAMED_INDEX.fullmatch(name)]
    for batch in reader:
        for start in range(0, len(batch), _ROWS):
            part = batch.slice(start, _ROWS)
            for row in zip(*(values_of(part.column(name)) for name in names), strict=True):
                yield dict(zip(names, row, strict=True))
