"""The rows that a query finds in a database file of SQLite or DuckDB."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from base64 import b64encode
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import chain
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Any

from orchestrator.domain.errors import UsageError
from orchestrator.domain.item import Row
from orchestrator.domain.location import Location, is_location
from orchestrator.sources.columns import check_header, identified
from orchestrator.sources.pattern import same_files
from orchestrator.sources.reading import absolute, opened, reading

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_ROWS = 1000  # fetched at a time
_COPY = 1 << 20  # bytes
_WAIT = 30.0  # seconds for another program's write
_DUCKDB = frozenset({".duckdb", ".ddb"})
_READS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE})
# What virtual tables (`json_each`, full text) ask for while they are opened. Doing it fails, as the file is read-only.
_DECLARES = frozenset({sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE})


@dataclass(frozen=True, slots=True)
class QuerySource:
    """The rows of a query over an SQLite or DuckDB file, read as a stream, in the order in which the query has them.

    The query can only read. `parameters`: the values of its placeholders, in order or by name. Values from DuckDB are
    as in `ParquetSource`; those from SQLite are as stored, with bytes as base64; a row with text
    that is not UTF-8 is unreadable. The rows are those of one moment,
    whatever other programs write meanwhile. A location (`s3://bucket/mails.db`) is copied to a temporary file for each
    reading, because a query reads here and there in its database.
    """

    query: str
    database: str | Path
    parameters: Sequence[object] | Mapping[str, object] = ()
    id: str | None = None

    def __post_init__(self) -> None:
        elsewhere = is_location(self.database)
        if "://" in str(self.database) and not elsewhere:
            raise UsageError(
                "QuerySource reads SQLite and DuckDB files, not URLs: use a function that returns the rows"
            )
        if isinstance(self.parameters, str | bytes):
            raise UsageError("the parameters of a query are a list, or a dict of values by name")
        object.__setattr__(self, "database", Location(self.database) if elsewhere else absolute(self.database))

    @contextmanager
    def rows(self) -> Iterator[Iterator[Row]]:
        """Execute the query and yield its rows in order."""
        with self._file() as path, _of_duckdb(self, path) if self._is_duckdb(path) else _of_sqlite(self, path) as rows:
            yield rows

    def sha256(self) -> None:
        """Return None, because only reading the rows can tell. Raises `UsageError` if a local file cannot be read."""
        if not isinstance(self.database, Location):
            self._check()

    def describe(self) -> str:
        """Return the path of the file, or its location."""
        return str(self.database)

    def reads(self, paths: Sequence[Path]) -> list[Path]:
        """Return those of the paths that lead to the file, by any name or link, or would if it existed."""
        return [] if isinstance(self.database, Location) else same_files(Path(self.database), paths)

    def reads_objects(self, locations: Sequence[Location]) -> list[Location]:
        """Return those of the locations that lead to the file."""
        return [one for one in locations if one == self.database]

    @contextmanager
    def _file(self) -> Iterator[Path]:
        """Yield the path of the file, or of a copy of what is at the location."""
        if not isinstance(self.database, Location):
            yield self._check()
            return
        with TemporaryDirectory() as folder:  # SQLite may write files beside the copy
            path = Path(folder, Path(self.database.key).name)
            try:
                with opened(self.database) as file, path.open("wb") as copy:
                    shutil.copyfileobj(file, copy, _COPY)
            except OSError as failure:  # the disk's; those of the store are translated
                raise UsageError(
                    f"{self.database} cannot be copied to {gettempdir()} ({failure.strerror or failure}): free some "
                    "space there, or set TMPDIR to another folder"
                ) from failure
            yield path

    def _check(self) -> Path:
        """Return the path of the file. It is not opened: closing it would end the locks that this process has on it."""
        path = Path(self.database)
        with reading(path):
            mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise UsageError(f"{path} is not a file: give the path of an SQLite or DuckDB file")
        return path

    def _is_duckdb(self, path: Path) -> bool:
        if path.suffix.lower() in _DUCKDB:
            return True
        with _sqlite_words(self), closing(_connected(path)) as connection:
            try:
                connection.execute("PRAGMA schema_version").fetchone()
            except sqlite3.DatabaseError as failure:
                if failure.sqlite_errorname != "SQLITE_NOTADB":
                    raise
                return True
        return False


# -- SQLite ------------------------------------------------------------------------------------------------------------


@contextmanager
def _of_sqlite(source: QuerySource, path: Path) -> Iterator[Iterator[Row]]:
    with closing(_connected(path)) as connection:
        with _sqlite_words(source):
            cursor = connection.execute(source.query, source.parameters)
        if cursor.description is None:
            raise UsageError(_NO_ROWS.format(path=source.database))
        names = [column[0] for column in cursor.description]
        check_header(f"the query of {source.database}", names, source.id)
        yield _fetched(source, cursor, names)


def _fetched(source: QuerySource, cursor: sqlite3.Cursor, names: Sequence[str]) -> Iterator[Row]:
    with _sqlite_words(source):
        rows = chain.from_iterable(iter(lambda: cursor.fetchmany(_ROWS), []))
        for number, row in enumerate(rows, 1):
            columns = dict(zip(names, map(_value, row), strict=True))
            if (name := next((name for name, value in columns.items() if type(value) is _Undecoded), None)) is None:
                yield identified(columns, source.id, "row", number)
            else:
                why = f"row {number} has text that is not valid UTF-8 in column {name!r}"
                yield Row({"row": number, "raw": str(columns[name])[:500]}, unreadable=why)


class _Undecoded(str):
    """Text that is not UTF-8, as far as it can be shown. SQLite stores any bytes as text."""

    __slots__ = ()


def _text(stored: bytes) -> str:
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return _Undecoded(stored.decode(errors="replace"))


def _connected(path: Path) -> sqlite3.Connection:
    """Connect so that nothing can be written: neither to this database nor, with ATTACH or VACUUM INTO, to another."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=_WAIT, check_same_thread=False)
    connection.text_factory = _text
    connection.set_authorizer(_only_reading)
    return connection


def _only_reading(action: int, _first: str | None, value: str | None, *_: str | None) -> int:
    allowed = action in _READS | _DECLARES or (action == sqlite3.SQLITE_PRAGMA and value is None)
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _value(value: Any) -> object:
    if isinstance(value, bytes):
        return b64encode(value).decode()
    return None if isinstance(value, float) and not isfinite(value) else value


@contextmanager
def _sqlite_words(source: QuerySource) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning) as failure:  # a second statement is a warning
        raise UsageError(_failed(source, str(failure))) from failure


# -- DuckDB ------------------------------------------------------------------------------------------------------------


@contextmanager
def _of_duckdb(source: QuerySource, path: Path) -> Iterator[Iterator[Row]]:
    try:
        duckdb = import_module("duckdb")
    except ImportError as failure:
        raise UsageError(f"{source.database} needs DuckDB: pip install duckdb") from failure
    arrow = import_module("orchestrator.sources.arrow")
    try:
        with closing(duckdb.connect(str(path), read_only=True)) as connection:
            statements = connection.extract_statements(source.query)
            if [one.type for one in statements] != [duckdb.StatementType.SELECT]:  # COPY would write another file
                raise UsageError(_NO_ROWS.format(path=source.database))
            relation = connection.sql(source.query, params=source.parameters or None)
            name = f"query of {source.database}"
            with arrow.table_rows(relation, source.id, decodes_json=True, name=name) as rows:
                yield rows
    except duckdb.Error as failure:
        raise UsageError(_failed(source, str(failure))) from failure


# -- messages ----------------------------------------------------------------------------------------------------------

_NO_ROWS = "{path}: the query is not a single SELECT: write one that returns rows"
# What the libraries say -> what the user can do about it.
_REMEDIES = {
    "database is locked": "another program is writing to it; try again, or switch it to a write-ahead log",
    "Could not set lock": "another program has it open for writing; close that, or copy the file",
    "different configuration": "this program has it open for writing; close that connection",
    "not a valid DuckDB": "give the path of an SQLite or DuckDB file",
    "in-memory database": "give the path of an SQLite or DuckDB file",  # what DuckDB says of a text file
    "bindings supplied": "give `parameters` a value for each placeholder",
    "value for binding": "give `parameters` a value for each placeholder",
    "following parameters": "give `parameters` a value for each placeholder",
    "unable to open": "check the permissions of the file and of its folder",
    "disk I/O error": "check the disk",
    "malformed": "the file is damaged; restore it",
    "authoriz": "a query can only read",
    "readonly database": "a query can only read",
}


def _failed(source: QuerySource, why: str) -> str:
    first, _, _ = why.partition("\n")
    remedy = next((remedy for phrase, remedy in _REMEDIES.items() if phrase in why), "correct the query")
    return f"{source.database} cannot be queried ({first}): {remedy}"
