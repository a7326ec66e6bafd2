"""Files written by common tools are read value by value: the tools write them here, or they have the same format."""

from __future__ import annotations

import importlib.util
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from orchestrator.domain.errors import UsageError
from orchestrator.sources import CsvSource, JsonlSource, ParquetSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator.sources.reading import FileSource

TEXT = 'é, "q"\nzwei'
ROWS: list[dict[str, Any]] = [
    {"id": "a", "n": 2**53 + 1, "f": 0.5, "t": TEXT, "b": True, "l": [1, 2], "o": {"x": 1}},
    {"id": "b", "n": -1, "f": None, "t": None, "b": False, "l": [], "o": {"x": 2}},
]
FLAT = [{name: value for name, value in row.items() if name not in {"l", "o"}} for row in ROWS]
AS_TEXT = [
    {"id": "a", "n": str(2**53 + 1), "f": "0.5", "t": TEXT, "b": "true"},
    {"id": "b", "n": "-1", "f": "", "t": "", "b": "false"},
]


def read(source: FileSource) -> list[dict[str, object]]:
    with source.rows() as rows:
        found = list(rows)
    assert [row.unreadable for row in found] == [None] * len(found)
    return [dict(row.columns) for row in found]


# -- pandas -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pandas() -> Any:
    return pytest.importorskip("pandas", reason="a development package")


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("orient", ["records", "split", "tight", "columns", "index", "table"])
def test_pandas_json_is_read_in_every_orient_with_names(
    tmp_path: Path,
    pandas: Any,
    orient: str,
    indent: int | None,
) -> None:
    if orient == "tight":
        told = pandas.DataFrame(ROWS).astype(object).where(lambda frame: frame.notna(), None).to_dict(orient="tight")
        (tmp_path / "in").write_text(json.dumps(told, indent=indent))
    else:
        pandas.DataFrame(ROWS).to_json(tmp_path / "in", orient=orient, indent=indent)
    found = read(JsonlSource(tmp_path / "in", id="id"))
    assert [{name: value for name, value in row.items() if name != "index"} for row in found] == ROWS


def test_a_filtered_pandas_table_is_read_although_its_rows_are_not_numbered_from_zero(
    tmp_path: Path,
    pandas: Any,
) -> None:
    frame = pandas.DataFrame(ROWS)
    frame[frame["id"] == "b"].to_json(tmp_path / "in")
    assert read(JsonlSource(tmp_path / "in", id="id")) == ROWS[1:]


def test_pandas_json_lines_csv_and_parquet_are_read(tmp_path: Path, pandas: Any) -> None:
    frame = pandas.DataFrame(ROWS)
    frame.to_json(tmp_path / "in.jsonl.gz", orient="records", lines=True)
    assert read(JsonlSource(tmp_path / "in.jsonl.gz", id="id")) == ROWS
    frame.to_parquet(tmp_path / "in.parquet")
    assert read(ParquetSource(tmp_path / "in.parquet", id="id")) == ROWS
    pandas.DataFrame(FLAT).to_csv(tmp_path / "in.csv", index=False)
    assert read(CsvSource(tmp_path / "in.csv", id="id")) == [row | {"b": row["b"].title()} for row in AS_TEXT]


# -- jq, JSON.stringify -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_objects_that_span_several_lines_are_rows(tmp_path: Path, end: str) -> None:
    """As `jq .` prints them, one after the other."""
    text = (end or "\n").join(json.dumps(row, indent=2, ensure_ascii=False) for row in ROWS)
    (tmp_path / "in").write_text("\ufeff" + text.replace("\n", end or "\n") + end, encoding="utf-8", newline="")
    assert read(JsonlSource(tmp_path / "in", id="id")) == ROWS


@pytest.mark.parametrize("between", ["", " ", "\n"])
def test_objects_side_by_side_on_a_line_are_rows(tmp_path: Path, between: str) -> None:
    (tmp_path / "in").write_text(between.join(map(json.dumps, ROWS * 2)), encoding="utf-8")
    assert read(JsonlSource(tmp_path / "in")) == ROWS * 2


def test_a_json_text_sequence_is_read(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("".join(f"\x1e{json.dumps(row)}\n" for row in ROWS), encoding="utf-8")
    assert read(JsonlSource(tmp_path / "in")) == ROWS


def test_objects_that_span_several_lines_are_found_at_any_buffer_boundary(tmp_path: Path) -> None:
    rows = [{"id": str(number), "t": '}{][,"\\' * number} for number in range(500)]
    (tmp_path / "in").write_text("\n".join(json.dumps(row, indent=1) for row in rows))
    assert read(JsonlSource(tmp_path / "in", id="id")) == rows
    (tmp_path / "in").write_text(json.dumps(rows[5], indent=1)[:-3])
    with pytest.raises(UsageError, match="is not whole JSON"):
        read(JsonlSource(tmp_path / "in", id="id"))


def test_javascript_numbers_and_unpaired_surrogates_are_read(tmp_path: Path) -> None:
    (tmp_path / "in").write_text('{"id":"a","x":-0,"y":1e21,"z":1e-7,"t":"\\ud83d"}\n')
    (row,) = read(JsonlSource(tmp_path / "in", id="id"))
    assert row == {"id": "a", "x": 0, "y": 1e21, "z": 1e-7, "t": "\ufffd"}


def test_a_row_of_objects_is_not_a_table(tmp_path: Path) -> None:
    (tmp_path / "in").write_text('{"messages":{"role":"user"},"meta":{"n":1}}\n')
    assert read(JsonlSource(tmp_path / "in")) == [{"messages": {"role": "user"}, "meta": {"n": 1}}]
    lines = '{"id":{"0":"a"}}\n{"id":{"0":"b"}}\n'
    (tmp_path / "in").write_text(lines)
    assert read(JsonlSource(tmp_path / "in")) == [{"id": {"0": "a"}}, {"id": {"0": "b"}}]


# -- Excel ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [("utf-8", ""), ("utf-8", "\ufeff"), ("utf-16-le", "\ufeff"), ("utf-16-be", "\ufeff"), ("cp1252", "")],
)
@pytest.mark.parametrize("told", ["", "sep=;\r\n", '"sep=;"\r\n'])
def test_excel_csv_is_read(tmp_path: Path, encoding: str, mark: str, told: str) -> None:
    text = f'{mark}{told}id;t\r\na;"é; ""q""\nzwei"\r\nb;\r\n'
    (tmp_path / "in.csv").write_bytes(text.encode(encoding))
    given = {"encoding": "cp1252"} if encoding == "cp1252" else {}
    source = CsvSource(tmp_path / "in.csv", id="id", delimiter="," if told else ";", **given)
    assert read(source) == [{"id": "a", "t": 'é; "q"\nzwei'}, {"id": "b", "t": ""}]


def test_line_numbers_match_an_editor_after_a_delimiter_line(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("sep=;\nid;t\na;b;c\n")
    with CsvSource(tmp_path / "in.csv", id="id").rows() as rows:
        assert [row.unreadable for row in rows] == ["line 3 has 3 fields where the header has 2"]


@pytest.mark.parametrize("kind", [CsvSource, JsonlSource, ParquetSource])
def test_a_sheet_is_refused_with_the_remedy(tmp_path: Path, kind: Callable[..., FileSource]) -> None:
    (tmp_path / "in.xlsx").write_bytes(b"PK\x03\x04" + bytes(60))
    with pytest.raises(UsageError, match=r"as \.xlsx and \.docx are: save the sheet as CSV"):
        read(kind(tmp_path / "in.xlsx"))


# -- Spark ------------------------------------------------------------------------------------------------------------


def test_a_spark_folder_is_read_without_its_marker_files(tmp_path: Path) -> None:
    folder = tmp_path / "out.parquet" / "year=2024"
    folder.mkdir(parents=True)
    for number, row in enumerate(ROWS):
        part = f"part-{number:05}-1f0e6a52-c000.snappy.parquet"
        pq.write_table(pa.Table.from_pylist([row]), folder / part, compression="snappy", flavor="spark")
        (folder / f".{part}.crc").write_bytes(b"crc\0\0\0\x02\0")
    for name in ("_SUCCESS", "._SUCCESS.crc"):
        (tmp_path / "out.parquet" / name).write_bytes(b"")
    assert read(ParquetSource(tmp_path / "out.parquet", id="id")) == [{"year": 2024} | row for row in ROWS]


def test_csv_with_the_defaults_of_spark_is_read(tmp_path: Path) -> None:
    """The lines are what univocity-parsers 2.9.1 writes for these texts, with the settings that Spark 4 gives it."""
    written = {
        'he said "hi", ok': r'"he said \"hi\", ok"',
        "C:\\dir": r"C:\dir",
        'C:\\dir, "x"': r'"C:\\dir, \"x\""',
        "ends in \\": "ends in \\",
        "ends, in \\": r'"ends, in \\"',
        'q\\"q': r'"q\\\"q"',
        'two\nlines "q" \\n': '"two\nlines \\"q\\" \\\\n"',
        "": '""',
        '"': r'"\""',
        "\\\\": r"\\",
        '\\"': r'"\\\""',
        "tab\t\\t,": '"tab\t\\\\t,"',
    }
    folder = tmp_path / "out.csv"
    folder.mkdir()
    lines = [f"{number},{line}\n" for number, line in enumerate(written.values())]
    for name in ("part-00000-1f0e6a52-c000.csv", "part-00001-1f0e6a52-c000.csv"):
        (folder / name).write_text("".join(["id,text\n", *lines]), encoding="utf-8")
    found = [row["text"] for row in read(CsvSource(folder, escape="\\"))]
    assert found == [*written] * 2


PARTED: list[dict[str, Any]] = [
    {"text": "a", "n": 1, "word": "x/y é", "day": "2024-01-02"},
    {"text": "b", "n": 12, "word": "=", "day": "2024-01-03"},
    {"text": "c", "n": 12, "word": None, "day": "2024-01-03"},
]


def by_pyarrow(folder: Path, table: pa.Table) -> None:
    pads.write_dataset(table, folder, format="parquet", partitioning=["n", "word", "day"], partitioning_flavor="hive")


def by_duckdb(folder: Path, table: pa.Table) -> None:
    with importlib.import_module("duckdb").connect() as connection:
        connection.register("rows", table)
        connection.execute(f"copy rows to '{folder}' (format parquet, partition_by (n, word, day))")


def by_polars(folder: Path, table: pa.Table) -> None:
    polars = importlib.import_module("polars")
    polars.from_arrow(table).write_parquet(folder, partition_by=["n", "word", "day"], mkdir=True)


def by_pandas(folder: Path, table: pa.Table) -> None:
    table.to_pandas().to_parquet(folder, partition_cols=["n", "word", "day"])


@pytest.mark.parametrize("write", [by_pyarrow, by_duckdb, by_polars, by_pandas])
def test_a_partitioned_folder_gives_back_the_columns_by_every_writer(
    write: Callable[..., None], tmp_path: Path
) -> None:
    pytest.importorskip(write.__name__.removeprefix("by_"))
    write(tmp_path / "parts", pa.Table.from_pylist(PARTED))
    assert sorted(read(ParquetSource(tmp_path / "parts")), key=lambda row: str(row["text"])) == PARTED


# -- polars, DuckDB ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(importlib.util.find_spec("polars") is None, reason="polars is not installed")
def test_polars_files_are_read(tmp_path: Path) -> None:
    polars = importlib.import_module("polars")
    frame = polars.DataFrame(ROWS)
    for write, name, kind in (
        (frame.write_parquet, "in.parquet", ParquetSource),
        (frame.write_ndjson, "in.jsonl", JsonlSource),
        (frame.write_json, "in.json", JsonlSource),
    ):
        write(tmp_path / name)
        assert read(kind(tmp_path / name, id="id")) == ROWS
    polars.DataFrame(FLAT).write_csv(tmp_path / "in.csv")
    assert read(CsvSource(tmp_path / "in.csv", id="id")) == AS_TEXT


@pytest.mark.skipif(importlib.util.find_spec("duckdb") is None, reason="duckdb is not installed")
def test_duckdb_files_are_read(tmp_path: Path) -> None:
    duckdb = importlib.import_module("duckdb")
    rows, flat = (pa.Table.from_pylist(rows) for rows in (ROWS, FLAT))
    with duckdb.connect() as connection:
        connection.register("rows", rows)
        connection.register("flat", flat)
        for name, options, kind in (
            ("in.parquet", "", ParquetSource),
            ("in.jsonl", "(format json)", JsonlSource),
            ("in.json", "(format json, array true)", JsonlSource),
        ):
            connection.execute(f"copy rows to '{tmp_path / name}' {options}")
            assert read(kind(tmp_path / name, id="id")) == ROWS
        connection.execute(f"copy flat to '{tmp_path / 'in.csv'}'")
    assert read(CsvSource(tmp_path / "in.csv", id="id")) == AS_TEXT


# -- datasets ---------------------------------------------------------------------------------------------------------


def test_datasets_files_are_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="a development package")
    datasets.disable_progress_bars()
    dataset = datasets.Dataset.from_list(ROWS)
    dataset.to_json(tmp_path / "in.jsonl")
    dataset.to_parquet(tmp_path / "in.parquet")
    datasets.Dataset.from_list(FLAT).to_csv(tmp_path / "in.csv")
    assert read(JsonlSource(tmp_path / "in.jsonl", id="id")) == ROWS
    assert read(ParquetSource(tmp_path / "in.parquet", id="id")) == ROWS
    assert read(CsvSource(tmp_path / "in.csv", id="id")) == [row | {"b": row["b"].title()} for row in AS_TEXT]


# -- types that JSON lacks, as each tool writes them ------------------------------------------------------------------

MOMENT = datetime(2020, 1, 2, 3, 4, 5, 6)  # noqa: DTZ001 - a column without a time zone
VALUES: dict[str, Any] = {
    "whole": 2**53 + 1,
    "wide": 2**64 - 1,
    "float": 0.1,
    "nan": float("nan"),
    "text": TEXT,
    "null": None,
    "list": [1, None],
    "record": {"a": {"b": [1.5]}},
    "at": MOMENT,
    "utc": MOMENT.replace(tzinfo=UTC),
    "day": MOMENT.date(),
    "time": MOMENT.time(),
    "span": timedelta(seconds=1.5),
    "price": Decimal("1.50"),
}
SAME = {name: VALUES[name] for name in ("whole", "wide", "float", "text", "null", "list", "record")} | {"nan": None}
ISO = "2020-01-02T03:04:05.000006"
MILLISECONDS = {  # of pandas 3, by default: microseconds and the time zone are lost in the file
    "at": 1577934245000,
    "utc": 1577934245000,
    "day": 1577923200000,
    "time": "03:04:05.000006",
    "span": 1500,
    "price": "1.50",
}
IN_JSON: dict[str, dict[str, object]] = {
    "pandas": MILLISECONDS,
    "datasets": MILLISECONDS,  # which writes with pandas
    "polars": {
        "at": ISO.replace("T", " "),
        "utc": f"{ISO}+00:00",
        "day": "2020-01-02",
        "time": "03:04:05.000006",
        "span": "PT1.5S",
        "price": "1.50",
    },
    "duckdb": {
        "at": ISO.replace("T", " "),
        "utc": f"{ISO.replace('T', ' ')}+00",
        "day": "2020-01-02",
        "time": "03:04:05.000006",
        "span": "00:00:01.5",
        "price": 1.5,
    },
}


@pytest.mark.filterwarnings("ignore:The default formatting of datetime:Warning")  # will change in pandas 4
@pytest.mark.parametrize("tool", IN_JSON)
def test_types_that_json_lacks_are_read_as_each_tool_writes_them(tool: str, tmp_path: Path) -> None:
    library = pytest.importorskip(tool, reason="a development package")
    table = pa.table(
        {name: pa.array([value], pa.uint64() if name == "wide" else None) for name, value in VALUES.items()}
    )
    path = tmp_path / "in.jsonl"
    match tool:
        case "pandas":
            table.to_pandas().to_json(path, orient="records", lines=True)
        case "datasets":
            library.disable_progress_bars()
            library.Dataset(table).to_json(path)
        case "polars":
            library.from_arrow(table).write_ndjson(path)
        case "duckdb":
            with library.connect() as connection:
                connection.execute("set TimeZone = 'UTC'")
                connection.register("held", table)
                connection.execute(f"copy held to '{path}' (format json)")
    assert read(JsonlSource(path)) == [SAME | IN_JSON[tool]]
