"""Files as people's tools write them: read value by value, with no row lost for what nobody asks for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import orjson
import pytest

from orchestrator.sources import CsvSource, IterableSource, JsonlSource, TextSource, written_json
from tests.doors.test_sources import read

if TYPE_CHECKING:
    from pathlib import Path


# ------------------------------------------------------------------------------------------------------------ JSON


def test_what_is_no_number_in_json_is_null_wherever_it_stands(tmp_path: Path) -> None:
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
        (b'"\xed\xa0\xbd\xed\xb8\x80"', "\U0001f600"),  # as Java's modified UTF-8 has it
        (rb'{"\ud800": ["\ud800"], "big": 36893488147419103232}', {"\ufffd": ["\ufffd"], "big": 2**65}),
        (rb'"an escaped \\ud83d stays"', r"an escaped \ud83d stays"),
    ],
)
def test_half_a_surrogate_pair_is_one_replacement_character(written: bytes, read_as: object) -> None:
    assert written_json.loads(written) == read_as


@pytest.mark.parametrize("text", [b"nan", b"[1e999, NaN]", b"{'a': NaN}", b'"\xff"', b"[NaN,]", b"[" * 5000 + b"NaN"])
def test_other_faults_of_json_stay_faults(text: bytes) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        written_json.loads(text)


def test_half_a_surrogate_pair_in_a_row_of_python_is_replaced_too() -> None:
    (row,) = read(IterableSource([{"id": "a", "text": "cut \ud83d", "deep": [{"x": "\ud83d"}]}], id="id"))
    assert row.columns == {"id": "a", "text": "cut \ufffd", "deep": [{"x": "\ufffd"}]}


# ---------------------------------------------------------------------------------------------- joined by `cat a b`


def test_a_byte_order_mark_where_files_were_joined_is_no_content(tmp_path: Path) -> None:
    path = tmp_path / "both"
    path.write_bytes(b'\xef\xbb\xbf{"id":1}\r\n\xef\xbb\xbf{"id":2}\r\n\xef\xbb\xbf\n')
    assert [row.columns for row in read(JsonlSource(path))] == [{"id": 1}, {"id": 2}]
    path.write_bytes("\ufeffone\n\ufefftwo\ufeff\n".encode())
    assert [row.columns for row in read(TextSource(path))] == [{"text": "one"}, {"text": "two\ufeff"}]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16-le", "utf-16"])
def test_of_joined_csv_files_with_marks_the_second_header_is_no_row(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "both.csv"
    text = '\ufeff"id",text\r\n1,a\r\n\ufeff"id",text\r\n2,b\r\nid,text\r\n'
    path.write_bytes(text.encode("utf-8" if encoding == "utf-8-sig" else encoding))
    expected = [{"id": "1", "text": "a"}, {"id": "2", "text": "b"}, {"id": "id", "text": "text"}]
    assert [row.columns for row in read(CsvSource(path, id="id", encoding=encoding))] == expected


def test_a_mark_before_a_first_row_without_a_header_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "both.csv"
    path.write_bytes("\ufeffid,text\n1,a\n\ufeff2,b\n".encode())
    assert [row.id for row in read(CsvSource(path, id="id"))] == ["1", "2"]
