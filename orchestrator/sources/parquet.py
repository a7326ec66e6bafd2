"""Parquet."""

from __future__ import annotations

from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.domain.errors import UsageError
from orchestrator.domain.location import Location
from orchestrator.sources.arrow_rows import rows_at_a_time, rows_of
from orchestrator.sources.columns import check_header
from orchestrator.sources.reading import FileSource, opened_for_ranges, reading
from orchestrator.sources.signature import foreign, packing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.domain.item import Row
    from orchestrator.domain.location import Target

_BUFFER = 1 << 20  # bytes of a column that are read at a time


@dataclass(frozen=True, slots=True)
class ParquetSource(FileSource):
    """Rows of Parquet files, or of a folder of them, read in batches, with every value as JSON can express it.

    Dates and times become ISO text (to the microsecond), decimals text, bytes base64, durations seconds, intervals of
    months and days ISO text, and maps lists of pairs. NaN and Infinity become None, and so does a moment without a text
    form. Text of the logical type JSON, at any depth, is decoded; if it is not valid JSON, the row is unreadable.
    """

    suffixes: ClassVar[Sequence[Sequence[str]]] = ((".parquet",),)

    id: str | None = None
    columns: frozenset[str] | None = field(default=None, init=False, repr=False, compare=False)

    def selecting(self, columns: frozenset[str]) -> Self:
        """Return the source that asks a store only for these columns and the id.

        Files on this machine, and files without one of these columns, are read as they are, and so is a source without
        `id`: its ids are made from all columns.
        """
        if self.id is None or not isinstance(self.path, Location):
            return self
        narrow = copy(self)
        object.__setattr__(narrow, "columns", columns | {self.id})
        return narrow

    @contextmanager
    def _open(self, path: Target) -> Iterator[Iterator[Row]]:
        with opened_for_ranges(path) as (stream, head):
            with _reading(path):
                if not head.startswith((b"PAR1", b"PARE")):
                    raise UsageError(_not_parquet(path, head))
                file = pq.ParquetFile(stream, buffer_size=_BUFFER, arrow_extensions_enabled=True)
            check_header(str(path), file.schema_arrow.names, self.id)
            yield self._rows(path, file)

    def _rows(self, path: Target, file: pq.ParquetFile) -> Iterator[Row]:
        names = self._selected(file.schema_arrow.names)
        leaves = [file.schema.column(index) for index in range(len(file.schema))]
        stored_as = [leaf.converted_type for leaf in leaves if names is None or leaf.path.split(".")[0] in names]
        with _reading(path):
            batches = file.iter_batches(batch_size=_batch_rows(file.metadata), columns=names)
            yield from rows_of(batches, self.id, stored_as)

    def _selected(self, names: Sequence[str]) -> list[str] | None:
        """Return the columns to read, in the file's order; None for all."""
        if self.columns is None or not self.columns.issubset(names) or any("." in name for name in names):
            return None
        return [name for name in names if name in self.columns]


@contextmanager
def _reading(path: Target) -> Iterator[None]:
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


def _not_parquet(path: Target, head: bytes) -> str:
    packed = packing(head, path.suffix)
    if packed is not None:
        return f"{path} is compressed ({packed}), which Parquet files must not be: unpack it"
    kind, remedy = foreign(head, markup=True) or ("not Parquet", "give its path to the source for its format")
    return f"{path} is {kind}: {remedy}"


def _batch_rows(metadata: pq.FileMetaData) -> int:
    """Return how many rows of the group with the biggest ones to hold at a time."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    return min((rows_at_a_time(group.total_byte_size, group.num_rows) for group in groups), default=1)
