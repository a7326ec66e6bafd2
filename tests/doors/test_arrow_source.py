"""Tables and streams of other libraries: the guarantees of every source, and the same values whoever held the rows."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import datasets
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.domain.errors import UsageError
from orchestrator.sources import ArrowSource, IterableSource, ParquetSource
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


# -- what is refused --------------------------------------------------------------------------------------------------


def fails_later() -> pa.RecordBatchReader:
    def batches() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"id": [1]})
        raise OSError("the disk is gone")

    return pa.RecordBatchReader.from_batches(pa.schema({"id": pa.int64()}), batches())


def fails_in_sql() -> object:
    return duckdb.sql("select case when i < 150000 then i else error('no such row') end as id from range(300000) t(i)")


def no_features() -> datasets.IterableDataset:
    return datasets.IterableDataset.from_generator(lambda: ({"id": n if n < 3 else str(n)} for n in range(6)))


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
        (lambda: pd.Series(["a"]), "the Series cannot be read as rows"),
        (lambda: pd.DataFrame({"id": ["a", 1, [2]]}), r"the DataFrame cannot be read as rows .*to_dict\('records'\)"),
        (lambda: pl.DataFrame({"id": [2**100]}, schema={"id": pl.Int128}), "the DataFrame cannot be read as rows"),
        (lambda: pl.DataFrame({"id": pl.Series([object()], dtype=pl.Object)}), "column 'id' .* holds Python objects"),
        (lambda: pl.LazyFrame({"id": [1]}).select("nr"), "the LazyFrame cannot be read as rows .*nr"),
        (lambda: datasets.Dataset.from_dict({"id": [1]}).with_transform(dict), "use `map` in its place"),
        (no_features, "the IterableDataset cannot be read as rows .*Schema at index 3 was different"),
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


# -- the same values whoever held the rows ----------------------------------------------------------------------------

MOMENT = datetime(2020, 1, 2, 3, 4, 5, 6)  # noqa: DTZ001 - columns without a time zone
IN_UTC = MOMENT.replace(tzinfo=UTC)
ISO = "2020-01-02T03:04:05.000006"
BERLIN = "Europe/Berlin"
A_UUID = "6067c50e-6854-4767-9e42-6e4166192af9"

PANDAS: dict[str, tuple[Callable[[], object], list[object]]] = {
    "int": (lambda: pd.Series([1, 2]), [1, 2]),
    "int with a gap": (lambda: pd.Series([1, None]), [1.0, None]),
    "Int64": (lambda: pd.Series([1, None], dtype="Int64"), [1, None]),
    "uint64": (lambda: pd.Series([2**64 - 1], dtype="uint64"), [2**64 - 1]),
    "str": (lambda: pd.Series(["a", None]), ["a", None]),
    "object": (lambda: pd.Series(["a", None], dtype=object), ["a", None]),
    "category": (lambda: pd.Series(["a", None], dtype="category"), ["a", None]),
    "boolean": (lambda: pd.Series([True, None], dtype="boolean"), [True, None]),
    "datetime64[ns]": (lambda: pd.Series([MOMENT]).astype("datetime64[ns]"), [ISO]),
    "datetime64[s]": (lambda: pd.Series([MOMENT]).astype("datetime64[s]"), [ISO[:19]]),
    "zone": (lambda: pd.Series([MOMENT]).dt.tz_localize(BERLIN), [f"{ISO}+01:00"]),
    "UTC": (lambda: pd.Series([IN_UTC]), [f"{ISO}+00:00"]),
    "timedelta": (lambda: pd.Series([timedelta(days=1, microseconds=5)]), [86400.000005]),
    "float16": (lambda: pd.Series([0.5, None], dtype="float16"), [0.5, None]),
    "float32": (lambda: pd.Series([0.1], dtype="float32"), [0.10000000149011612]),
    "decimal": (lambda: pd.Series([Decimal("1.50")]), ["1.50"]),
    "date": (lambda: pd.Series([MOMENT.date()]), ["2020-01-02"]),
    "time": (lambda: pd.Series([MOMENT.time()]), ["03:04:05.000006"]),
    "bytes": (lambda: pd.Series([b"\xaa"]), ["qg=="]),
    "list": (lambda: pd.Series([[1, 2], None]), [[1, 2], None]),
    "array": (lambda: pd.Series([np.array([1.5])]), [[1.5]]),
    "dict": (lambda: pd.Series([{"a": 1}, {"b": 2}]), [{"a": 1, "b": None}, {"a": None, "b": 2}]),
    "UUID": (lambda: pd.Series([UUID(A_UUID)]), [A_UUID]),
    "interval": (lambda: pd.Series(pd.interval_range(0, 1)), [{"left": 0, "right": 1}]),
    "Arrow's map": (
        lambda: pd.Series([[("k", 1)]], dtype=pd.ArrowDtype(pa.map_(pa.string(), pa.int64()))),
        [[["k", 1]]],
    ),
}

POLARS: dict[str, tuple[Callable[[], pl.Series], list[object]]] = {
    "categorical": (lambda: pl.Series(["a", None], dtype=pl.Categorical), ["a", None]),
    "enum": (lambda: pl.Series(["a", None], dtype=pl.Enum(["a"])), ["a", None]),
    "decimal": (lambda: pl.Series([Decimal("1.50")]), ["1.50"]),
    "ms": (lambda: pl.Series([MOMENT], dtype=pl.Datetime("ms")), [ISO[:19]]),
    "ns in UTC": (lambda: pl.Series([MOMENT], dtype=pl.Datetime("ns", "UTC")), [f"{ISO}+00:00"]),
    "zone": (lambda: pl.Series([IN_UTC], dtype=pl.Datetime("us", BERLIN)), ["2020-01-02T04:04:05.000006+01:00"]),
    "duration": (lambda: pl.Series([timedelta(seconds=1.5)]), [1.5]),
    "time": (lambda: pl.Series([MOMENT.time()]), ["03:04:05.000006"]),
    "date": (lambda: pl.Series([MOMENT.date()]), ["2020-01-02"]),
    "binary": (lambda: pl.Series([b"\xaa"]), ["qg=="]),
    "text": (lambda: pl.Series(["longer than twelve bytes", ""]), ["longer than twelve bytes", ""]),
    "list": (lambda: pl.Series([[1, 2], None]), [[1, 2], None]),
    "array": (lambda: pl.Series([[0.5, 2.0]], dtype=pl.Array(pl.Float32, 2)), [[0.5, 2.0]]),
    "struct": (lambda: pl.Series([{"a": 1, "b": [MOMENT]}]), [{"a": 1, "b": [ISO]}]),
    "null": (lambda: pl.Series([None]), [None]),
    "uint64": (lambda: pl.Series([2**64 - 1], dtype=pl.UInt64), [2**64 - 1]),
    "int8": (lambda: pl.Series([-1], dtype=pl.Int8), [-1]),
    "float16": (lambda: pl.Series([0.5], dtype=pl.Float16), [0.5]),
    "float32": (lambda: pl.Series([0.1], dtype=pl.Float32), [0.10000000149011612]),
    "NaN": (lambda: pl.Series([float("nan")]), [None]),
    "bool": (lambda: pl.Series([True, None]), [True, None]),
}

DUCKDB: dict[str, object] = {
    """'{"a":[1]}'::JSON""": {"a": [1]},
    """[NULL, '{"a":1}'::JSON]""": [None, {"a": 1}],
    "{'a': '[1]'::JSON, 'b': MAP {'k': '2'::JSON}, 'c': ['3'::JSON]::JSON[1]}": {"a": [1], "b": [["k", 2]], "c": [3]},
    "1.50::DECIMAL(38, 2)": "1.50",
    "TIMESTAMP_S '2020-01-02 03:04:05'": ISO[:19],
    "TIMESTAMP_MS '2020-01-02 03:04:05.123'": f"{ISO[:19]}.123000",
    "TIMESTAMP_NS '2020-01-02 03:04:05.000006789'": ISO,
    "TIMESTAMP '2020-01-02 03:04:05.000006'": ISO,
    "TIMESTAMPTZ '2020-01-02 03:04:05.000006+00'": f"{ISO}+00:00",
    "{'a': 1, 'b': [TIMESTAMPTZ '2020-01-02 03:04:05.000006+00']}": {"a": 1, "b": [f"{ISO}+00:00"]},
    "TIMESTAMP 'infinity'": None,
    "TIME '01:02:03.5'": "01:02:03.500000",
    "DATE '2020-01-02'": "2020-01-02",
    "INTERVAL '14 months 3 days 1.5 seconds'": "P14M3DT1.5S",
    f"'{A_UUID}'::UUID": A_UUID,
    "'\\xAA'::BLOB": "qg==",
    "'a'::ENUM('a', 'b')": "a",
    "[1, NULL]": [1, None],
    "[0.5, 2]::FLOAT[2]": [0.5, 2.0],
    "MAP {'k': 1}": [["k", 1]],
    "0.1::FLOAT": 0.10000000149011612,
    "18446744073709551615::UBIGINT": 2**64 - 1,
    "1::TINYINT": 1,
    "NULL": None,
}

Feature = datasets.features
DATASETS: dict[str, tuple[object, list[object], list[object]]] = {
    "ClassLabel": (Feature.ClassLabel(names=["a", "b"]), ["b", 0], [1, 0]),
    "List": (Feature.List(Feature.Value("int64")), [[1, 2]], [[1, 2]]),
    "LargeList": (Feature.LargeList(Feature.Value("int64")), [[1, 2]], [[1, 2]]),
    "fixed": (Feature.List(Feature.Value("float32"), length=2), [[0.5, 2.0]], [[0.5, 2.0]]),
    "Array2D": (Feature.Array2D((2, 2), "int64"), [[[1, 2], [3, 4]]], [[[1, 2], [3, 4]]]),
    "Translation": (Feature.Translation(["de", "en"]), [{"de": "x", "en": "y"}], [{"de": "x", "en": "y"}]),
    "Json": (Feature.Json(), [{"a": 1}, [2], None], [{"a": 1}, [2], None]),
    "struct": ({"a": Feature.Value("int32")}, [{"a": 1}], [{"a": 1}]),
    "Image(decode=False)": (
        Feature.Image(decode=False),
        [{"bytes": b"\x89PNG", "path": "a.png"}],
        [{"bytes": "iVBORw==", "path": "a.png"}],
    ),
    "Image": (
        Feature.Image(),
        [{"bytes": b"\x89PNG", "path": "a.png"}],
        [{"bytes": "iVBORw==", "path": "a.png"}],
    ),
    **{
        kind: (Feature.Value(kind), [given], [expected])
        for kind, given, expected in (
            ("timestamp[us]", MOMENT, ISO),
            (f"timestamp[ns, tz={BERLIN}]", IN_UTC, "2020-01-02T04:04:05.000006+01:00"),
            ("decimal128(10, 2)", Decimal("1.50"), "1.50"),
            ("binary", b"\xaa", "qg=="),
            ("float16", 0.5, 0.5),
            ("large_string", "a", "a"),
            ("string_view", "a", "a"),
            ("duration[us]", timedelta(seconds=1.5), 1.5),
            ("time64[us]", MOMENT.time(), "03:04:05.000006"),
            ("date32", MOMENT.date(), "2020-01-02"),
            ("null", None, None),
        )
    },
}


def assert_same(data: Any, file: Path, expected: Sequence[object]) -> None:
    """The rows in memory have these values, and are those of the file in every respect."""
    rows = read(ArrowSource(data))
    assert [row.columns for row in rows] == [{"x": value} for value in expected]
    assert rows == read(ParquetSource(file))


@pytest.mark.parametrize("kind", PANDAS)
def test_pandas_types_are_read_value_by_value(kind: str, tmp_path: Path) -> None:
    make, expected = PANDAS[kind]
    frame = pd.DataFrame({"x": make()})
    frame.to_parquet(tmp_path / "in.parquet")
    assert_same(frame, tmp_path / "in.parquet", expected)


@pytest.mark.parametrize("kind", POLARS)
def test_polars_types_are_read_value_by_value(kind: str, tmp_path: Path) -> None:
    make, expected = POLARS[kind]
    frame = pl.DataFrame({"x": make()})
    frame.write_parquet(tmp_path / "in.parquet")
    assert_same(frame, tmp_path / "in.parquet", expected)
    assert_same(frame.lazy(), tmp_path / "in.parquet", expected)


@pytest.mark.parametrize("value", DUCKDB)
def test_duckdb_types_are_read_value_by_value_in_any_time_zone(value: str, tmp_path: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute(f"set TimeZone = '{BERLIN}'")
        relation = connection.sql(f"select {value} as x")
        relation.write_parquet(str(tmp_path / "in.parquet"))
        assert_same(relation, tmp_path / "in.parquet", [DUCKDB[value]])


@pytest.mark.parametrize("kind", DATASETS)
def test_datasets_types_are_read_value_by_value(kind: str, tmp_path: Path) -> None:
    feature, given, expected = DATASETS[kind]
    dataset = datasets.Dataset.from_dict({"x": given}, datasets.Features({"x": feature}))
    dataset.to_parquet(tmp_path / "in.parquet")
    assert_same(dataset, tmp_path / "in.parquet", expected)
    assert_same(dataset.to_iterable_dataset(), tmp_path / "in.parquet", expected)


def test_a_dataset_yields_the_rows_that_are_selected_and_mapped() -> None:
    dataset = datasets.Dataset.from_dict({"id": list(range(600))})
    assert [row.id for row in read(ArrowSource(dataset.select([599, 1]), id="id"))] == ["599", "1"]
    mapped = dataset.to_iterable_dataset().map(lambda row: {"twice": row["id"] * 2}).filter(lambda row: row["id"] > 597)
    assert [row.columns for row in read(ArrowSource(mapped))] == [
        {"id": 598, "twice": 1196},
        {"id": 599, "twice": 1198},
    ]


def test_columns_that_are_left_out_or_become_several_do_not_shift_json() -> None:
    with duckdb.connect() as connection:
        relation = connection.sql("""select 'x' as __index_level_0__, union_value(n := 2) as u, '{"a":1}'::JSON as j""")
        (row,) = read(ArrowSource(relation))
    assert (row.columns["u"], row.columns["j"]) == (2, {"a": 1})


def held_by_each_library(table: pa.Table, folder: Path) -> Iterator[ports.Source]:
    pq.write_table(table, folder / "in.parquet")
    connection = duckdb.connect()
    connection.register("held", table)
    yield ParquetSource(folder / "in.parquet")
    yield IterableSource(table)
    for data in (
        table,
        table.to_reader(max_chunksize=1),
        table.to_pandas(types_mapper=pd.ArrowDtype),
        pl.from_arrow(table),
        pl.from_arrow(table).lazy(),  # type: ignore[union-attr]  # a table is no Series
        connection.table("held"),
        datasets.Dataset(table),
        datasets.Dataset(table).to_iterable_dataset(),
    ):
        yield ArrowSource(data)


def test_the_same_rows_are_the_same_items_whichever_library_holds_them(tmp_path: Path) -> None:
    """The identity of an item is a hash of its request, which is made from these values, or of all of them."""
    table = pa.table(
        {
            "id": pa.array([2**53 + 1, None], pa.int64()),
            "text": pa.array(["a", None], pa.string()),
            "score": pa.array([0.1, None], pa.float64()),
            "narrow": pa.array([0.1, None], pa.float32()),
            "at": pa.array([MOMENT, None], pa.timestamp("us")),
            "utc": pa.array([IN_UTC, None], pa.timestamp("us", "UTC")),
            "day": pa.array([MOMENT.date(), None], pa.date32()),
            "tags": pa.array([["x", None], None], pa.list_(pa.string())),
            "record": pa.array([{"a": 1, "b": [True]}, {"a": None, "b": None}]),
            "price": pa.array([Decimal("1.50"), None], pa.decimal128(10, 2)),
            "raw": pa.array([b"\xaa", None], pa.binary()),
        }
    )
    first, *others = (read(source) for source in held_by_each_library(table, tmp_path))
    assert first[0].columns["id"] == 2**53 + 1
    assert first[0].float32 == {"narrow"}
    for other in others:
        assert other == first
