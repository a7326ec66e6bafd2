"""Tables and streams that other libraries hold: pandas, polars, Arrow, DuckDB, datasets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, repeat
from tempfile import NamedTemporaryFile, gettempdir
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import pyarrow as pa

from orchestrator.domain.errors import UsageError
from orchestrator.sources.arrow_rows import in_parts, rows_at_a_time, rows_of
from orchestrator.sources.arrow_values import retyped
from orchestrator.sources.columns import check_header
from orchestrator.sources.json_columns import JSON_AS_TEXT
from orchestrator.sources.read_once import EarlierReadings, used_up

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from orchestrator.domain.item import Row

_NESTED = {"list", "array", "struct", "map"}  # types of DuckDB
_UNLIKE_ARROW = {"bit", "bignum", "variant", "time with time zone"}  # which arrive as bytes, or without the offset
_FEW_ROWS = 256  # at a time, as they may hold images
_PERIOD = "pandas.period"  # the extension type
_LITTLE = 8 << 20  # bytes that may be copied
_DIFFERENT = "Schema at index"  # how Arrow says that it cannot join rows of a dataset
_CONSUMED = "already been consumed"  # how DuckDB says that a relation reads a stream that was read before
_ANEW = "make it anew"
_UNNAMED_INDEX = re.compile(r"__index_level_\d+__")  # what pandas calls a column that it adds


class ArrowStream(Protocol):
    """A table or a stream, as the Arrow PyCapsule interface defines it."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return its rows as an Arrow stream."""
        ...


class Dataset(Protocol):
    """A `Dataset` or `IterableDataset` of `datasets`."""

    def with_format(self, type: str | None = None) -> Any:  # noqa: A002 - its own name
        """Return the same dataset with its rows in another form."""
        ...


class LazyFrame(Protocol):
    """A query of polars."""

    def collect_batches(self) -> Any:
        """Run the query; return its rows as a stream."""
        ...


ArrowData: TypeAlias = ArrowStream | Dataset | LazyFrame


@dataclass(frozen=True, slots=True, eq=False)
class ArrowSource:
    """The rows of a table or a stream in this process, read in batches, with values as in `ParquetSource`.

    `data`: whatever has an Arrow stream (a table of pyarrow, a DataFrame of pandas or polars, a DuckDB relation, a
    `RecordBatchReader`), a polars `LazyFrame`, or a dataset of `datasets`. An item's identity does not depend on which
    library held its row. A query (`LazyFrame`, DuckDB relation) is executed each time the source is read.

    A stream that can be read only once is read once: its rows are kept in a temporary file as long as the source lives.
    One that has no rows is refused, because it was probably read before.
    """

    data: ArrowData = field(repr=False)
    id: str | None = None
    _kept: list[Any] = field(default_factory=list, init=False, repr=False)  # at most one table; None: it failed
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)
    _earlier: EarlierReadings = field(default_factory=EarlierReadings, init=False, repr=False)

    def __post_init__(self) -> None:
        name = type(self.data).__name__
        if isinstance(self.data, Mapping) and hasattr(self.data, "with_format"):
            raise UsageError(f"a {name} has several splits: choose one, as data[{next(iter(self.data), 'train')!r}]")
        if name == "Series":
            raise UsageError("a Series is one column: give a table, as `series.to_frame()` makes it")
        if not any(hasattr(self.data, word) for word in ("__arrow_c_stream__", "with_format", "collect_batches")):
            raise UsageError(f"a {name} has no Arrow stream: use IterableSource for rows, and ParquetSource for files")

    @contextmanager
    def rows(self) -> Iterator[Iterator[Row]]:
        """Start from the beginning and yield the rows in order."""
        with table_rows(self._again(), self.id, decodes_json=True) as rows:
            if hasattr(self.data, "with_format"):  # it may be made of a generator
                rows = self._earlier.check_left(rows, type(self.data).__name__, _ANEW)  # noqa: PLW2901
            yield rows

    def sha256(self) -> None:
        """Return None, because only reading the rows can tell."""

    def describe(self) -> str:
        """Return the type of the data."""
        return f"rows of {type(self.data).__name__}"

    def _again(self) -> Any:
        """Return the data, or what is kept of it if it can be read only once. What has a length can be read again."""
        if not hasattr(self.data, "__arrow_c_stream__") or hasattr(self.data, "__len__"):
            return self.data
        with self._lock:
            if not self._kept:
                self._kept.append(None)
                self._kept[0] = _copy(self.data)
            name = type(self.data).__name__
            if self._kept[0] is None:  # a second reading would find only the rows that the first one left
                raise UsageError(f"the {name} can be read only once, and reading it has failed: {_ANEW}")
            if not self._kept[0].num_rows:
                raise UsageError(
                    f"the {name} has no rows: it can be read only once, and was probably read before; {_ANEW}, "
                    "or give a table, which may be empty"
                )
            return self._kept[0]


@contextmanager
def table_rows(
    data: ArrowData, id_column: str | None, *, decodes_json: bool, name: str | None = None
) -> Iterator[Iterator[Row]]:
    """Read the rows. Raises `UsageError` if the data cannot be read as rows, or lacks the id column.

    `name`: what errors call the data, by default its type.
    """
    name = name or type(data).__name__
    with _opened(data, name) as reader:
        columns = [column for column in reader.schema.names if not _UNNAMED_INDEX.fullmatch(column)]
        if columns:  # an empty dataset may have none
            check_header(f"the {name}", columns, id_column)
        if decodes_json:
            _check_types(reader.schema)
        leaves = _leaves(data, columns) if decodes_json else None
        batches = _batches(reader, name)
        if _library(data) == "duckdb":
            batches = _not_used_up(batches, data, name)
        selected = (batch.select(columns) for batch in batches)
        yield rows_of(chain.from_iterable(map(in_parts, selected)), id_column, leaves)


def _batches(reader: pa.RecordBatchReader, name: str) -> Iterator[pa.RecordBatch]:
    try:
        yield from reader
    except UsageError:
        raise
    except Exception as failure:  # each library has exceptions of its own
        raise UsageError(
            f"the {name} cannot be read to its end ({_reason(failure)}): correct what it reads, and run again"
        ) from failure


def _not_used_up(batches: Iterator[pa.RecordBatch], relation: Any, name: str) -> Iterator[pa.RecordBatch]:
    """Yield a relation's batches. If it has no rows, only executing it again tells if it reads a used up stream."""
    rows = 0
    for batch in batches:
        rows += len(batch)
        yield batch
    if not rows:
        _opened(relation, name).close()


def _opened(data: Any, name: str) -> pa.RecordBatchReader:
    """Return the data as a stream."""
    library = _library(data)
    try:
        if library == "polars" and hasattr(data, "collect_schema"):  # no stream of batches
            _check_columns(data)
        if not hasattr(data, "__arrow_c_stream__"):
            if not hasattr(data, "collect_batches"):
                return _of_dataset(data)
            data = data.collect_batches()
        if library == "pandas":
            return _of_pandas(data)
        reader = pa.RecordBatchReader.from_stream(data)
        return _in_utc(reader) if library == "duckdb" else reader
    except UsageError:
        raise
    except Exception as failure:  # each library has exceptions of its own
        if _CONSUMED in str(failure):
            raise used_up(f"stream of the {name}", "make both anew, or query a table") from failure
        raise _not_rows(f"the {name}", failure) from failure


def _not_rows(what: str, failure: Exception) -> UsageError:
    return UsageError(
        f"{what} cannot be read as rows ({_reason(failure)}): convert its columns, "
        "or give IterableSource a list of dicts, as df.to_dict('records') or df.to_dicts() makes it"
    )


def _library(data: object) -> str:
    return type(data).__module__.partition(".")[0].lstrip("_")


def _check_columns(frame: Any) -> None:
    """Refuse columns of Python objects, of which polars' stream has the addresses."""
    for name, kind in frame.collect_schema().items():
        if str(kind) == "Object":
            raise UsageError(f"column {name!r} of the {type(frame).__name__} holds Python objects: convert it")


def _check_types(schema: pa.Schema) -> None:
    """Refuse periods of pandas, of which Arrow has the number of periods since 1970."""
    for name, kind in zip(schema.names, schema.types, strict=True):
        if isinstance(kind, pa.BaseExtensionType) and kind.extension_name == _PERIOD:
            raise UsageError(f"column {name!r} has periods, which arrive as numbers: convert it to text or dates")


def _of_pandas(frame: Any) -> pa.RecordBatchReader:
    """Return the frame as its own stream does, but convert Python objects few rows at a time, as Arrow copies them.

    Each column of objects has the type that Arrow finds for all of its rows.
    """
    check_header("the DataFrame", [str(column) for column in frame.columns], None)
    objects = {place: frame.iloc[:, place].to_numpy() for place, kind in enumerate(frame.dtypes) if kind == "object"}
    others = frame.iloc[:, [place for place in range(frame.shape[1]) if place not in objects]]
    names = pa.Schema.from_pandas(frame.iloc[:0]).names
    whole = pa.Table.from_pandas(others)
    kinds = list(whole.schema.types)
    for place, values in objects.items():
        with _of_column(names[place]):
            kinds.insert(place, pa.infer_type(values, from_pandas=True))
    schema = pa.schema(zip(names, kinds, strict=True))
    return pa.RecordBatchReader.from_batches(schema, _parts(whole, objects, schema))


def _parts(whole: pa.Table, objects: Mapping[int, Any], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the table in parts, with the columns of objects in their places."""
    start, size = 0, _FEW_ROWS
    while start < whole.num_rows:
        columns = whole.slice(start, size).columns
        for place, values in objects.items():
            with _of_column(schema.names[place]):
                columns.insert(place, pa.array(values[start : start + size], schema.types[place], from_pandas=True))
        part = pa.Table.from_arrays(columns, schema=schema)
        yield from part.to_batches()
        start += size
        size = rows_at_a_time(part.nbytes, part.num_rows)


@contextmanager
def _of_column(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as failure:  # Arrow's, and those of the objects
        raise _not_rows(f"column {name!r} of the DataFrame", failure) from failure


def _of_dataset(dataset: Any) -> pa.RecordBatchReader:
    if (getattr(dataset, "format", None) or {}).get("type") == "custom":
        raise UsageError("the dataset has a transform, which only rows in Python show: use `map` in its place")
    tables = _tables(dataset)
    first = next(tables, None)
    joined = map(_joined, chain(() if first is None else (first,), tables))
    batches = (batch for table in joined for batch in table.to_batches())
    return pa.RecordBatchReader.from_batches(pa.schema([]) if first is None else first.schema, batches)


def _joined(table: pa.Table) -> pa.Table:
    """Return the table in one piece, unless it is big. Each row that Python made is a piece of its own."""
    return table.combine_chunks() if table.nbytes < _LITTLE else table


def _tables(dataset: Any) -> Iterator[pa.Table]:
    """Yield the dataset as tables of one schema. A dataset without features finds types for each few rows anew."""
    differ = (
        f"the {type(dataset).__name__} has rows with different columns or types: declare its features, or let "
        "IterableSource read it row by row"
    )
    schema: pa.Schema | None = None
    tables = dataset.with_format("arrow").iter(batch_size=_FEW_ROWS)
    while True:
        try:
            table = next(tables, None)
        except pa.ArrowInvalid as failure:
            if _DIFFERENT not in str(failure):
                raise
            raise UsageError(differ) from failure
        if table is None:
            return
        if schema is not None and table.schema != schema:
            raise UsageError(differ)
        schema = table.schema
        yield table


def _in_utc(reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """Return DuckDB's moments in UTC, as in its Parquet files; its streams name the time zone of the session."""
    schema = pa.schema([column.with_type(retyped(column.type, _utc)) for column in reader.schema])
    return reader if schema == reader.schema else reader.cast(schema)


def _utc(kind: pa.DataType) -> pa.DataType:
    return pa.timestamp(kind.unit, "UTC") if isinstance(kind, pa.TimestampType) and kind.tz else kind


def _leaves(data: Any, columns: Sequence[str]) -> Iterable[str]:
    """Return what `json_decoder` has to know of the leaf columns beyond their types: DuckDB's JSON arrives as text."""
    if _library(data) != "duckdb":
        return repeat("")
    kinds = ((name, kind) for name, kind in zip(data.columns, data.types, strict=True) if name in columns)
    return [leaf for name, kind in kinds for leaf in _leaves_within(kind, name)]


def _leaves_within(kind: Any, column: str) -> Iterator[str]:
    if kind.id in _UNLIKE_ARROW:
        raise UsageError(
            f"column {column!r} has DuckDB's type {kind}, whose stream is not its value: cast it to VARCHAR"
        )
    if kind.id not in _NESTED:
        yield JSON_AS_TEXT if str(kind) == "JSON" else ""
        return
    for _, child in kind.children:
        if not isinstance(child, int):  # the size of an array
            yield from _leaves_within(child, column)


def _copy(stream: ArrowData) -> pa.Table:
    """Return what a stream holds as a table whose memory is a nameless file."""
    name = type(stream).__name__
    try:
        with NamedTemporaryFile() as file:
            with _opened(stream, name) as reader, pa.ipc.new_stream(file, reader.schema) as writer:
                for batch in _batches(reader, name):
                    writer.write_batch(batch)
            file.flush()
            return pa.ipc.open_stream(pa.memory_map(file.name)).read_all()
    except OSError as failure:  # the file's; those of the stream are translated
        raise UsageError(
            f"the rows of the {name}, which can be read only once, cannot be kept ({failure.strerror or failure} in "
            f"{gettempdir()}): free some space there, or set TMPDIR to another folder, and make it anew"
        ) from failure


def _reason(failure: Exception) -> str:
    first, _, _ = str(failure).partition("\n")
    return f"{type(failure).__name__}: {first}"
