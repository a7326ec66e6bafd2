"""Which SQLite we run on, and how its connections are set up.

Libraries from 3.7.0 to 3.51.2 carry the "WAL-reset" corruption bug (sqlite.org/wal.html, "The WAL-Reset Bug"; fixed in
3.51.3, and in 3.50.7 and 3.44.6 of the older series). Two writing processes can lose committed pages with it, so it
decides which library is used, and whether the ledger may use a write-ahead log at all.
"""

from __future__ import annotations

import sqlite3
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import aiosqlite
from sqlalchemy import URL, create_engine, event
from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_dbapi
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import QueuePool

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from sqlalchemy.engine import Connection, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

    from orchestrator.store.busy_timeout import BusyTimeout

_FIXED: Final = ((3, 51, 3), (3, 50, 7), (3, 44, 6))


def wal_is_safe(version: tuple[int, ...]) -> bool:
    """Whether this SQLite version is free of the WAL-reset bug."""
    if version < (3, 7, 0) or version >= _FIXED[0]:
        return True
    return any(version[:2] == fixed[:2] and version >= fixed for fixed in _FIXED)


def _best_driver() -> ModuleType:
    """The standard library's where it is sound, else the wheel that carries its own SQLite."""
    if wal_is_safe(sqlite3.sqlite_version_info):
        return sqlite3
    try:
        from pysqlite3 import dbapi2  # noqa: PLC0415 - only where it is needed
    except ImportError:
        return sqlite3
    return dbapi2 if wal_is_safe(dbapi2.sqlite_version_info) else sqlite3


DRIVER: Final[Any] = _best_driver()
WAL: Final = wal_is_safe(DRIVER.sqlite_version_info)
# the bytes of a text, known without reading all of it; older libraries have to read it
OCTETS: Final = "octet_length" if DRIVER.sqlite_version_info >= (3, 43, 0) else "length"


def total(column: str) -> str:
    """SQL for a sum of whole numbers that may be absurd: NULL where all are NULL, at most 2**63 - 1, never an error."""
    return f"CAST(sum(1.0 * {column}) AS INTEGER)"


def describe() -> str:
    """One phrase for the start-up line: version, where it comes from, journal mode."""
    origin = "standard library" if DRIVER is sqlite3 else "pysqlite3"
    mode = "write-ahead log" if WAL else "safe mode: rollback journal, because this version can corrupt a WAL"
    return f"SQLite {DRIVER.sqlite_version} ({origin}, {mode})"


def _aiosqlite_over_driver() -> object:
    """An aiosqlite look-alike whose connections come from DRIVER, for SQLAlchemy's `module=`."""

    def connect(database: str, **options: Any) -> aiosqlite.Connection:  # noqa: ANN401 - passed on to the driver
        return aiosqlite.Connection(lambda: DRIVER.connect(database, **options), iter_chunk_size=64)

    names = ("DatabaseError", "Error", "IntegrityError", "NotSupportedError", "OperationalError", "ProgrammingError")
    errors = {name: getattr(DRIVER, name) for name in names}
    versions = {name: getattr(DRIVER, name) for name in ("sqlite_version", "sqlite_version_info")}
    shim = SimpleNamespace(connect=connect, Connection=aiosqlite.Connection, **errors, **versions)
    return AsyncAdapt_aiosqlite_dbapi(shim, DRIVER)  # type: ignore[arg-type]  # a namespace serves as a module


def make_engine(path: Path, *, writer: bool, busy_timeout: BusyTimeout) -> AsyncEngine:
    """The engine of a ledger file: one connection that writes, or a few that only read."""
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=str(path)),
        module=_aiosqlite_over_driver(),
        pool_size=1 if writer else 4,
        max_overflow=0,
        pool_reset_on_return=None,  # every transaction here ends with its block
        connect_args={"timeout": busy_timeout.at_a_time if writer else busy_timeout.seconds, "isolation_level": None},
    )
    _set_up(engine.sync_engine, busy_timeout, writer=writer)
    return engine


def make_blocking_engine(path: Path, busy_timeout: BusyTimeout, *, tidies: bool = False) -> Engine:
    """A writer for use in a worker thread. One that `tidies` has foreign keys not enforced.

    It folds the log into the file a little at a time, since it writes more than anybody else.
    """
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        module=DRIVER,
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        pool_reset_on_return=None,
        # one at a time, but not always from the same worker thread
        connect_args={"timeout": busy_timeout.at_a_time, "isolation_level": None, "check_same_thread": False},
    )
    _set_up(engine, busy_timeout, writer=True, tidies=tidies)
    return engine


def _set_up(engine: Engine, busy_timeout: BusyTimeout, *, writer: bool, tidies: bool = False) -> None:
    """Make transactions begin at once as what they are: the writer's with the write lock, a reader's without.

    A deferred transaction that reads and then writes fails at once with SQLITE_BUSY_SNAPSHOT whatever the time-out.
    """
    own = ["foreign_keys = OFF", "wal_autocheckpoint = 500"] if tidies else ["foreign_keys = ON"]
    pragmas = [*_pragmas(writer=writer), *own]

    def prepare(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()

        def tell() -> None:
            for pragma in pragmas:
                cursor.execute(f"PRAGMA {pragma}")

        if writer:
            busy_timeout.insist(tell)  # auto_vacuum takes the lock
        else:
            tell()
        cursor.close()

    def begin(connection: Connection) -> None:
        if writer:
            busy_timeout.insist(lambda: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        else:
            connection.exec_driver_sql("BEGIN")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)


def _pragmas(*, writer: bool) -> list[str]:
    common = ["temp_store = MEMORY", "cache_size = -16384"]
    if not writer:
        return [*common, "query_only = ON"]
    return [
        "page_size = 8192",  # these two count only when the file is created
        "auto_vacuum = INCREMENTAL",
        f"journal_mode = {'WAL' if WAL else 'DELETE'}",
        # as fast as NORMAL with group commit, and survives a power cut; a rollback journal's deletion, which is what
        # commits, is on disk only with EXTRA
        f"synchronous = {'FULL' if WAL else 'EXTRA'}",
        "journal_size_limit = 67108864",
        "wal_autocheckpoint = 4000",
        "secure_delete = OFF",
        *common,
    ]
