"""Queries of SQLite and DuckDB files: typed values as a stream, from a connection that cannot write."""

from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
import tracemalloc
from contextlib import closing
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from orchestrator.domain.errors import UsageError
from orchestrator.sources import ParquetSource, QuerySource
from orchestrator.testing import FileSourceConformance
from orchestrator.testing.assertions import assert_one_line
from orchestrator.testing.sources import read

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from orchestrator import ports

QUERY = "SELECT id, text FROM texts ORDER BY id"
TYPED = """
SELECT 1::TINYINT AS i, 2::HUGEINT AS h, 1.50::DECIMAL(5, 2) AS d, DATE '2024-01-02' AS day,
       TIMESTAMPTZ '2024-01-02 03:04:05+01' AS at, 'ab'::BLOB AS b, [1, NULL] AS l, {'x': [true]} AS s,
       MAP(['k'], [1]) AS m, '{"a": [1]}'::JSON AS j, [{'y': '"z"'::JSON}] AS deep, 'nan'::DOUBLE AS n,
       INTERVAL 2 MONTH AS v, NULL AS nothing, '9f0a8b6e-3c6f-4f2d-9c64-0c9ed0d7f2f1'::UUID AS u
"""


def in_sqlite(path: Path, *statements: str, rows: Sequence[Sequence[object]] = ()) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements or ("CREATE TABLE texts (id INTEGER, text)",):
            connection.execute(statement)
        connection.executemany("INSERT INTO texts VALUES (?, ?)", rows)
        connection.commit()
    return path


def in_duckdb(path: Path, *statements: str, rows: Sequence[Sequence[object]] = ()) -> Path:
    with duckdb.connect(path) as connection:
        for statement in statements or ("CREATE TABLE texts (id INTEGER, text TEXT)",):
            connection.execute(statement)
        if rows:
            connection.executemany("INSERT INTO texts VALUES (?, ?)", rows)
    return path


every_database = pytest.mark.parametrize("make", [in_sqlite, in_duckdb])


class TestSqlite(FileSourceConformance):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        return QuerySource(QUERY, in_sqlite(folder / "in.db", rows=list(enumerate(texts))), id="id")


class TestDuckDb(FileSourceConformance):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        return QuerySource(QUERY, in_duckdb(folder / "in.db", rows=list(enumerate(texts))), id="id")


def test_a_row_with_text_of_sqlite_that_is_not_utf_8_is_unreadable(tmp_path: Path) -> None:
    path = in_sqlite(tmp_path / "in.db", "CREATE TABLE texts (id, text)", "INSERT INTO texts VALUES (1, 'one')")
    in_sqlite(path, "INSERT INTO texts VALUES (2, CAST(x'636166e9' AS TEXT)), (CAST(x'e8' AS TEXT), 'three')")
    first, *others = read(QuerySource("SELECT id, text FROM texts", path, id="id"))
    assert first.columns == {"id": 1, "text": "one"}
    assert [row.unreadable for row in others] == [
        "row 2 has text that is not valid UTF-8 in column 'text'",
        "row 3 has text that is not valid UTF-8 in column 'id'",
    ]
    assert others[0].columns == {"row": 2, "raw": "caf\ufffd"}


@every_database
@pytest.mark.parametrize(
    ("condition", "parameters"),
    [("id > ? AND text <> ?", [0, "c"]), ("id > $low AND text <> $no", {"low": 0, "no": "c"})],
)
def test_parameters_are_given_in_order_or_by_name(
    make: Callable[..., Path], condition: str, parameters: Any, tmp_path: Path
) -> None:
    path = make(tmp_path / "in.db", rows=list(enumerate("abc")))
    rows = read(QuerySource(f"SELECT * FROM texts WHERE {condition}", path, parameters, id="id"))
    assert [(row.id, row.given_id, row.columns) for row in rows] == [("1", 1, {"id": 1, "text": "b"})]


def test_values_of_sqlite_are_as_stored(tmp_path: Path) -> None:
    values = [2**63 - 1, 0.5, math.inf, "é\0x", b"\xff", None, "2024-01-02", "[1]"]
    path = in_sqlite(tmp_path / "in.db", rows=list(enumerate(values)))
    found = [row.columns["text"] for row in read(QuerySource(QUERY, path))]
    assert found == [2**63 - 1, 0.5, None, "é\0x", "/w==", None, "2024-01-02", "[1]"]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT value AS text FROM json_each('[\"a b\"]')",
        "SELECT text FROM words WHERE words MATCH 'b'",
        "SELECT 'a b' AS text FROM boxes WHERE low < 1",
    ],
)
def test_virtual_tables_of_sqlite_are_read(query: str, tmp_path: Path) -> None:
    path = in_sqlite(
        tmp_path / "in.db",
        "CREATE TABLE texts (id INTEGER, text)",
        "CREATE VIRTUAL TABLE words USING fts5(text)",
        "INSERT INTO words VALUES ('a b')",
        "CREATE VIRTUAL TABLE boxes USING rtree(id, low, high)",
        "INSERT INTO boxes VALUES (1, 0, 1)",
    )
    assert [row.columns for row in read(QuerySource(query, path))] == [{"text": "a b"}]


def test_values_of_duckdb_are_those_of_its_parquet_files(tmp_path: Path) -> None:
    path = in_duckdb(tmp_path / "in.duckdb", f"CREATE TABLE typed AS {TYPED}")
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT * EXCLUDE (h) FROM ({TYPED})) TO '{tmp_path / 'in.parquet'}'")
    (row,) = read(QuerySource("FROM typed", path))
    assert row.columns["h"] == "2"
    (expected,) = read(ParquetSource(tmp_path / "in.parquet"))
    assert {name: value for name, value in row.columns.items() if name != "h"} == expected.columns


@every_database
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO texts VALUES (9, 'x') RETURNING id, text",
        "DELETE FROM texts",
        "UPDATE texts SET text = 'x'",
        "REPLACE INTO texts VALUES (9, 'x')",
        "CREATE TABLE more (id INTEGER)",
        "CREATE TEMP TABLE more AS SELECT 1 AS id",
        "ATTACH '{folder}/other.db' AS other",
        "VACUUM INTO '{folder}/other.db'",
        "COPY texts TO '{folder}/other.db'",
        "SELECT 1 AS id; DELETE FROM texts",
        "PRAGMA user_version = 5",
        "",
    ],
)
def test_a_query_can_only_read(make: Callable[..., Path], statement: str, tmp_path: Path) -> None:
    path = make(tmp_path / "in.db", rows=[(1, "a")])
    before = path.read_bytes()
    with pytest.raises(UsageError) as failure:
        read(QuerySource(statement.format(folder=tmp_path), path))
    assert_one_line(failure, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@every_database
@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT nothing FROM texts", "nothing"),
        ("SELECT id, id FROM texts", "the query of .* names the column 'id' twice: rename one"),
        ("SELECT text FROM texts", "has no column 'id' for the id"),
        ("SELECT * FROM texts WHERE id = ?", "give `parameters` a value for each placeholder"),
        ("SELECT * FROM texts WHERE id = $id", "give `parameters` a value for each placeholder"),
        ("SELEC", "correct the query"),
    ],
)
def test_a_mistake_in_a_query_is_one_line(make: Callable[..., Path], query: str, said: str, tmp_path: Path) -> None:
    path = make(tmp_path / "in.db", rows=[(1, "a")])
    with pytest.raises(UsageError, match=said) as failure:
        read(QuerySource(query, path, id="id"))
    assert "\n" not in str(failure.value)


def test_a_file_of_another_kind_and_a_url_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(UsageError, match="give the path of an SQLite or DuckDB file"):
        read(QuerySource(QUERY, tmp_path / "in.jsonl"))
    (tmp_path / "in.db").write_bytes(b"id,text\n" * 1000)
    with pytest.raises(
        UsageError, match=r"not a valid DuckDB database file!\): give the path of an SQLite or DuckDB file"
    ):
        read(QuerySource(QUERY, tmp_path / "in.db"))
    with pytest.raises(UsageError, match="files, not URLs") as failure:
        QuerySource(QUERY, "postgresql://user:password@host/db")
    assert "password" not in str(failure.value)
    with pytest.raises(UsageError, match="a list, or a dict"):
        QuerySource(QUERY, "in.db", "abc")


def test_a_database_that_another_program_writes_is_read_at_one_moment(tmp_path: Path) -> None:
    path = in_sqlite(
        tmp_path / "in.db",
        "PRAGMA journal_mode = WAL",
        "CREATE TABLE texts (id INTEGER PRIMARY KEY, text)",
        rows=[(number, "a") for number in range(3000)],
    )
    with closing(sqlite3.connect(path)) as writer, QuerySource(QUERY, path).rows() as rows:
        first = next(rows)
        writer.execute("UPDATE texts SET text = 'changed'")
        writer.commit()
        assert {row.columns["text"] for row in (first, *rows)} == {"a"}
        assert {row.columns["text"] for row in read(QuerySource(QUERY, path))} == {"changed"}  # only in the log so far


_HELD = """
import sys, duckdb
with duckdb.connect(sys.argv[1]):
    print("open", flush=True)
    sys.stdin.read()
"""


def test_a_duckdb_file_that_another_program_has_open_is_named(tmp_path: Path) -> None:
    path = in_duckdb(tmp_path / "in.duckdb")
    command = [sys.executable, "-c", _HELD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(UsageError, match="another program has it open for writing") as failure:
            read(QuerySource(QUERY, path))
        assert_one_line(failure, path)
        other.communicate()
    assert read(QuerySource(QUERY, path)) == []


def test_duckdb_is_asked_for_if_it_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = in_duckdb(tmp_path / "in.duckdb")
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(UsageError, match=r"in\.duckdb needs DuckDB: pip install duckdb"):
        read(QuerySource(QUERY, path))


def test_many_rows_of_sqlite_need_little_memory(tmp_path: Path) -> None:
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000)"
    query = f"{numbers} SELECT i, hex(zeroblob(100)) AS text FROM n"
    source = QuerySource(query, in_sqlite(tmp_path / "in.db"))
    with source.rows() as rows:
        next(rows)
        tracemalloc.start()
        assert sum(1 for _ in rows) == 49_999
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 3_000_000
