"""Parquet."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.domain.errors import UsageError
from orchestrator.domain.item import Row
from orchestrator.sources.arrow_values import is_float32, values_of
from orchestrator.sources.columns import check_header, identified
from orchestrator.sources.json_columns import json_decoder
from orchestrator.sources.reading import FileSource, opened, reading
from orchestrator.sources.signature import HEAD, foreign, packing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from orchestrator.sources.json_columns import Decoder

_BATCH_BYTES = 8 << 20
_BATCH_ROWS = 4096


@dataclass(frozen=True, slots=True)
class ParquetSource(FileSource):
    """Rows of Parquet files, or of a folder of them, read in batches, with every value as JSON can express it.

    Dates and times become ISO text (to the microsecond), decimals text, bytes base64, durations seconds, intervals of
    months and days ISO text, and maps lists of pairs. NaN and Infinity become None, and so does a moment without a text
    form. Text of the logical type JSON, at any depth, is decoded; if it is not valid JSON, the row is unreadable.
    """

    of_folder: ClassVar[str | None] = "**/*.parquet"

    id: str | None = None

    @contextmanager
    def _open(self, path: Path) -> Iterator[Iterator[Row]]:
        with opened(path) as stream:
            with _reading(path):
                head = stream.peek(HEAD)
                if not head.startswith((b"PAR1", b"PARE")):
                    raise UsageError(_not_parquet(path, head))
                file = pq.ParquetFile(stream, buffer_size=1 << 20, arrow_extensions_enabled=True)
            check_header(str(path), file.schema_arrow.names, self.id)
            yield self._rows(path, file)

    def _rows(self, path: Path, file: pq.ParquetFile) -> Iterator[Row]:
        leaves = map(file.schema.column, range(len(file.schema)))
        found = ((field.name, json_decoder(field.type, leaves)) for field in file.schema_arrow)
        decoders = {name: decode for name, decode in found if decode is not None}
        names = file.schema_arrow.names
        narrow = frozenset(field.name for field in file.schema_arrow if is_float32(field.type))
        number = 0
        with _reading(path):
            for batch in file.iter_batches(batch_size=_batch_rows(file.metadata)):
                for row in zip(*map(values_of, batch.columns), strict=True):
                    number += 1
                    made = self._row(dict(zip(names, row, strict=True)), decoders, number)
                    yield replace(made, float32=narrow) if narrow else made

    def _row(self, columns: dict[str, object], decoders: Mapping[str, Decoder], number: int) -> Row:
        for name, decode in decoders.items():
            try:
                columns[name] = decode(columns[name])
            except ValueError as failure:
                reason = f"row {number} has invalid JSON in column {name!r}: {failure}"
                return Row(columns, unreadable=reason)
        return identified(columns, self.id, "row", number)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    with reading(path):
        try:
            yield
        except (pa.ArrowException, ValueError, OverflowError, OSError) as failure:
            if getattr(failure, "errno", None):  # the disk; Arrow calls damaged pages an OSError as well
                raise
            reason = str(failure).partition("\n")[0]
            if "more than 64 bits" in reason:
                raise UsageError(
                    f"{path} has whole numbers of 128 bits, which Arrow does not read: write that column as text"
                ) from failure
            raise UsageError(f"{path} cannot be read as Parquet ({reason}): write it again") from failure


def _not_parquet(path: Path, head: bytes) -> str:
    packed = packing(head, path.suffix)
    if packed is not None:
        return f"{path} is compressed ({packed}), which Parquet files must not be: unpack it"
    kind, remedy = foreign(head, markup=True) or ("not Parquet", "give its path to the source for its format")
    return f"{path} is {kind}: {remedy}"


def _batch_rows(metadata: pq.FileMetaData) -> int:
    """Return how many rows to hold at a time: few where each is big, as with images."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    biggest = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=0)
    return max(1, min(_BATCH_ROWS, int(_BATCH_BYTES / max(biggest, 1))))
