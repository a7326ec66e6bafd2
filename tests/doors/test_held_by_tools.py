"""Every type that each library can hold is read value by value, in memory as in the Parquet file that it writes."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import datasets
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.sources import ArrowSource, IterableSource, ParquetSource
from orchestrator.testing.sources import read
from tests.doors.column_types import BERLIN, DATASETS, DUCKDB, IN_UTC, MOMENT, PANDAS, POLARS, PYARROW

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from orchestrator import ports


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


@pytest.mark.parametrize("kind", PYARROW)
def test_arrow_types_are_read_value_by_value(kind: str, tmp_path: Path) -> None:
    column, expected = PYARROW[kind]
    pq.write_table(pa.table({"x": column}), tmp_path / "in.parquet")
    assert_same(pa.table({"x": column}), tmp_path / "in.parquet", expected)


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
