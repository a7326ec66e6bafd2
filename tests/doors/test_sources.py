"""The guarantees of every source, then those of each kind."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import hashlib
import io
import os
import tracemalloc
from collections import OrderedDict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.domain.errors import NoFiles, UsageError
from orchestrator.domain.item import File, Row
from orchestrator.sources import CsvSource, FilesSource, IterableSource, JsonlSource, ParquetSource, TextSource
from orchestrator.sources.csv import CELL_LIMIT
from orchestrator.testing import FileSourceConformance, SourceConformance
from orchestrator.testing.assertions import AWKWARD_TEXTS, assert_one_line
from orchestrator.testing.sources import read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from orchestrator import ports

    Make = Callable[[Path, Sequence[str]], ports.Source]


def jsonl(path: Path, texts: Sequence[str]) -> ports.Source:
    lines = [orjson.dumps({"id": str(number), "text": text}) for number, text in enumerate(texts, 1)]
    path.write_bytes(b"\n".join(lines))
    return JsonlSource(path, id="id")


def as_csv(path: Path, texts: Sequence[str]) -> ports.Source:
    table = io.StringIO(newline="")
    csv.writer(table).writerows([("id", "text"), *enumerate(texts, 1)])
    path.write_bytes(table.getvalue().encode())
    return CsvSource(path, id="id")


def parquet(path: Path, texts: Sequence[str]) -> ports.Source:
    ids = [str(number) for number in range(1, len(texts) + 1)]
    pq.write_table(pa.table({"id": pa.array(ids, pa.string()), "text": pa.array(texts, pa.string())}), path)
    return ParquetSource(path, id="id")


def text_lines(path: Path, texts: Sequence[str]) -> ports.Source:
    path.write_bytes("\n".join(texts).encode())
    return TextSource(path)


def iterable(path: Path, texts: Sequence[str]) -> ports.Source:
    return IterableSource([{"id": number, "text": text} for number, text in enumerate(texts, 1)], id="id")


every_kind_of_file = pytest.mark.parametrize("make", [jsonl, as_csv, parquet, text_lines])
every_kind_of_text = pytest.mark.parametrize("make", [jsonl, as_csv, text_lines])
every_kind_with_an_id = pytest.mark.parametrize("make", [jsonl, as_csv, parquet, iterable])


@pytest.fixture
def nobody() -> Iterator[None]:
    """Drop all privileges for the block if the tests run as root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


# -- every kind -------------------------------------------------------------------------------------------------------


class TestJsonlSource(FileSourceConformance):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        return jsonl(folder / "in", texts)


class TestCsvSource(FileSourceConformance):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        return as_csv(folder / "in", texts)


class TestParquetSource(FileSourceConformance):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        return parquet(folder / "in", texts)


class TestTextSource(FileSourceConformance):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        return text_lines(folder / "in", texts)


class TestIterableSource(SourceConformance):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        return iterable(folder, texts)


class TestIterableSourceOfAFrame(SourceConformance):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        return IterableSource(pa.table({"text": pa.array(texts, pa.string())}))


class TestFilesSource(SourceConformance):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        for number, text in enumerate(texts):
            (folder / f"{number}.txt").write_text(text, encoding="utf-8")
        return FilesSource(folder / "*.txt", id="name")

    def text_of(self, row: Row) -> object:
        file = row.columns["file"]
        assert isinstance(file, File)
        return Path(file.path).read_text(encoding="utf-8")

    @pytest.mark.skip("a pattern that matches nothing is a mistake, which has a test of its own")
    def test_an_empty_source_has_no_rows(self, tmp_path: Path) -> None: ...


@every_kind_with_an_id
def test_the_id_is_text_and_remains_a_column(make: Make, tmp_path: Path) -> None:
    rows = read(make(tmp_path / "in", ["a", "b"]))
    assert [row.id for row in rows] == ["1", "2"]
    assert [str(row.columns["id"]) for row in rows] == ["1", "2"]


# -- every kind of file -----------------------------------------------------------------------------------------------


@every_kind_of_file
def test_the_hash_is_the_hash_of_the_file(make: Make, tmp_path: Path) -> None:
    source = make(tmp_path / "in", AWKWARD_TEXTS)
    assert source.sha256() == hashlib.sha256((tmp_path / "in").read_bytes()).hexdigest()


@every_kind_of_file
def test_a_pipe_is_refused_instead_of_waited_for(make: Make, tmp_path: Path) -> None:
    source = make(tmp_path / "in", ["a"])
    (tmp_path / "in").unlink()
    os.mkfifo(tmp_path / "in")
    with pytest.raises(UsageError, match="not a file"):
        read(source)


@every_kind_of_file
def test_a_file_without_read_permission_is_named(make: Make, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    source = make(tmp_path / "in", ["a"])
    (tmp_path / "in").chmod(0)
    request.getfixturevalue("nobody")
    with pytest.raises(UsageError) as failure:
        read(source)
    assert_one_line(failure, tmp_path / "in", "permission")


@pytest.mark.parametrize("kind", [JsonlSource, CsvSource, ParquetSource, TextSource, FilesSource])
def test_a_path_is_made_absolute_at_once(
    kind: Callable[[str], ports.Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert kind("in.x").describe() == str(tmp_path / "in.x")
    assert kind("~/in.x").describe() == "/home/somebody/in.x"


@every_kind_of_text
def test_an_empty_file_has_no_rows(make: Make, tmp_path: Path) -> None:
    source = make(tmp_path / "in", [])
    for content in (b"", b"\xef\xbb\xbf", b"\n\r\n"):
        (tmp_path / "in").write_bytes(content)
        assert read(source) == []


@every_kind_of_text
def test_a_byte_order_mark_and_windows_line_ends_are_not_content(make: Make, tmp_path: Path) -> None:
    source = make(tmp_path / "in", ["a", "b"])
    rows = read(source)
    content = (tmp_path / "in").read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    (tmp_path / "in").write_bytes(b"\xef\xbb\xbf" + content)
    assert read(source) == rows


@every_kind_of_text
def test_a_gzip_file_is_read_like_the_unpacked_file(make: Make, tmp_path: Path) -> None:
    source = make(tmp_path / "in.GZ", AWKWARD_TEXTS)  # written uncompressed first
    (tmp_path / "in.GZ").write_bytes(gzip.compress((tmp_path / "in.GZ").read_bytes()))
    assert [row.columns["text"] for row in read(source)] == list(AWKWARD_TEXTS)


@every_kind_of_text
@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:3000] + b"?" * 99 + data[3099:]])
def test_a_damaged_gzip_file_is_an_error_even_after_good_rows(
    make: Make, damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    source = make(tmp_path / "in.gz", [os.urandom(20).hex() for _ in range(1000)])
    packed = gzip.compress((tmp_path / "in.gz").read_bytes())
    (tmp_path / "in.gz").write_bytes(damage(packed))
    with pytest.raises(UsageError) as failure:
        read(source)
    assert_one_line(failure, tmp_path / "in.gz", "gzip")


@every_kind_of_text
def test_a_file_that_is_gzip_only_by_name_is_an_error(make: Make, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gzip"):
        read(make(tmp_path / "in.gz", ["a"]))


@every_kind_of_text
@pytest.mark.parametrize("name", ["in", "in.gz"])
def test_memory_does_not_grow_with_the_file(make: Make, name: str, tmp_path: Path) -> None:
    source = make(tmp_path / name, ["x" * 1000] * 16_000)
    if name.endswith(".gz"):
        (tmp_path / name).write_bytes(gzip.compress((tmp_path / name).read_bytes(), 1))
    tracemalloc.start()
    with source.rows() as rows:
        assert sum(1 for _ in rows) == 16_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 << 20


# -- ids --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [None, "", 1.5, True, ["a"]])
@pytest.mark.parametrize("kind", ["jsonl", "iterable"])
def test_a_row_with_an_invalid_id_is_unreadable_and_the_rest_is_read(kind: str, bad: object, tmp_path: Path) -> None:
    values: list[dict[str, object]] = [{"key": bad}, {"other": 1}, {"key": 7}]
    (tmp_path / "in").write_bytes(b"\n".join(map(orjson.dumps, values)))
    rows = read(JsonlSource(tmp_path / "in", id="key") if kind == "jsonl" else IterableSource(values, id="key"))
    assert [row.id for row in rows] == [None, None, "7"]
    assert [dict(row.columns) for row in rows] == values
    for number, row in enumerate(rows[:2], 1):
        assert row.unreadable
        assert f" {number} " in row.unreadable
        assert "'key'" in row.unreadable


def test_a_csv_or_parquet_row_without_an_id_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,text\n,a\n2,b\n")
    pq.write_table(pa.table({"id": pa.array([None, 2])}), tmp_path / "in.parquet")
    for source in (CsvSource(tmp_path / "in.csv", id="id"), ParquetSource(tmp_path / "in.parquet", id="id")):
        bad, good = read(source)
        assert bad.unreadable
        assert good.id == "2"


@pytest.mark.parametrize("make", [as_csv, parquet])
def test_a_missing_id_column_is_an_error_that_names_the_existing_columns(make: Make, tmp_path: Path) -> None:
    make(tmp_path / "in", ["a"])
    kind = CsvSource if make is as_csv else ParquetSource
    with pytest.raises(UsageError) as failure, kind(tmp_path / "in", id="key").rows():
        pass
    assert_one_line(failure, tmp_path / "in", "'key'", "id, text")


def test_without_an_id_column_rows_have_no_id(tmp_path: Path) -> None:
    as_csv(tmp_path / "in", ["a"])
    assert read(CsvSource(tmp_path / "in")) == [Row({"id": "1", "text": "a"})]


# -- JSONL and text ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line", [b"{", b"nonsense", b"[1]", b"7", b"null", b'{"a":nan}', b'{"a":"\xff"}', b"{} {}", b"[" * 5000, b"\0"]
)
def test_a_malformed_line_is_one_unreadable_row(line: bytes, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b'{"id":"a"}\n\n  \n' + line + b'\n{"id":"b"}')
    first, bad, last = read(JsonlSource(tmp_path / "in", id="id"))
    assert (first.id, last.id) == ("a", "b")
    assert bad.id is None
    assert (bad.unreadable or "").startswith("line 4 is not valid JSON: ")
    assert bad.columns["line"] == 4
    assert len(str(bad.columns["raw"])) <= 500
    orjson.dumps(bad.columns)


def test_nested_values_and_long_lines_survive(tmp_path: Path) -> None:
    row = {"id": 2**60, "deep": {"a": [1, 2.5, None, {"b": True}]}, "long": "x" * 10_000_000}
    (tmp_path / "in").write_bytes(orjson.dumps(row))
    assert read(JsonlSource(tmp_path / "in", id="id")) == [Row(row, str(2**60), given_id=2**60)]


def test_blank_lines_in_text_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"one\n\n \t\r\n  two \r\nb\xffd\nthree")
    one, two, bad, three = read(TextSource(tmp_path / "in"))
    assert [dict(row.columns) for row in (one, two, three)] == [
        {"text": "one"},
        {"text": "  two "},
        {"text": "three"},
    ]
    assert (bad.unreadable or "").startswith("line 5 is not valid UTF-8")
    assert bad.columns == {"line": 5, "raw": "b\ufffdd\n"}


# -- CSV --------------------------------------------------------------------------------------------------------------


def test_a_row_with_too_many_or_too_few_fields_is_unreadable_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b'id,text\n1,"two\nlines"\n2\n\n3,c,extra\n4,d\n')
    rows = read(CsvSource(tmp_path / "in", id="id"))
    assert [row.id for row in rows] == ["1", None, None, "4"]
    assert rows[0].columns["text"] == "two\nlines"
    assert [row.unreadable for row in rows[1:3]] == [
        "line 4 has 1 fields where the header has 2",
        "line 6 has 3 fields where the header has 2",
    ]


def test_stray_quotes_fail_only_their_own_row(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b'id,text\n1,"a"b\n2,c\n3,"open')
    bad, good, last = read(CsvSource(tmp_path / "in", id="id"))
    assert "line 2" in (bad.unreadable or "")
    assert good.id == "2"
    assert "line 4" in (last.unreadable or "")


def test_an_unclosed_quote_is_an_error_and_does_not_swallow_the_rest(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b'id,text\n1,a\n2,"b\n3,c\n4,d\n')
    with pytest.raises(UsageError) as failure:
        read(CsvSource(tmp_path / "in"))
    assert_one_line(failure, tmp_path / "in", "line 3")


def test_quotes_behind_backslashes_as_spark_writes_them_name_the_remedy(tmp_path: Path) -> None:
    remedy = 'quotes are written as \\" here: give `escape="\\\\"`'
    (tmp_path / "in").write_text('id,text\n1,"he said \\"hi\\", ok"\n2,C:\\dir\n3,"one \\", two"\n4,"a"b\n5,a,b\n')
    said, path, split, stray, wide = read(CsvSource(tmp_path / "in", id="id"))
    assert all(remedy in (row.unreadable or "") for row in (said, split))
    assert path.columns["text"] == "C:\\dir"
    assert not any(remedy in (row.unreadable or "line") for row in (stray, wide))
    (tmp_path / "in").write_text('id,text\n1,"ends in \\""\n2,b\n')
    with pytest.raises(UsageError) as failure:
        read(CsvSource(tmp_path / "in"))
    assert_one_line(failure, tmp_path / "in", "line 2", remedy)
    assert [row.columns["text"] for row in read(CsvSource(tmp_path / "in", escape="\\"))] == ['ends in "', "b"]


def test_bytes_in_another_encoding_fail_only_their_own_row(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes("id,text\n1,é\n2,a\n".encode("latin-1"))
    bad, good = read(CsvSource(tmp_path / "in", id="id"))
    assert (bad.unreadable or "").startswith("line 2 is not valid utf-8: ")
    orjson.dumps(bad.columns)
    assert good.id == "2"
    assert read(CsvSource(tmp_path / "in", encoding="latin-1"))[0].columns["text"] == "é"


def test_other_encodings_and_delimiters_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes("id;text\n1;é,日\n".encode("utf-16"))
    source = CsvSource(tmp_path / "in", id="id", delimiter=";", encoding="utf-16")
    assert read(source) == [Row({"id": "1", "text": "é,日"}, "1")]
    (tmp_path / "in").write_bytes(b"\xff\xfea")
    with pytest.raises(UsageError, match="utf-16"):
        read(source)


@pytest.mark.parametrize("escape", ["\\", "^", "]"])
def test_escaped_quotes_are_read_inside_fields_with_quotes_around_them(tmp_path: Path, escape: str) -> None:
    texts = ["".join(marks) for size in range(5) for marks in product([escape, '"', ";", "\r\n", "n"], repeat=size)]
    escaped = [text.replace(escape, escape * 2).replace('"', f'{escape}"') for text in texts]
    lines = [f'{number};"{text}";{escape * 2}n{escape}"\r\n' for number, text in enumerate(escaped)]
    (tmp_path / "in").write_bytes("".join(["id;text;bare\r\n", *lines]).encode())
    rows = read(CsvSource(tmp_path / "in", id="id", delimiter=";", escape=escape))
    assert [row.columns["text"] for row in rows] == texts
    assert {row.columns["bare"] for row in rows} == {f'{escape * 2}n{escape}"'}


def test_with_escaped_quotes_doubled_ones_and_other_escapes_are_read_and_bad_rows_have_their_line(
    tmp_path: Path,
) -> None:
    (tmp_path / "in").write_text('id,text\n1,"a""b\\n"\n2,"c\\""d\n3,"e\\\nf"\n4,"g"\n5,"h')
    two, bad, three, four, last = read(CsvSource(tmp_path / "in", id="id", escape="\\"))
    assert [row.columns.get("text") for row in (two, three, four)] == ['a"b\\n', "e\\\nf", "g"]
    assert [row.unreadable for row in (bad, last)] == [
        "line 3 is not valid CSV: ',' expected after '\"'",
        "line 7 is not valid CSV: unexpected end of data",
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"delimiter": "||"},
        {"delimiter": ""},
        {"encoding": "klingon"},
        *({"escape": mark} for mark in ["", "ab", '"', ",", "\n"]),
    ],
)
def test_an_invalid_delimiter_encoding_or_escape_is_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as failure:
        CsvSource("in.csv", **options)
    assert_one_line(failure, *map(repr, options.values()))


@pytest.mark.parametrize("header", [b"id,a,a\n1,2,3\n", b'"id\n', b"id,\xff\n"])
def test_an_unusable_header_is_an_error(header: bytes, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(header)
    with pytest.raises(UsageError) as failure, CsvSource(tmp_path / "in", id="id").rows():
        pass
    assert_one_line(failure, tmp_path / "in")


def test_a_cell_of_ten_megabytes_is_read_and_the_limit_of_the_process_restored(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    big = as_csv(tmp_path / "big", ["x" * 10_000_000, "y"])
    small = as_csv(tmp_path / "small", ["a"])
    with small.rows() as _, big.rows() as rows:
        assert len(str(next(rows).columns["text"])) == 10_000_000
        read(small)  # opened later and closed earlier
        assert next(rows).columns["text"] == "y"
    assert csv.field_size_limit() == limit < CELL_LIMIT


# -- Parquet ----------------------------------------------------------------------------------------------------------


def test_parquet_values_become_json_values(tmp_path: Path) -> None:
    moment = datetime(2024, 2, 29, 12, 30, 1, 5, UTC)
    table = pa.table(
        {
            "moment": pa.array([moment], pa.timestamp("us", "UTC")),
            "nanoseconds": pa.array([1_700_000_000_123_456_789], pa.int64()).cast(pa.timestamp("ns")),
            "nested": pa.array([[{"at": 1_001}]], pa.list_(pa.struct([("at", pa.timestamp("ns"))]))),
            "day": [date(2024, 2, 29)],
            "clock": pa.array([1_001_000], pa.time64("ns")),
            "span": pa.array([timedelta(seconds=90)], pa.duration("ns")),
            "price": [Decimal("1.10")],
            "bytes": [b"\xff\0"],
            "vector": [[0.5, float("nan"), float("inf")]],
            "big": pa.array([2**64 - 1], pa.uint64()),
            "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
            "word": pa.array(["a"]).dictionary_encode(),
            "none": pa.array([None]),
        }
    )
    pq.write_table(table, tmp_path / "in")
    (row,) = read(ParquetSource(tmp_path / "in"))
    assert row.columns == {
        "moment": "2024-02-29T12:30:01.000005+00:00",
        "nanoseconds": "2023-11-14T22:13:20.123456",
        "nested": [{"at": "1970-01-01T00:00:00.000001"}],
        "day": "2024-02-29",
        "clock": "00:00:00.001001",
        "span": 90.0,
        "price": "1.10",
        "bytes": "/wA=",
        "vector": [0.5, None, None],
        "big": 2**64 - 1,
        "map": [["k", 1]],
        "word": "a",
        "none": None,
    }


def test_a_parquet_file_with_many_batches_and_large_rows_is_read_completely(tmp_path: Path) -> None:
    with pq.ParquetWriter(tmp_path / "in", pa.schema([("id", pa.int64()), ("body", pa.binary())])) as writer:
        for start in range(0, 9, 3):
            bodies = [os.urandom(3_000_000)] * 3
            writer.write_table(pa.table({"id": range(start, start + 3), "body": bodies}))
    assert [row.id for row in read(ParquetSource(tmp_path / "in", id="id"))] == [str(number) for number in range(9)]


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-20], lambda data: b"x" * len(data), lambda data: b"PAR1" + data[400:]]
)
def test_a_damaged_parquet_file_is_an_error(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    source = parquet(tmp_path / "in", [os.urandom(20).hex() for _ in range(1000)])
    (tmp_path / "in").write_bytes(damage((tmp_path / "in").read_bytes()))
    with pytest.raises(UsageError) as failure:
        read(source)
    assert_one_line(failure, tmp_path / "in")


def test_a_parquet_file_with_a_duplicate_column_is_an_error(tmp_path: Path) -> None:
    pq.write_table(pa.table([[1], [2]], names=["a", "a"]), tmp_path / "in")
    with pytest.raises(UsageError, match="'a' twice"):
        read(ParquetSource(tmp_path / "in"))


# -- files ------------------------------------------------------------------------------------------------------------


def test_files_are_sorted_with_their_hash_and_type(tmp_path: Path) -> None:
    names = ["b.png", "a.JPG", "c/d.wav", "c/e.flac", "c/f.mp3", "c/g.ogg", "c/unknown"]
    (tmp_path / "c").mkdir()
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    rows = read(FilesSource(str(tmp_path / "**"), id="name"))
    assert [row.columns["path"] for row in rows] == sorted(str(tmp_path / name) for name in names)
    assert [row.id for row in rows] == ["a.JPG", "b.png", "d.wav", "e.flac", "f.mp3", "g.ogg", "unknown"]
    files = [row.columns["file"] for row in rows]
    assert files[0] == File(str(tmp_path / "a.JPG"), hashlib.sha256(b"a.JPG").hexdigest(), "image/jpeg")
    types = ["image/png", "audio/wav", "audio/flac", "audio/mpeg", "audio/ogg", "application/octet-stream"]
    assert [file.content_type for file in files[1:] if isinstance(file, File)] == types


def test_files_have_no_id_unless_one_is_chosen(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert [row.id for row in read(FilesSource(tmp_path / "*"))] == [None]
    assert [row.id for row in read(FilesSource(tmp_path / "*", id="path"))] == [str(tmp_path / "a")]
    with pytest.raises(UsageError, match="name or path"):
        FilesSource(tmp_path / "*", id="size")


def test_the_hash_of_files_covers_names_and_contents(tmp_path: Path) -> None:
    source = FilesSource(tmp_path / "*")
    (tmp_path / "a").write_text("1")
    hashes = {source.sha256()}
    (tmp_path / "a").write_text("2")
    hashes.add(source.sha256())
    (tmp_path / "a").rename(tmp_path / "b")
    hashes.add(source.sha256())
    assert source.sha256() in hashes
    assert len(hashes) == 3


def test_a_pattern_that_matches_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError) as failure, FilesSource(tmp_path / "*").rows():
        pass
    assert_one_line(failure, tmp_path / "*")


def test_an_unreadable_file_is_one_unreadable_row(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "good").touch()
    bad_name = os.fsencode(tmp_path) + b"/b\xffd"
    with open(bad_name, "wb"):  # noqa: PTH123 - a name that is not text
        pass
    source = FilesSource(tmp_path / "*")
    not_text, gone, good = read(source)
    assert "not named in UTF-8" in (not_text.unreadable or "")
    assert str(tmp_path / "gone") in (gone.unreadable or "")
    assert good.unreadable is None
    for row in (not_text, gone):
        orjson.dumps(row.columns)
    assert source.sha256() == source.sha256()


# -- iterables --------------------------------------------------------------------------------------------------------


def test_a_function_is_called_again_for_each_reading() -> None:
    def numbers() -> Iterator[dict[str, int]]:
        yield from ({"n": number} for number in range(3))

    source: ports.Source = IterableSource(rows=numbers)
    assert read(source) == read(source) == [Row({"n": 0}), Row({"n": 1}), Row({"n": 2})]
    assert "numbers" in source.describe()
    assert source.sha256() is None


def test_an_iterator_is_refused_because_a_second_run_would_find_it_empty() -> None:
    with pytest.raises(UsageError) as failure:
        IterableSource({"n": number} for number in range(3))
    assert_one_line(failure, "generator", "function")


@pytest.mark.parametrize("make", [lambda rows: (row for row in rows), lambda rows: map(dict, rows)])
def test_an_iterator_that_a_function_returns_again_is_not_taken_for_an_empty_source(make: Any) -> None:
    rows = make([{"n": 1}, {"n": 2}])
    source = IterableSource(lambda: rows)
    assert len(read(source)) == 2
    with pytest.raises(UsageError, match="can be read only once, and was read before: give a list, or a function"):
        read(source)


def test_a_generator_at_its_end_is_not_taken_for_an_empty_source() -> None:
    rows = ({"n": number} for number in range(2))
    list(rows)
    with pytest.raises(UsageError, match="the generator can be read only once, and was read before: give a list"):
        read(IterableSource(lambda: rows))


@pytest.mark.parametrize("rows", [{"a": 1}, "text", 7, lambda: 7])
def test_an_object_that_yields_no_rows_is_refused(rows: Any) -> None:
    with pytest.raises(UsageError) as failure:
        read(IterableSource(rows))
    assert_one_line(failure, type(rows() if callable(rows) else rows).__name__)


def test_a_row_that_is_not_a_mapping_is_unreadable() -> None:
    rows: list[Any] = [OrderedDict(a=1), ["b"]]
    good, bad = read(IterableSource(rows))
    assert good.columns == {"a": 1}
    assert "row 2" in (bad.unreadable or "")


# -- patterns ---------------------------------------------------------------------------------------------------------


@every_kind_of_file
def test_a_pattern_reads_its_files_one_after_the_other_by_name(make: Make, tmp_path: Path) -> None:
    for name, texts in (("b", ["three"]), ("a", ["one", "two"])):
        source = make(tmp_path / f"night-{name}.data", texts)
    pattern = dataclasses.replace(source, path=tmp_path / "night-*.data")  # type: ignore[type-var]  # each is one
    assert [row.columns["text"] for row in read(pattern)] == ["one", "two", "three"]
    before = pattern.sha256()
    make(tmp_path / "night-c.data", ["four"])
    assert pattern.sha256() != before
    assert [row.columns["text"] for row in read(pattern)] == ["one", "two", "three", "four"]
    (tmp_path / "night-c.data").rename(tmp_path / "day-c.data")
    assert pattern.sha256() == before


@every_kind_of_file
def test_an_existing_file_whose_name_looks_like_a_pattern_is_read(make: Make, tmp_path: Path) -> None:
    make(tmp_path / "a.data", ["not this"])
    assert [row.columns["text"] for row in read(make(tmp_path / "[ab].data", ["this"]))] == ["this"]


@every_kind_of_file
def test_a_pattern_without_files_is_reported_by_every_method(make: Make, tmp_path: Path) -> None:
    source = dataclasses.replace(make(tmp_path / "there.data", ["x"]), path=tmp_path / "no*.data")  # type: ignore[type-var]
    (tmp_path / "nothing.data").mkdir()
    for look in (source.sha256, lambda: read(source)):
        with pytest.raises(NoFiles) as failure:
            look()
        assert_one_line(failure, tmp_path / "no*.data", "matches no file")


def test_a_folder_stands_for_all_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "[set]"
    for name in ("b.png", "a/c.jpg", ".hidden.png", "_d.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    source = FilesSource(folder, id="name")
    assert [row.id for row in read(source)] == ["_d.png", "c.jpg", "b.png"]
    assert source.reads([folder / "new.png", tmp_path / "new.png"]) == [folder / "new.png"]


@every_kind_of_file
def test_reading_a_pattern_can_stop_half_way(make: Make, tmp_path: Path) -> None:
    for name in "abc":
        source = make(tmp_path / f"{name}.data", ["one", "two"])
    with dataclasses.replace(source, path=tmp_path / "*.data").rows() as rows:  # type: ignore[type-var]
        assert [next(rows).columns["text"] for _ in range(3)] == ["one", "two", "one"]


def test_an_unreadable_row_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "1"}\n')
    (tmp_path / "b.jsonl").write_text('{"id": "2"}\n{"id": ')
    _, _, bad = read(JsonlSource(tmp_path / "*.jsonl", id="id"))
    assert (bad.unreadable or "").startswith("b.jsonl, line 2 is not valid JSON")


def test_a_matched_file_without_the_id_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,a\n")
    (tmp_path / "b.csv").write_text("text\nb\n")
    with pytest.raises(UsageError) as failure:
        read(CsvSource(tmp_path / "*.csv", id="id"))
    assert_one_line(failure, tmp_path / "b.csv", "'id'")


@pytest.mark.parametrize("kind", [JsonlSource, TextSource])
def test_a_line_too_long_for_memory_is_one_unreadable_row(
    kind: type[JsonlSource | TextSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("reading", "jsonl", "text"):
        monkeypatch.setattr(f"orchestrator.sources.{module}.MOST_OF_LINE", 100)
    path = tmp_path / "in.txt"
    long = b'{"a": "' + b"x" * 3_000_000 + b'"}\n'
    just = b'{"a": "' + b"x" * 90 + b'"}\n'  # of 100 characters
    path.write_bytes(b'{"a": 1}\n' + long + just + b'{"a": 2}\n' + long.rstrip())
    with kind(path).rows() as rows:
        found = [row.unreadable for row in rows]
    assert found == [None, "line 2 is longer than 100 bytes", None, None, "line 5 is longer than 100 bytes"]
