"""Tables and streams of other libraries: the guarantees of every source, what is refused, and memory."""

from __future__ import annotations

import resource
import subprocess
import sys
import tracemalloc
from typing import TYPE_CHECKING, Any

import datasets
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from orchestrator.domain.errors import UsageError
from orchestrator.sources import ArrowSource, IterableSource
from orchestrator.testing import SourceConformance
from orchestrator.testing.sources import read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from orchestrator import ports

# -- the guarantees of every source -----------------------------------------------------------------------------------


def texts_table(texts: Sequence[str]) -> pa.Table:
    return pa.table({"text": pa.array(texts, pa.string())})


class TestArrowTable(SourceConformance):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        return ArrowSource(texts_table(texts))


class TestArrowReader(SourceConformance):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        return ArrowSource(texts_table(texts).to_reader(max_chunksize=2))

    @pytest.mark.skip("nothing tells a stream without rows from one that was read before")
    def test_an_empty_source_has_no_rows(self, tmp_path: Path) -> None: ...


class TestPandas(SourceConformance):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        return ArrowSource(pd.DataFrame({"text": pd.Series(texts, dtype="str")}))


class TestPolars(SourceConformance):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        return ArrowSource(pl.DataFrame({"text": texts}, schema={"text": pl.String}))


class TestLazyPolars(SourceConformance):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        return ArrowSource(pl.LazyFrame({"text": texts}, schema={"text": pl.String}))


class TestDuckdb(SourceConformance):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        connection = duckdb.connect()
        connection.register("texts", texts_table(texts))
        return ArrowSource(connection.table("texts"))

    @pytest.mark.skip("a connection of DuckDB has one open result at a time")
    def test_two_readers_do_not_disturb_each_other(self, tmp_path: Path) -> None: ...


class TestDataset(SourceConformance):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        return ArrowSource(datasets.Dataset(texts_table(texts)))


class TestIterableDataset(SourceConformance):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        return ArrowSource(datasets.IterableDataset.from_generator(lambda: ({"text": text} for text in texts)))


# -- what can be read once, and what changes between two readings -----------------------------------------------------


def test_a_stream_that_can_be_read_once_is_kept_for_later_readings() -> None:
    produced: list[int] = []

    def batches() -> Iterator[pa.RecordBatch]:
        for number in range(5):
            produced.append(number)
            yield pa.record_batch({"id": [number], "kind": pa.array(["a"]).dictionary_encode()})

    schema = pa.schema({"id": pa.int64(), "kind": pa.dictionary(pa.int32(), pa.string())})
    source = ArrowSource(pa.RecordBatchReader.from_batches(schema, batches()), id="id")
    with source.rows() as rows:  # as a plan or `--limit` reads it
        assert next(rows).columns == {"id": 0, "kind": "a"}
    assert [row.id for row in read(source)] == [row.id for row in read(source)] == ["0", "1", "2", "3", "4"]
    assert produced == [0, 1, 2, 3, 4]


def test_batches_of_a_polars_query_are_read_once() -> None:
    source = ArrowSource(pl.LazyFrame({"id": [1, 2]}).collect_batches(), id="id")
    assert [row.id for row in read(source)] == [row.id for row in read(source)] == ["1", "2"]


def test_a_query_is_executed_again_each_time() -> None:
    with duckdb.connect() as connection:
        connection.execute("create table t as select 1 as id")
        source = ArrowSource(connection.sql("from t"), id="id")
        with source.rows() as rows:
            assert next(rows).id == "1"
        connection.execute("insert into t values (2)")  # the connection is free again
        assert [row.id for row in read(source)] == ["1", "2"]


def test_a_function_may_return_a_new_stream_each_time() -> None:
    table = pa.table({"id": [1, 2]})
    source = IterableSource(table.to_reader, id="id")
    assert [row.id for row in read(source)] == [row.id for row in read(source)] == ["1", "2"]


def exhausted() -> pa.RecordBatchReader:
    reader = pa.table({"id": [1]}).to_reader()
    reader.read_all()
    return reader


def of_one_iterator() -> datasets.IterableDataset:
    rows = iter([{"id": 1}, {"id": 2}])
    return datasets.IterableDataset.from_generator(lambda: rows)


def of_a_reader(query: str) -> duckdb.DuckDBPyRelation:
    connection = duckdb.connect()
    connection.register("stream", pa.table({"id": [0, 1]}).to_reader())
    return connection.sql(query)


@pytest.mark.parametrize(
    ("source", "readings", "says"),
    [
        (
            lambda: ArrowSource(exhausted()),
            0,
            "the RecordBatchReader has no rows: it can be read only once, and was probably read before; make it anew",
        ),
        (lambda: ArrowSource(of_one_iterator()), 1, "the IterableDataset can be read only once, .*: make it anew"),
        (lambda: IterableSource(of_one_iterator()), 1, "the IterableDataset can be read only once, .*: give a list"),
        (
            lambda: ArrowSource(of_a_reader("from stream")),
            1,
            "the stream of the DuckDBPyRelation can be read only once",
        ),
        (lambda: ArrowSource(of_a_reader("from stream where id > 1")), 0, "the stream of the DuckDBPyRelation can be"),
    ],
)
def test_what_an_earlier_reading_used_up_is_not_taken_for_an_empty_source(
    source: Callable[[], ports.Source], readings: int, says: str
) -> None:
    made = source()
    for _ in range(readings):
        assert len(read(made)) == 2
    with pytest.raises(UsageError, match=f"^{says}"):
        read(made)


def test_a_query_without_rows_is_read_again() -> None:
    source = ArrowSource(duckdb.connect().sql("select 1 as id where false"))
    assert read(source) == read(source) == []


# -- pandas -----------------------------------------------------------------------------------------------------------


def frame(rows: int) -> pd.DataFrame:
    """Return columns of objects among others, of which only the last rows tell the types."""
    numbers = range(rows)
    return pd.DataFrame(
        {
            "last": pd.Series([None] * (rows - 1) + ["text"], dtype=object),
            "number": pd.Series([1] * (rows - 1) + [0.5], dtype=object),
            "text": [f"text {number}" for number in numbers],
            "nested": [{"a": [number]} if number < rows - 1 else {"b": b"x"} for number in numbers],
            "kind": pd.Categorical(["a", None] * (rows // 2)),
        },
        index=pd.Index([f"key {number}" for number in numbers], name="key"),
    )


@pytest.mark.parametrize("rows", [0, 2, 1_000])
def test_a_frame_has_the_types_and_values_of_its_own_stream(rows: int) -> None:
    made = frame(1_000).iloc[-rows:] if rows else frame(2).iloc[:0]
    assert read(ArrowSource(made, id="key")) == read(ArrowSource(pa.Table.from_pandas(made), id="key"))


def test_objects_of_a_frame_are_converted_a_few_at_a_time() -> None:
    made = pd.DataFrame({"image": [bytes(20_000)] * 2000})
    arrow = pa.total_allocated_bytes()
    with ArrowSource(made).rows() as rows:
        assert max(pa.total_allocated_bytes() for _ in rows) - arrow < 25_000_000


# -- what is refused --------------------------------------------------------------------------------------------------


def fails_later() -> pa.RecordBatchReader:
    def batches() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"id": [1]})
        raise OSError("the disk is gone")

    return pa.RecordBatchReader.from_batches(pa.schema({"id": pa.int64()}), batches())


def fails_in_sql() -> object:
    return duckdb.sql("select case when i < 150000 then i else error('no such row') end as id from range(300000) t(i)")


def without_features(change_at: int) -> datasets.IterableDataset:
    rows = [{"id": n} if n < change_at else {"id": n, "late": n} for n in range(600)]
    return datasets.IterableDataset.from_generator(lambda: iter(rows))


def fails_in_a_generator() -> datasets.IterableDataset:
    def rows() -> Iterator[dict[str, int]]:
        yield from ({"id": n} for n in range(300))
        raise RuntimeError("the connection is gone")

    return datasets.IterableDataset.from_generator(rows)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: [{"id": 1}], "a list has no Arrow stream: use IterableSource"),
        (
            lambda: datasets.DatasetDict(train=datasets.Dataset.from_dict({"id": [1]})),
            r"choose one, as data\['train'\]",
        ),
        (lambda: pa.table({"nr": [1]}), "the Table has no column 'id' for the id: choose one of nr"),
        (lambda: pa.table([[1], [2]], names=["id", "id"]), "the Table names the column 'id' twice"),
        (lambda: pd.Series(["a"]), r"a Series is one column: give a table, as `series.to_frame\(\)` makes it"),
        (lambda: pl.Series(["a"]), r"a Series is one column: give a table, as `series.to_frame\(\)` makes it"),
        (
            lambda: pd.DataFrame({"id": pd.period_range("2024-01", periods=2, freq="M")}),
            "column 'id' has periods, which",
        ),
        (
            lambda: pd.DataFrame({"id": ["a", 1, [2]]}),
            r"column 'id' of the DataFrame cannot be read as rows .*to_dict\('records'\)",
        ),
        (
            lambda: pd.DataFrame({"id": ["a"] * 300 + [1]}),
            "column 'id' of the DataFrame cannot be read as rows .*Expected bytes",
        ),
        (lambda: pd.DataFrame([[1, 2]], columns=["id", "id"]), "the DataFrame names the column 'id' twice"),
        (lambda: pl.DataFrame({"id": [2**100]}, schema={"id": pl.Int128}), "the DataFrame cannot be read as rows"),
        (lambda: pl.DataFrame({"id": pl.Series([object()], dtype=pl.Object)}), "column 'id' .* holds Python objects"),
        (lambda: pl.LazyFrame({"id": [1]}).select("nr"), "the LazyFrame cannot be read as rows .*nr"),
        (lambda: datasets.Dataset.from_dict({"id": [1]}).with_transform(dict), "use `map` in its place"),
        (lambda: without_features(3), "the IterableDataset has rows with different columns or types: declare"),
        (lambda: without_features(256), "the IterableDataset has rows with different columns or types: declare"),
        (fails_in_a_generator, r"cannot be read to its end \(RuntimeError: the connection is gone\): correct"),
        (fails_later, "the RecordBatchReader cannot be read to its end .*the disk is gone"),
        (
            lambda: duckdb.sql("select 1 as id, ['0101'::BIT] as x"),
            "column 'x' has DuckDB's type BIT, .*cast it to VARCHAR",
        ),
        (lambda: duckdb.sql("select 1 as id, TIMETZ '01:02:03+02' as x"), "'x' has DuckDB's type TIME WITH TIME ZONE"),
        (fails_in_sql, "the DuckDBPyRelation cannot be read to its end .*no such row"),
    ],
)
def test_data_that_cannot_be_rows_is_refused_in_one_line(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(UsageError, match=says) as refusal:
        read(ArrowSource(make(), id="id"))
    assert "\n" not in str(refusal.value)


def test_a_stream_that_failed_is_not_taken_for_the_rows_that_are_left_of_it() -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"id": ["x" * 100_000]})
        yield pa.record_batch({"id": ["left"]})

    source = ArrowSource(pa.RecordBatchReader.from_batches(pa.schema({"id": pa.string()}), batches()), id="id")
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, most))
    try:
        with pytest.raises(UsageError, match="free some space there, or set TMPDIR") as refusal:
            read(source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert "\n" not in str(refusal.value)
    with pytest.raises(UsageError, match="RecordBatchReader can be read only once, and reading it has failed: make it"):
        read(source)


# -- memory and imports -----------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_stream() -> None:
    def peak(batches: int) -> int:
        batch = pa.record_batch({"id": pa.array(range(1000)), "text": ["x" * 1000] * 1000})
        source = ArrowSource(pa.RecordBatchReader.from_batches(batch.schema, (batch for _ in range(batches))))
        tracemalloc.start()
        arrow = pa.total_allocated_bytes()
        with source.rows() as rows:
            assert sum(1 for _ in rows) == batches * 1000
        arrow = pa.total_allocated_bytes() - arrow
        _, python = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return int(arrow) + python

    assert peak(40) < peak(4) + 2_000_000


def test_big_values_are_read_a_few_at_a_time() -> None:
    def peak(rows: int) -> int:
        table = pa.table({"image": pa.array([b"x" * 2_000_000] * rows)})
        tracemalloc.start()
        with ArrowSource(table).rows() as found:
            assert sum(1 for _ in found) == rows
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(60) < peak(12) * 1.5


@pytest.mark.parametrize("library", ["pandas", "polars", "duckdb", "datasets"])
def test_a_library_is_not_imported_unless_the_data_is_its_own(library: str) -> None:
    program = (
        "import sys, pyarrow as pa; from orchestrator.sources import ArrowSource; "
        "opened = ArrowSource(pa.table({'id': pa.nulls(1)}).to_reader()).rows(); print(list(opened.__enter__())); "
        f"sys.exit({library!r} in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
