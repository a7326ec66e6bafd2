"""Which files sources read: by which names and compressions, and which are refused as another type."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import os
import zipfile
from typing import TYPE_CHECKING

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator import ports
from orchestrator.domain.errors import UsageError
from orchestrator.sources import (
    CsvSource,
    FilesSource,
    IterableSource,
    JsonlSource,
    ParquetSource,
    TextSource,
    json_array,
)
from orchestrator.testing import FileSourceConformance, SourceConformance

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from orchestrator.domain.item import Row

LINES = b'{"id":1,"text":"one"}\n{"id":2,"text":"two"}\n'
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}
every_packing = pytest.mark.parametrize("suffix", PACKERS)


def read(source: ports.Source) -> list[Row]:
    with source.rows() as rows:
        return list(rows)


def refusal(source: ports.Source) -> str:
    with pytest.raises(UsageError) as failure:
        read(source)
    assert "\n" not in str(failure.value)
    return str(failure.value)


def reads(source: object, *paths: Path) -> list[Path]:
    assert isinstance(source, ports.ReadsFiles)
    return source.reads(paths)


# -- which files a source reads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [JsonlSource, CsvSource, TextSource, ParquetSource, FilesSource])
def test_a_source_recognizes_its_file_by_every_name(kind: Callable[[Path], ports.Source], tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_bytes(LINES)
    (tmp_path / "link").symlink_to(file)
    (tmp_path / "hard").hardlink_to(file)
    (tmp_path / "folder").symlink_to(tmp_path)
    names = [file, tmp_path / "link", tmp_path / "hard", tmp_path / "folder" / "in.jsonl", tmp_path / "x/../in.jsonl"]
    for own in names[:4]:
        assert reads(kind(own), tmp_path / "other", *names) == names
    assert reads(kind(tmp_path / "missing"), file, tmp_path / "folder" / "missing") == [tmp_path / "folder" / "missing"]


@pytest.mark.parametrize(
    ("pattern", "read_then"),
    [
        ("data/*.jsonl", ["data/new.jsonl"]),
        ("data/*.json*", ["data/new.jsonl", "data/new.manifest.json"]),
        ("data/**", ["data/new.jsonl", "data/new.manifest.json", "data/deep/new.csv", "data/linked/new.jsonl"]),
        ("data/**/*.csv", ["data/deep/new.csv"]),
        ("data/*/*", ["data/deep/new.csv", "data/linked/new.jsonl"]),
        ("data/linked/*.jsonl", ["data/linked/new.jsonl"]),
        ("data/.*", ["data/.hidden.jsonl"]),
        ("*/new.jsonl", ["data/new.jsonl", "real/new.jsonl"]),
        ("[d]ata/new.jsonl", ["data/new.jsonl"]),
        ("other/*", []),
    ],
)
def test_a_pattern_recognizes_files_that_it_would_match_next_time(
    tmp_path: Path, pattern: str, read_then: list[str]
) -> None:
    for folder in ("data", "real", "other"):
        (tmp_path / folder).mkdir()
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "real")
    places = ["new.jsonl", "new.manifest.json", "deep/new.csv", "linked/new.jsonl", ".hidden.jsonl", ".tmp/new.jsonl"]
    paths = [tmp_path / "data" / place for place in places] + [tmp_path / "real" / "new.jsonl"]
    expected = [tmp_path / name for name in read_then]
    real = tmp_path / "real" / "new.jsonl"
    if tmp_path / "data/linked/new.jsonl" in expected:  # the same file
        expected.append(real)
    elif real in expected:
        expected.insert(1, tmp_path / "data/linked/new.jsonl")
    assert reads(JsonlSource(tmp_path / pattern), *paths) == expected
    assert reads(FilesSource(tmp_path / pattern), *paths) == expected


def test_a_pattern_recognizes_a_matching_file_by_another_name(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    output = tmp_path / "out.jsonl"
    output.write_bytes(LINES)
    (tmp_path / "in" / "yesterday.jsonl").symlink_to(output)
    assert reads(JsonlSource(tmp_path / "in" / "*.jsonl"), output, tmp_path / "new.jsonl") == [output]


def test_a_path_with_a_variable_is_refused_unless_there_is_such_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path, name in [("$HOME/in.jsonl", "HOME"), ("a/${DATA}/in.jsonl", "DATA")]:
        with pytest.raises(UsageError, match=rf"only a shell replaces \$.*: use Python's os\.environ\['{name}'\]"):
            JsonlSource(path)
    JsonlSource("price_$5.jsonl"), JsonlSource("$.jsonl")
    (tmp_path / "$HOME").mkdir()
    assert JsonlSource("$HOME/in.jsonl").path == tmp_path / "$HOME" / "in.jsonl"


def test_text_whose_lines_end_with_carriage_returns_alone_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "in.txt"
    file.write_bytes(b"one\rtwo\r")
    with pytest.raises(UsageError, match=r"in\.txt has lines that end with a carriage return alone.*`tr '\\r' '\\n'`"):
        read(TextSource(file))
    file.write_bytes(b"10 %\r20 %\r\n")
    assert [row.columns["text"] for row in read(TextSource(file))] == ["10 %\r20 %"]


@pytest.mark.parametrize("kind", [JsonlSource, CsvSource, TextSource, ParquetSource, FilesSource])
@pytest.mark.parametrize(
    ("path", "scheme"),
    [
        ("hdfs://host/in/*.jsonl", "hdfs://"),
        ("file:///in.jsonl", "file://"),
        ("simplecache::s3://bucket/in.jsonl", "s3://"),
        ("memory:in.jsonl", "memory://"),
        ("S3:in.jsonl", "S3://"),
    ],
)
def test_a_scheme_is_refused_by_name(kind: Callable[[str], ports.Source], path: str, scheme: str) -> None:
    with pytest.raises(UsageError, match=f"{scheme} is not supported .*: give a path on this machine"):
        kind(path)


def test_a_path_on_windows_is_refused_elsewhere() -> None:
    with pytest.raises(UsageError, match=r"C:\\data\\in\.jsonl is a path on Windows, .*: write it with slashes"):
        JsonlSource(r"C:\data\in.jsonl")


def test_a_colon_alone_is_not_a_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("12:30.jsonl", "a:b.jsonl", "notes:1.jsonl"):
        assert JsonlSource(name).describe() == str(tmp_path / name)
    for name in ("", "in\0.jsonl"):
        with pytest.raises(UsageError, match="is not a path"):
            JsonlSource(name)


# -- compressed files -------------------------------------------------------------------------------------------------


def in_members(suffix: str, data: bytes) -> bytes:
    """Compress in many pieces, cut within lines and characters, as pigz, pbzip2, pzstd and `cat` write them."""
    size = max(1, len(data) // 7)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    skipped = b"\x50\x2a\x4d\x18\x04\0\0\0size" if suffix == ".zst" else b""  # a frame without data
    return b"".join(skipped + PACKERS[suffix](piece) for piece in [b"", *pieces, b""])


class OfMembers(FileSourceConformance):
    suffix: str

    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        lines = b"".join(orjson.dumps({"id": number, "text": text}) + b"\n" for number, text in enumerate(texts))
        (folder / f"in.jsonl{self.suffix}").write_bytes(in_members(self.suffix, lines))
        return JsonlSource(folder / f"in.jsonl{self.suffix}", id="id")


class TestGzipMembers(OfMembers):
    suffix = ".gz"


class TestBzip2Streams(OfMembers):
    suffix = ".bz2"


class TestXzStreams(OfMembers):
    suffix = ".xz"


class TestZstandardFrames(OfMembers):
    suffix = ".zst"


class TestCompressedCsv(FileSourceConformance):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        table = io.StringIO(newline="")
        csv.writer(table).writerows([("id", "text"), *enumerate(texts)])
        (folder / "in.csv.zst").write_bytes(in_members(".zst", table.getvalue().encode()))
        return CsvSource(folder / "in.csv.zst", id="id")


class TestCompressedArray(FileSourceConformance):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        array = orjson.dumps([{"id": number, "text": text} for number, text in enumerate(texts)])
        (folder / "in.json.bz2").write_bytes(in_members(".bz2", b"\xef\xbb\xbf \n" + array + b"\n"))
        return JsonlSource(folder / "in.json.bz2", id="id")


class TestPartitionedFolder(SourceConformance):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        for number, text in enumerate(texts):
            part = folder / f"day={number:03}" / "part-0.json.gz"
            part.parent.mkdir()
            part.write_bytes(gzip.compress(orjson.dumps({"id": number, "text": text})))
        return JsonlSource(folder, id="id")

    @pytest.mark.skip("a folder without files is a mistake, which has a test of its own")
    def test_an_empty_source_has_no_rows(self, tmp_path: Path) -> None: ...


@every_packing
@pytest.mark.parametrize("named", [True, False])
def test_a_compressed_file_is_recognized_by_its_first_bytes(suffix: str, tmp_path: Path, *, named: bool) -> None:
    path = tmp_path / (f"in{suffix}" if named else "in")
    path.write_bytes(PACKERS[suffix](LINES))
    assert [row.columns["text"] for row in read(JsonlSource(path, id="id"))] == ["one", "two"]
    assert [row.columns["text"] for row in read(TextSource(path))] == LINES.decode().splitlines()
    path.write_bytes(PACKERS[suffix](b"id,text\n1,one\n"))
    assert [row.columns for row in read(CsvSource(path))] == [{"id": "1", "text": "one"}]


@every_packing
def test_concatenated_compressed_files_are_read_as_one(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(PACKERS[suffix](LINES) * 2)
    assert len(read(JsonlSource(tmp_path / "in"))) == 4


@every_packing
def test_a_truncated_compressed_file_is_named_after_its_good_rows(suffix: str, tmp_path: Path) -> None:
    data = PACKERS[suffix](b"".join(orjson.dumps({"text": os.urandom(20).hex()}) + b"\n" for _ in range(1000)))
    path = tmp_path / f"in{suffix}"
    for cut in (len(data) - 9, len(data) // 2):
        path.write_bytes(data[:cut])
        said = refusal(JsonlSource(path))
        assert str(path) in said
        assert "copy it again or unpack it" in said


@every_packing
def test_an_uncompressed_file_with_a_compressed_suffix_is_refused(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"in{suffix}").write_bytes(LINES)
    assert "is not a whole" in refusal(JsonlSource(tmp_path / f"in{suffix}"))


# -- files of other types ---------------------------------------------------------------------------------------------


def an_archive(path: Path) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("sheet.xml", "x")
    return path.read_bytes()


def a_table(path: Path) -> bytes:
    pq.write_table(pa.table({"text": ["a"]}), path)
    return path.read_bytes()


@every_packing
def test_a_damaged_stream_after_a_whole_one_is_not_passed_over(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"in.jsonl{suffix}"
    whole = PACKERS[suffix](LINES)
    path.write_bytes(whole + b"\xff\xff" + PACKERS[suffix](LINES)[2:])
    assert "copy it again" in refusal(JsonlSource(path))


@pytest.mark.parametrize(("suffix", "padding"), [(".gz", 1 << 16), (".bz2", 3 << 20), (".xz", 3 << 20)])
def test_zeros_may_pad_a_compressed_file(suffix: str, padding: int, tmp_path: Path) -> None:
    path = tmp_path / f"in.jsonl{suffix}"
    path.write_bytes(PACKERS[suffix](LINES) + bytes(8) + PACKERS[suffix](LINES) + bytes(padding))
    assert len(read(JsonlSource(path))) == 4


def a_database(path: Path) -> bytes:
    duckdb.connect(path).close()
    return path.read_bytes()


FOREIGN: dict[str, Callable[[Path], bytes]] = {
    "a zip archive": an_archive,
    "ParquetSource": a_table,
    "a PDF": lambda _: b"%PDF-1.7\n%\xe2\xe3",
    "UTF-16:": lambda _: LINES.decode().encode("utf-16"),
    "UTF-16LE": lambda _: LINES.decode().encode("utf-16-le"),
    "UTF-16BE": lambda _: LINES.decode().encode("utf-16-be"),
    "UTF-32": lambda _: LINES.decode().encode("utf-32"),
    "packed twice": lambda _: gzip.compress(bz2.compress(LINES)),
    "a tar archive": lambda _: b"in.jsonl".ljust(257, b"\0") + b"ustar\x0000".ljust(255, b"\0"),
    "git lfs pull": lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n",
    "an SQLite database: read it with QuerySource": lambda _: b"SQLite format 3\0" + bytes(84),
    "a DuckDB database: read it with QuerySource": lambda path: a_database(path.with_name("in.duckdb")),
    "an Avro file": lambda _: b"Obj\x01\x04\x14avro.codec",
}


@pytest.mark.parametrize("kind", [JsonlSource, CsvSource, TextSource])
@pytest.mark.parametrize("named", FOREIGN)
def test_a_file_of_another_type_is_named_by_its_first_bytes(
    kind: Callable[[Path], ports.Source], named: str, tmp_path: Path
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(FOREIGN[named](tmp_path / "made"))
    said = refusal(kind(path))
    assert str(path) in said
    if named != "UTF-16:" or kind is not CsvSource:  # which can read UTF-16
        assert named in said


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><p>", b"\n <HTML>", b"\xef\xbb\xbf<html>"])
def test_an_html_page_is_not_a_table_but_may_be_text(page: bytes, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(page)
    for kind in (JsonlSource, CsvSource, ParquetSource):
        assert "an HTML page: download the file again" in refusal(kind(tmp_path / "in"))
    assert len(read(TextSource(tmp_path / "in"))) == 1


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (LINES, "is not Parquet"),
        (gzip.compress(LINES), "is compressed \\(gzip\\)"),
        (b"%PDF-1.7", "is a PDF"),
        (b"", "not"),
    ],
    ids=["lines", "gzip", "pdf", "empty"],
)
def test_a_file_that_is_not_parquet_is_reported(content: bytes, named: str, tmp_path: Path) -> None:
    (tmp_path / "in.parquet").write_bytes(content)
    with pytest.raises(UsageError, match=named):
        read(ParquetSource(tmp_path / "in.parquet"))


def test_a_utf_16_csv_file_is_read_by_its_encoding_or_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes("id,text\n1,é\n".encode("utf-16"))
    for source in (CsvSource(tmp_path / "in", encoding="utf-16"), CsvSource(tmp_path / "in")):
        assert [row.columns for row in read(source)] == [{"id": "1", "text": "é"}]
    (tmp_path / "in").write_bytes("id,text\n1,é\n".encode("utf-16-le"))
    assert "encoding=" in refusal(CsvSource(tmp_path / "in"))


# -- JSON arrays ------------------------------------------------------------------------------------------------------

ROWS: list[dict[str, object]] = [
    {"id": 1, "text": 'a "quoted" \\ one, [with] {brackets}'},
    {"id": 2, "text": "ünï\ncode", "deep": [{"a": [1, {"b": "]"}]}, None]},
    {"id": 3, "text": ""},
]


@pytest.mark.parametrize("indent", [0, orjson.OPT_INDENT_2])
@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 20])
def test_an_array_of_objects_is_read_as_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indent: int, chunk: int
) -> None:
    monkeypatch.setattr(json_array, "_CHUNK", chunk)
    (tmp_path / "in").write_bytes(b"\xef\xbb\xbf \n" + orjson.dumps(ROWS, option=indent) + b"\n")
    rows = read(JsonlSource(tmp_path / "in", id="id"))
    assert [row.columns for row in rows] == ROWS
    assert [row.id for row in rows] == ["1", "2", "3"]


def test_an_element_that_is_not_an_object_is_one_unreadable_row(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b'[{"id":1}, 2, {bad}, "x", {"id":5}]')
    reasons = [row.unreadable for row in read(JsonlSource(tmp_path / "in", id="id"))]
    assert [reason and reason.split(" is not")[0] for reason in reasons] == [None, "row 2", "row 3", "row 4", None]


@pytest.mark.parametrize("content", [b'[{"id":1},', b'[{"id":1}', b'[{"id":"1', b'[{"id":1}] []', b'[{"id":1}]\nx'])
def test_an_array_followed_by_other_content_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(content)
    assert "is not a whole JSON array" in refusal(JsonlSource(tmp_path / "in"))


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
@pytest.mark.parametrize("indent", [0, orjson.OPT_INDENT_2])
def test_only_the_beginning_of_an_oversized_element_is_kept_for_the_message(
    monkeypatch: pytest.MonkeyPatch, chunk: int, indent: int
) -> None:
    monkeypatch.setattr(json_array, "_CHUNK", chunk)
    long: list[dict[str, object]] = [{"a": 'x\\"]}, ' * 500}, {"b": [[{"c": number}] for number in range(300)]}]
    texts = [orjson.dumps(row, option=indent) for row in (ROWS[2], long[0], ROWS[0], long[1], ROWS[2])]
    for found in (
        [*json_array.elements(io.BytesIO(b"[" + b",".join(texts) + b"]"), 200)],
        [*json_array.documents(io.BytesIO(b"\n".join(texts)), 200)],
    ):
        assert [len(one) > 200 for one in found] == [False, True, False, True, False]
        assert found[::2] == texts[::2]
        assert all(
            len(one) < 2 * 1000 and text.startswith(one.strip()[:100]) for one, text in zip(found, texts, strict=True)
        )


def test_a_first_line_with_an_array_of_other_values_is_one_unreadable_row(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b'[1, 2]\n{"text":"a"}\n')
    assert [row.unreadable is None for row in read(JsonlSource(tmp_path / "in"))] == [False, True]


def test_an_object_that_spans_lines_among_others_gets_the_conversion_command(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b'{\n{"text":"a"}\n' + orjson.dumps({"data": ROWS}, option=orjson.OPT_INDENT_2))
    first, second, *_ = read(JsonlSource(tmp_path / "in"))
    assert first.unreadable is not None
    assert "write each object on one line, as `jq -c .` does" in first.unreadable
    assert second.columns == {"text": "a"}


def test_an_empty_array_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"[ ]\n")
    assert read(JsonlSource(tmp_path / "in")) == []


# -- JSON in Parquet --------------------------------------------------------------------------------------------------

CELLS = ['"plain"', '[{"role":"user"}]', None, "null", '{"a":1.5}', "7"]
DECODED = ["plain", [{"role": "user"}], None, None, {"a": 1.5}, 7]


def as_json(values: list[object], kind: pa.DataType, json: pa.DataType) -> pa.Array:
    return pa.array(values, kind).cast(json)


@pytest.mark.parametrize("schema", [True, False])  # as written by Arrow and by DuckDB
def test_columns_of_logical_type_json_are_decoded_at_any_depth(tmp_path: Path, *, schema: bool) -> None:
    text, json = pa.string(), pa.json_()
    columns = {
        "cell": as_json(list(CELLS), text, json),
        "list": as_json([[cell] for cell in CELLS], pa.list_(text), pa.list_(json)),
        "large": as_json([[cell] for cell in CELLS], pa.large_list(text), pa.large_list(json)),
        "struct": as_json([{"a": cell} for cell in CELLS], pa.struct([("a", text)]), pa.struct([("a", json)])),
        "map": as_json([[("k", cell)] for cell in CELLS], pa.map_(text, text), pa.map_(text, json)),
        "none": as_json([None] * len(CELLS), pa.list_(text), pa.list_(json)),
        "text": pa.array(CELLS),
    }
    pq.write_table(pa.table(columns), tmp_path / "in", store_schema=schema)
    rows = [row.columns for row in read(ParquetSource(tmp_path / "in"))]
    for row, cell, value in zip(rows, CELLS, DECODED, strict=True):
        assert row == {
            "cell": value,
            "list": [value],
            "large": [value],
            "struct": {"a": value},
            "map": [["k", value]],
            "none": None,
            "text": cell,
        }


def test_a_cell_with_invalid_json_fails_its_row(tmp_path: Path) -> None:
    pq.write_table(pa.table({"chat": as_json(['"a"', "{broken", '"c"'], pa.string(), pa.json_())}), tmp_path / "in")
    reasons = [row.unreadable for row in read(ParquetSource(tmp_path / "in"))]
    assert reasons[0] is reasons[2] is None
    assert reasons[1] is not None
    assert reasons[1].startswith("row 2 has invalid JSON in column 'chat': ")


def test_python_rows_have_no_files() -> None:
    assert not isinstance(IterableSource([]), ports.ReadsFiles)
