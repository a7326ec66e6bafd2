"""Files as common tools write them are read value by value, and no unused value loses a row."""

from __future__ import annotations

import bz2
import gzip
import json
import struct
import subprocess
import sys
from base64 import b64encode
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote
from uuid import UUID

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.errors import UsageError
from orchestrator.domain.item import Row
from orchestrator.sources import CsvSource, IterableSource, JsonlSource, ParquetSource, TextSource, written_json
from orchestrator.sources.json_columns import json_decoder
from orchestrator.sources.partitions import partitions_of
from orchestrator.testing.sources import read

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.sources.reading import FileSource


# ------------------------------------------------------------------------------------------------------------ JSON


def test_numbers_that_json_lacks_become_null_anywhere(tmp_path: Path) -> None:
    rows = [{"id": "a", "n": float("nan"), "deep": [{"x": -float("inf")}, float("inf")], "text": "NaN, Infinity"}]
    (tmp_path / "in.jsonl").write_text(json.dumps(rows[0]) + "\n")  # as `json.dumps` and jq 1.8 write it
    (tmp_path / "in.json").write_text(json.dumps(rows))
    expected = {"id": "a", "n": None, "deep": [{"x": None}, None], "text": "NaN, Infinity"}
    assert [row.columns for row in read(JsonlSource(tmp_path / "in.jsonl", id="id"))] == [expected]
    assert [row.columns for row in read(JsonlSource(tmp_path / "in.json", id="id"))] == [expected]


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        (rb'"cut \ud83d"', "cut \ufffd"),
        (rb'"\udc00 \ud83d\ude00 \ud83d"', "\ufffd \U0001f600 \ufffd"),
        (b'"\xed\xa0\xbd"', "\ufffd"),
        (b'"\xed\xa0\xbd\xed\xb8\x80"', "\U0001f600"),  # as in Java's modified UTF-8
        (rb'{"\ud800": ["\ud800"], "big": 36893488147419103232}', {"\ufffd": ["\ufffd"], "big": 2**65}),
        (rb'"an escaped \\ud83d stays"', r"an escaped \ud83d stays"),
    ],
)
def test_an_unpaired_surrogate_becomes_one_replacement_character(written: bytes, read_as: object) -> None:
    assert written_json.loads(written) == read_as


@pytest.mark.parametrize("text", [b"nan", b"[1e999, NaN]", b"{'a': NaN}", b'"\xff"', b"[NaN,]", b"[" * 5000 + b"NaN"])
def test_other_json_errors_stay_errors(text: bytes) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        written_json.loads(text)


def test_an_unpaired_surrogate_in_a_python_row_is_replaced() -> None:
    (row,) = read(IterableSource([{"id": "a", "text": "cut \ud83d", "deep": [{"x": "\ud83d"}]}], id="id"))
    assert row.columns == {"id": "a", "text": "cut \ufffd", "deep": [{"x": "\ufffd"}]}


# ---------------------------------------------------------------------------------------------- joined by `cat a b`


def test_a_byte_order_mark_between_joined_files_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "both"
    path.write_bytes(b'\xef\xbb\xbf{"id":1}\r\n\xef\xbb\xbf{"id":2}\r\n\xef\xbb\xbf\n')
    assert [row.columns for row in read(JsonlSource(path))] == [{"id": 1}, {"id": 2}]
    path.write_bytes("\ufeffone\n\ufefftwo\ufeff\n".encode())
    assert [row.columns for row in read(TextSource(path))] == [{"text": "one"}, {"text": "two\ufeff"}]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16-le", "utf-16"])
def test_the_second_header_of_joined_csv_files_with_marks_is_not_a_row(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "both.csv"
    text = '\ufeff"id",text\r\n1,a\r\n\ufeff"id",text\r\n2,b\r\nid,text\r\n'
    path.write_bytes(text.encode("utf-8" if encoding == "utf-8-sig" else encoding))
    expected = [{"id": "1", "text": "a"}, {"id": "2", "text": "b"}, {"id": "id", "text": "text"}]
    assert [row.columns for row in read(CsvSource(path, id="id", encoding=encoding))] == expected


def test_a_mark_before_a_first_row_without_a_header_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "both.csv"
    path.write_bytes("\ufeffid,text\n1,a\n\ufeff2,b\n".encode())
    assert [row.id for row in read(CsvSource(path, id="id"))] == ["1", "2"]


# --------------------------------------------------------------------------------------------------------- Parquet


def cells(path: Path, **columns: pa.Array) -> dict[str, object]:
    """Return the first row of a file with these columns, an id and a text."""
    pq.write_table(pa.table({"id": [1] * len(next(iter(columns.values()))), **columns}), path / "in.parquet")
    first = read(ParquetSource(path / "in.parquet", id="id"))[0]
    assert (first.id, first.unreadable) == ("1", None)
    return {name: first.columns[name] for name in columns}


def test_parquet_types_as_polars_writes_them_are_read_value_by_value(tmp_path: Path) -> None:
    moment = datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    times = pa.array([[time(1, 2, 3)]], pa.large_list(pa.time64("ns")))
    assert cells(
        tmp_path,
        times=times,
        moments=pa.array([[moment]], pa.large_list(pa.timestamp("ns", "UTC"))),
        spans=pa.array([[timedelta(seconds=1.5)]], pa.large_list(pa.duration("ns"))),
        fixed=pa.array([[moment, None]], pa.list_(pa.timestamp("ns", "UTC"), 2)),
        deep=pa.array([[{"at": [time(1)]}]], pa.large_list(pa.struct({"at": pa.large_list(pa.time64("ns"))}))),
        kinds=pa.array(["a"], pa.large_string()).dictionary_encode(),
        small=pa.array([[1, 2]], pa.list_(pa.int8(), 2)),
        nothing=pa.nulls(1),
        wide=pa.array([2**64 - 1], pa.uint64()),
        price=pa.array([Decimal("1.50")], pa.decimal128(38, 2)),
    ) == {
        "times": ["01:02:03"],
        "moments": ["2020-01-02T03:04:05.000006+00:00"],
        "spans": [1.5],
        "fixed": ["2020-01-02T03:04:05.000006+00:00", None],
        "deep": [{"at": ["01:00:00"]}],
        "kinds": "a",
        "small": [1, 2],
        "nothing": None,
        "wide": 2**64 - 1,
        "price": "1.50",
    }


def test_nanoseconds_in_maps_and_dictionaries_become_microseconds(tmp_path: Path) -> None:
    ns = pa.array([1_577_934_245_000_006_999], pa.timestamp("ns"))
    listed = pa.ListArray.from_arrays(pa.array([0, 1]), ns.dictionary_encode())
    mapped = pa.MapArray.from_arrays(pa.array([0, 1]), pa.array(["a"]), ns)
    text = "2020-01-02T03:04:05.000006"
    read_back = cells(tmp_path, one=ns.dictionary_encode(), listed=listed, mapped=mapped)
    assert read_back == {"one": text, "listed": [text], "mapped": [["a", text]]}


def test_values_that_python_lacks_become_text_or_null_and_lose_neither_row_nor_file(tmp_path: Path) -> None:
    after = pa.array([253_402_300_800_000_000, 0], pa.timestamp("us"))
    days = pa.array([2_932_897, 0], pa.date32())
    bad = pa.array([b"caf\xe9", b"ok"]).view(pa.string())
    assert cells(
        tmp_path,
        after=after,
        zoned=after.view(pa.timestamp("us", "UTC")),
        nowhere=pa.array([1_577_934_245_000_000, 0], pa.timestamp("us", "Nowhere/At_all")),
        endless=pa.array([2**63 - 1, 0], pa.timestamp("us")),
        days=days,
        listed=pa.LargeListArray.from_arrays(pa.array([0, 2, 2]), days),
        mapped=pa.MapArray.from_arrays(pa.array([0, 2, 2]), pa.array(["a", "b"]), days),
        deep=pa.StructArray.from_arrays([days, bad], ["day", "text"]),
        coded=days.dictionary_encode(),
        span=pa.array([2**62, 0], pa.duration("us")),
        bad=bad,
    ) == {
        "after": "10000-01-01T00:00:00",
        "zoned": "10000-01-01T00:00:00+00:00",
        "nowhere": "2020-01-02T03:04:05+00:00",
        "endless": None,
        "days": "10000-01-01",
        "listed": ["10000-01-01", "1970-01-01"],
        "mapped": [["a", "10000-01-01"], ["b", "1970-01-01"]],
        "deep": {"day": "10000-01-01", "text": "caf\ufffd"},
        "coded": "10000-01-01",
        "span": 2**62 / 10**6,
        "bad": "caf\ufffd",
    }


def test_values_beside_one_that_python_lacks_are_unchanged(tmp_path: Path) -> None:
    days = [2_932_897, 0, None]
    stamps = pa.array([253_402_300_800_000_000, 1_000_001, None], pa.timestamp("us"))
    pq.write_table(pa.table({"day": pa.array(days, pa.date32()), "at": stamps}), tmp_path / "in.parquet")
    _, second, third = (row.columns for row in read(ParquetSource(tmp_path / "in.parquet")))
    assert (second, third) == ({"day": "1970-01-01", "at": "1970-01-01T00:00:01.000001"}, {"day": None, "at": None})


@pytest.mark.parametrize(
    ("parts", "written"),
    [((1, 2, 3500), "P1M2DT3.5S"), ((0, 0, 0), "PT0S"), ((-14, 0, 86_400_000), "P-14MT86400S"), ((0, 1, 0), "P1D")],
)
def test_duckdb_intervals_become_iso_text_at_any_depth(parts: tuple[int, int, int], written: str) -> None:
    given = b64encode(struct.pack("<iii", *parts)).decode()
    kind = pa.struct({"n": pa.int64(), "spans": pa.list_(pa.binary(12)), "by": pa.map_(pa.string(), pa.binary(12))})
    decode = json_decoder(kind, iter(["NONE", "INTERVAL", "UTF8", "INTERVAL"]))
    assert decode is not None
    value = {"n": 1, "spans": [given, None], "by": [["a", given]]}
    assert decode(value) == {"n": 1, "spans": [written, None], "by": [["a", written]]}


# ------------------------------------------------------------------------------------------------------------- ids

A_UUID = UUID("6067c50e-6854-4767-9e42-6e4166192af9")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (A_UUID, str(A_UUID)),
        (Decimal("1.50"), "1.50"),
        (np.int64(7), "7"),
        (np.uint8(7), "7"),
        (np.str_("a"), "a"),
        (1.0, "1"),
        (np.float32(3), "3"),
        (-0.0, "0"),
        (2**70, str(2**70)),
        (date(2020, 1, 2), "2020-01-02"),
        (pd.Timestamp("2020-01-02T03:04:05"), "2020-01-02T03:04:05"),
    ],
)
def test_a_value_with_a_unique_text_form_can_be_an_id_and_keeps_its_type(value: object, text: str) -> None:
    (row,) = read(IterableSource([{"nr": value}], id="nr"))
    assert (row.id, row.unreadable) == (text, None)
    assert row.given_id is (None if isinstance(value, str) else value)


@pytest.mark.parametrize(
    "value",
    [
        1.5,
        2.0**60,
        float("nan"),
        float("inf"),
        Decimal("NaN"),
        pd.NaT,
        pd.NA,
        True,
        np.True_,
        b"a",
        [1],
        1 + 0j,
        np.array([1]),
    ],
)
def test_a_value_that_cannot_be_an_id_fails_its_row_and_counts_as_a_configuration_error(value: object) -> None:
    (row,) = read(IterableSource([{"nr": value}], id="nr"))
    assert row.id is None
    assert row.idless
    assert "'nr'" in (row.unreadable or "")


# ---------------------------------------------------------------------------------------------------------- tables


def a_table() -> dict[str, list[object]]:
    return {"nr": [1, 2], "text": ["a", None], "n": [0.5, float("nan")], "day": [date(2020, 1, 2), None]}


@pytest.mark.parametrize("make", [pd.DataFrame, pa.table, lambda columns: pd.DataFrame(columns)[::1]])
def test_a_table_yields_rows_with_the_same_values_as_parquet(
    make: Callable[[dict[str, list[object]]], object],
) -> None:
    table = make(a_table())
    for origin in (table, lambda: table):
        rows = read(IterableSource(origin, id="nr"))  # type: ignore[arg-type]  # what has no type of rows is the point
        assert [row.id for row in rows] == ["1", "2"]
        assert rows[0].columns == {"nr": 1, "text": "a", "n": 0.5, "day": "2020-01-02"}
        assert rows[1].columns == {"nr": 2, "text": None, "n": None, "day": None}


def test_the_index_that_pandas_adds_to_a_slice_is_not_a_column() -> None:
    part = pd.DataFrame({"text": ["a", "b", "c"]}).iloc[[2, 0]]
    assert [row.columns for row in read(IterableSource(part))] == [{"text": "c"}, {"text": "a"}]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (pd.Series(["a"]), "the Series cannot be read as rows"),
        (pd.DataFrame({"id": ["1", "2", "3"], "mixed": ["a", 1, [2]]}), r"to_dict\('records'\)"),
        (pd.DataFrame({"text": ["a"]}), "the DataFrame has no column 'id'"),
    ],
)
def test_tables_that_cannot_be_rows_are_refused(table: object, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read(IterableSource(table, id="id"))  # type: ignore[arg-type]  # the wrong type is the point


def test_views_dictionaries_and_intervals_in_a_table_become_values() -> None:
    """As tables of polars and DuckDB hold them."""
    views = pa.array(["a", None], pa.string_view())
    coded = pa.DictionaryArray.from_arrays(pa.array([1, None]), pa.array(["x", "y"], pa.string_view()))
    spans = pa.array([pa.MonthDayNano([1, 2, 3_500_000_000]), None])
    rows = read(IterableSource(pa.table({"view": views, "coded": coded, "span": spans})))
    expected = [{"view": "a", "coded": "y", "span": "P1M2DT3.5S"}, {"view": None, "coded": None, "span": None}]
    assert [row.columns for row in rows] == expected


# ------------------------------------------------------------------------------------------- as spreadsheets save it


def test_an_excel_header_with_semicolons_or_tabs_suggests_the_delimiter(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id;text\n1;a\n")
    with pytest.raises(UsageError, match=r"no column 'id'.*; or give `delimiter=';'`"):
        read(CsvSource(tmp_path / "in.csv", id="id"))
    (tmp_path / "in.csv").write_bytes("\ufeffid\ttext\r\n1\ta\r\n".encode("utf-16-le"))  # Excel's "Unicode text"
    with pytest.raises(UsageError, match=r"no column 'id' for the id: choose one of id\ttext; .*`delimiter='\\t'`"):
        read(CsvSource(tmp_path / "in.csv", id="id", encoding="utf-16-le"))
    (row,) = read(CsvSource(tmp_path / "in.csv", id="id", encoding="utf-16-le", delimiter="\t"))
    assert row.columns == {"id": "1", "text": "a"}


def test_bytes_in_another_encoding_name_the_setting(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes("id,text\n1,café\n".encode("cp1252"))
    (row,) = read(CsvSource(tmp_path / "in.csv", id="id"))
    assert row.unreadable == "line 2 is not valid utf-8: name the file's encoding, as in `encoding='cp1252'`"
    (tmp_path / "in.csv").write_bytes("\ufeffid,text\n1,a\n".encode("utf-16-le") + b"x")
    with pytest.raises(UsageError, match=r"encoding='cp1252'"):
        read(CsvSource(tmp_path / "in.csv", id="id", encoding="utf-16"))


# ------------------------------------------------------------------------------------------------------- partitions


def test_a_partitioned_folder_of_parquet_is_read_with_its_columns(tmp_path: Path) -> None:
    given = {"text": ["a", "b", "c"], "year": [2023, 2024, None], "zip": ["01", "x y/z", "10"]}
    pd.DataFrame(given).astype({"year": "Int64"}).to_parquet(tmp_path / "[set]", partition_cols=["year", "zip"])
    (tmp_path / "[set]" / "_temporary").mkdir()
    (tmp_path / "[set]" / "_temporary" / "half.parquet").write_bytes(b"PAR1")
    rows = read(ParquetSource(tmp_path / "[set]"))
    assert sorted((dict(row.columns) for row in rows), key=str) == sorted(
        (dict(zip(given, values, strict=True)) for values in zip(*given.values(), strict=True)), key=str
    )
    assert ParquetSource(tmp_path / "[set]").reads([tmp_path / "[set]" / "year=2023" / "new.parquet"])


def test_partition_folders_are_columns_in_every_format_but_a_column_of_the_file_wins(tmp_path: Path) -> None:
    for day, text in (("1", '{"text":"a"}'), ("2", '{"text":"b","day":"own"}'), ("3", "{")):
        (tmp_path / f"day={day}").mkdir()
        (tmp_path / f"day={day}" / "in.jsonl").write_text(text)
    first, second, bad = read(JsonlSource(tmp_path / "*" / "in.jsonl"))
    assert first == Row({"day": 1, "text": "a"}, from_path=frozenset({"day"}))
    assert second == Row({"day": "own", "text": "b"})
    assert (bad.unreadable or "").startswith("in.jsonl, line 1 is not valid JSON")
    assert read(JsonlSource(tmp_path / "day=1" / "in.jsonl"))[0].columns == {"text": "a"}


@given(st.lists(st.fixed_dictionaries({"a": st.text(), "b é/": st.integers().map(str) | st.text()}), min_size=1))
def test_any_text_survives_in_the_name_of_a_folder(rows: list[dict[str, str]]) -> None:
    folders = ["/".join(f"{quote(name, '')}={quote(value, '')}" for name, value in row.items()) for row in rows]
    found = partitions_of({Path(f"/in/{folder}/{number}.csv") for number, folder in enumerate(folders)})
    by_number = {int(path.stem): values for path, values in found.items()}
    assert [{name: str(value) for name, value in by_number[number].items()} for number in range(len(rows))] == rows
    for name in ("a", "b é/"):
        assert len({type(values[name]) for values in found.values()}) == 1


def test_a_folder_of_other_files_suggests_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "in.data").write_bytes(b"")
    with pytest.raises(
        UsageError, match=r"has no file named \*\.jsonl, \*\.ndjson, \*\.json: give a pattern for its .*/\*"
    ):
        read(JsonlSource(tmp_path))
    with pytest.raises(UsageError, match=r"has no file named \*\.parquet: "):
        read(ParquetSource(tmp_path))


@pytest.mark.parametrize(
    ("kind", "suffix", "content"),
    [
        (JsonlSource, ".json", b'{"text":"a"}'),
        (JsonlSource, ".ndjson.gz", gzip.compress(b'{"text":"a"}', mtime=0)),
        (CsvSource, ".csv", b"text\na\n"),
        (CsvSource, ".CSV.zst", pa.compress(b"text\na\n", codec="zstd", asbytes=True)),
        (TextSource, ".txt.bz2", bz2.compress(b"a")),
    ],
)
def test_a_folder_stands_for_the_files_of_the_format(
    kind: Callable[[Path], FileSource], suffix: str, content: bytes, tmp_path: Path
) -> None:
    """As Spark writes it: data beside markers, checksums and what failed tasks have left."""
    for name in (f"year=2023/part-0{suffix}", f"_half=x/part-1{suffix}", f"_temporary/0/part-2{suffix}"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    for name in (
        "_SUCCESS",
        "._SUCCESS.crc",
        f"year=2023/.part-0{suffix}.crc",
        f".new{suffix}",
        "readme.md",
        f"_metadata{suffix}",
    ):
        (tmp_path / name).write_bytes(b"\0")
    source = kind(tmp_path)
    assert [row.columns for row in read(source)] == [{"_half": "x", "text": "a"}, {"year": 2023, "text": "a"}]
    new = tmp_path / f"new{suffix}"
    assert source.reads([new, tmp_path / "new.data", tmp_path.parent / f"new{suffix}"]) == [new]


def test_json_files_in_a_folder_of_json_lines_are_not_rows(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text":"a"}')
    (tmp_path / "dataset_info.json").write_text('{"splits": {}}')
    assert [row.columns for row in read(JsonlSource(tmp_path))] == [{"text": "a"}]


@pytest.mark.parametrize(
    ("log", "table"),
    [
        ("_delta_log/00000000000000000000.json", "Delta Lake"),
        (".hoodie/hoodie.properties", "Hudi"),
        ("metadata/v1.metadata.json", "Iceberg"),
    ],
)
def test_a_table_whose_files_have_deleted_rows_is_refused(log: str, table: str, tmp_path: Path) -> None:
    (tmp_path / log).parent.mkdir()
    (tmp_path / log).write_bytes(b"{}")
    with pytest.raises(UsageError, match=f"is a {table} table, whose files also have rows that were deleted"):
        read(ParquetSource(tmp_path))


# --------------------------------------------------------------------------------------------------- standard input

READS_STDIN = """
import sys
from orchestrator.domain.errors import UsageError
from orchestrator.sources import JsonlSource, ParquetSource
source = (ParquetSource if sys.argv[2] == "parquet" else JsonlSource)(sys.argv[1], id="id")
try:
    hashed = source.sha256()
    for _ in range(2):
        with source.rows() as rows:
            print(hashed == source.sha256(), [row.id for row in rows])
except UsageError as refusal:
    print(refusal)
"""


def what_it_says(path: str, kind: str = "jsonl", **given: object) -> list[str]:
    command = [sys.executable, "-c", READS_STDIN, path, kind]
    ended = subprocess.run(command, stdout=subprocess.PIPE, check=True, **given)  # type: ignore[call-overload]
    return str(ended.stdout.decode()).splitlines()


@pytest.mark.parametrize("path", ["-", "/dev/stdin", "/dev/fd/0"])
def test_piped_input_can_be_read_twice(path: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1, 2]}), tmp_path / "in.parquet")
    expected = ["True ['1', '2']"] * 2
    assert what_it_says(path, input=b'{"id":1}\n{"id":2}\n') == expected
    assert what_it_says(path, input=gzip.compress(b'{"id":1}\n{"id":2}\n', mtime=0)) == expected
    assert what_it_says(path, "parquet", input=(tmp_path / "in.parquet").read_bytes()) == expected
    with (tmp_path / "in.parquet").open("rb") as file:
        assert what_it_says(path, "parquet", stdin=file) == expected


def test_standard_input_without_a_pipe_is_refused() -> None:
    (line,) = what_it_says("-", stdin=subprocess.DEVNULL)
    assert line.startswith("nothing is piped into standard input")
