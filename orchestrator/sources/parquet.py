"""Parquet."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.domain.errors import UsageError
from orchestrator.sources.arrow_rows import rows_at_a_time, rows_of
from orchestrator.sources.columns import check_header
from orchestrator.sources.reading import FileSource, opened, reading
from orchestrator.sources.signature import HEAD, foreign, packing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from orchestrator.domain.item import Row


@dataclass(frozen=True, slots=True)
class ParquetSource(FileSource):
    """Rows of Parquet files, or of a folder of them, read in batches, with every value as JSON can express it.

    Dates and times become ISO text (to the microsecond), decimals text, bytes base64, durations seconds, intervals of
    months and days ISO text, and maps lists of pairs. NaN and Infinity become None, and so does a moment without a text
    form. Text of the logical type JSON, at any depth, is decoded; if it is not valid JSON, the row is unreadable.
    """

    suffixes: ClassVar[Sequence[Sequence[str]]] = ((".parquet",),)

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
        stored_as = [file.schema.column(index).converted_type for index in range(len(file.schema))]
        with _reading(path):
            yield from rows_of(file.iter_batches(batch_size=_batch_rows(file.metadata)), self.id, stored_as)


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
    """Return how many rows of the group with the biggest ones to hold at a time."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    return min((rows_at_a_time(group.total_byte_size, group.num_rows) for group in groups), default=1)
