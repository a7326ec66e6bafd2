"""What our sinks write, other tools read: the same values, and the types that were found or declared."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import datasets
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.json as pj
import pyarrow.parquet as pq
import pytest

from orchestrator.sinks import CsvSink, JsonlSink, ParquetSink
from orchestrator.sources import CsvSource, JsonlSource, ParquetSource
from orchestrator.testing.sinks import deliver
from orchestrator.testing.sources import read

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Rows = list[dict[str, Any]]

OUTPUTS: list[dict[str, object]] = [
    {
        "label": 'é, "q"\nzwei',
        "score": 1,
        "whole": 2**53 + 1,
        "sure": True,
        "tags": ["x", None],
        "vector": [0.5, 1.0],
        "parts": [{"page": 1, "boxes": [[0, 0.25]]}],
        "nothing": None,
    },
    {
        "label": "",
        "score": 0.5,
        "whole": -1,
        "sure": False,
        "tags": [],
        "vector": [],
        "parts": [],
        "nothing": None,
    },
]
RECORDS = [{"id": number, "text": f"text {number}", "output": output} for number, output in enumerate(OUTPUTS)]
FLAT = [
    {"id": number, "text": 'a,\n"b"', "output": {"label": "é", "score": 0.5, "whole": 2**53 + 1, "nothing": None}}
    for number in range(2)
]
FLAT_ROWS = [{"id": row["id"], "text": row["text"], **row["output"]} for row in FLAT]  # type: ignore[dict-item]  # an object

DECLARED = pa.schema(
    [
        ("at", pa.timestamp("us", "UTC")),
        ("local", pa.timestamp("ms")),
        ("day", pa.date32()),
        ("price", pa.decimal128(10, 2)),
        ("raw", pa.binary()),
        ("kind", pa.dictionary(pa.int32(), pa.string())),
        ("narrow", pa.float32()),
        ("half", pa.float16()),
        ("small", pa.int8()),
        ("wide", pa.uint64()),
        ("vector", pa.list_(pa.float32(), 2)),
        ("large", pa.large_list(pa.large_string())),
        ("free", pa.json_()),
        ("missing", pa.int64()),
    ]
)
GIVEN: dict[str, Any] = {
    "at": "2020-01-02T03:04:05.000006Z",
    "local": "2020-01-02T03:04:05.006",
    "day": "2020-01-02",
    "price": "1.50",
    "raw": "qg==",
    "kind": "a",
    "narrow": 0.5,
    "half": 0.25,
    "small": -128,
    "wide": 2**64 - 1,
    "vector": [0.5, 1],
    "large": ["a"],
    "free": {"any": [1, "thing"]},
}
WRITTEN: dict[str, object] = {
    "at": datetime(2020, 1, 2, 3, 4, 5, 6, UTC),
    "local": datetime(2020, 1, 2, 3, 4, 5, 6000),  # noqa: DTZ001 - a column without a time zone
    "day": date(2020, 1, 2),
    "price": Decimal("1.50"),
    "raw": b"\xaa",
    "kind": "a",
    "narrow": 0.5,
    "half": 0.25,
    "small": -128,
    "wide": 2**64 - 1,
    "vector": [0.5, 1.0],
    "large": ["a"],
    "free": '{"any":[1,"thing"]}',
    "missing": None,
}


def of_duckdb(path: Path) -> Rows:
    with duckdb.connect() as connection:
        found = connection.sql(f"from '{path}'")
        return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def of_datasets(kind: str) -> Callable[[Path], Rows]:
    def read_all(path: Path) -> Rows:
        made = datasets.Dataset.from_parquet if kind == "parquet" else getattr(datasets.Dataset, f"from_{kind}")
        rows: Rows = made(str(path), cache_dir=str(path.parent / "cache")).to_list()
        return rows

    return read_all


PARQUET: Mapping[str, Callable[[Path], Rows]] = {
    "pyarrow": lambda path: pq.read_table(path).to_pylist(),
    "pandas": lambda path: pd.read_parquet(path, dtype_backend="pyarrow").to_dict("records"),
    "polars": lambda path: pl.read_parquet(path).to_dicts(),
    "DuckDB": of_duckdb,
    "datasets": of_datasets("parquet"),
    "ParquetSource": lambda path: [dict(row.columns) for row in read(ParquetSource(path))],
}
JSON: Mapping[str, Callable[[Path], Rows]] = {
    "pyarrow": lambda path: pj.read_json(path).to_pylist(),
    "pandas": lambda path: pd.read_json(path, lines=True).to_dict("records"),
    "polars": lambda path: pl.read_ndjson(path).to_dicts(),
    "DuckDB": of_duckdb,
    "datasets": of_datasets("json"),
    "JsonlSource": lambda path: [dict(row.columns) for row in read(JsonlSource(path))],
}
CSV: Mapping[str, Callable[[Path], Rows]] = {
    "pyarrow": lambda path: pc.read_csv(path, parse_options=pc.ParseOptions(newlines_in_values=True)).to_pylist(),
    "pandas": lambda path: pd.read_csv(path, dtype_backend="pyarrow").to_dict("records"),
    "polars": lambda path: pl.read_csv(path).to_dicts(),
    "DuckDB": of_duckdb,
    "datasets": of_datasets("csv"),
}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    datasets.disable_progress_bars()


@pytest.mark.parametrize("tool", PARQUET)
def test_parquet_with_types_that_were_found_is_read(tool: str, tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    deliver(ParquetSink(path, keep=["text"]), RECORDS[:1], RECORDS[1:])
    assert PARQUET[tool](path) == RECORDS


@pytest.mark.parametrize("tool", PARQUET)
def test_parquet_with_declared_types_is_read(tool: str, tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    deliver(ParquetSink(path, schema=DECLARED), [{"id": "a", "output": GIVEN}], [{"id": "b", "output": None}])
    as_json = GIVEN | {"at": f"{GIVEN['at'][:-1]}+00:00", "local": f"{GIVEN['local']}000"}
    as_json |= {"free": WRITTEN["free"], "missing": None}
    expected = as_json if tool == "ParquetSource" else WRITTEN
    assert PARQUET[tool](path) == [{"id": "a", "output": expected}, {"id": "b", "output": None}]


@pytest.mark.parametrize("tool", JSON)
def test_json_lines_are_read(tool: str, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    deliver(JsonlSink(path, keep=["text"]), RECORDS)
    assert JSON[tool](path) == RECORDS


@pytest.mark.parametrize("tool", CSV)
def test_csv_is_read(tool: str, tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    deliver(CsvSink(path, keep=["text"]), FLAT)
    rows = [{name: None if pd.isna(value) else value for name, value in row.items()} for row in CSV[tool](path)]
    assert rows == FLAT_ROWS
    assert [row.unreadable for row in read(CsvSource(path))] == [None, None]


def plain(kind: pa.DataType) -> pa.DataType:
    """Return the type without the forms that a tool may choose freely: views, large offsets, dictionaries."""
    match kind:
        case pa.DictionaryType():
            return plain(kind.value_type)
        case pa.FixedSizeListType():
            return pa.list_(pa.field("item", plain(kind.value_type)), kind.list_size)
        case pa.ListType() | pa.LargeListType() | pa.ListViewType():
            return pa.list_(pa.field("item", plain(kind.value_type)))
        case pa.TimestampType() if kind.tz:
            return pa.timestamp(kind.unit, "UTC")
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or isinstance(kind, pa.JsonType):
        return pa.string()
    return pa.binary() if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind) else kind


def as_arrow(tool: str, path: Path) -> pa.Schema:
    """Return the schema of what the tool has read, as it hands it on."""
    held: Any
    match tool:
        case "pandas":
            held = pd.read_parquet(path, dtype_backend="pyarrow")
        case "polars":
            held = pl.read_parquet(path)
        case "DuckDB":
            with duckdb.connect() as connection:
                return connection.sql(f"from '{path}'").to_arrow_table().schema
        case "datasets":
            made = datasets.Dataset.from_parquet(str(path), cache_dir=str(path.parent / "cache"))
            return made.features.arrow_schema
        case _:
            return pq.read_schema(path)
    return pa.RecordBatchReader.from_stream(held).schema


KNOWN = {  # DuckDB has no 16-bit floats, and reads neither fixed sizes nor milliseconds from Parquet
    ("DuckDB", "half"): pa.float32(),
    ("DuckDB", "local"): pa.timestamp("us"),
    ("DuckDB", "vector"): pa.list_(pa.float32()),
}


@pytest.mark.parametrize("tool", [tool for tool in PARQUET if not tool.endswith("Source")])
def test_declared_types_are_kept_by_every_tool_that_has_them(tool: str, tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    deliver(ParquetSink(path, schema=DECLARED), [{"id": "a", "output": GIVEN}])
    found = {field.name: plain(field.type) for field in as_arrow(tool, path).field("output").type}
    assert found == {field.name: KNOWN.get((tool, field.name), plain(field.type)) for field in DECLARED}
