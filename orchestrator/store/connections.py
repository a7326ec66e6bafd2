"""How connections to a ledger are made and set up: for one writer, for readers, for blocking work."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import aiosqlite
from sqlalchemy import URL, create_engine, event
from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_dbapi
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import QueuePool

from orchestrator.store.sqlite import DRIVER, WAL

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.engine import Connection, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

    from orchestrator.store.busy_timeout import BusyTimeout


def _aiosqlite_over_driver() -> object:
    """An aiosqlite look-alike whose connections come from DRIVER, for SQLAlchemy's `module=`."""

    def connect(database: str, **options: Any) -> aiosqlite.Connection:
        return aiosqlite.Connection(lambda: DRIVER.connect(database, **options), iter_chunk_size=64)

    names = ("DatabaseError", "Error", "IntegrityError", "NotSupportedError", "OperationalError", "ProgrammingError")
    errors = {name: getattr(DRIVER, name) for name in names}
    versions = {name: getattr(DRIVER, name) for name in ("sqlite_version", "sqlite_version_info")}
    shim = SimpleNamespace(connect=connect, Connection=aiosqlite.Connection, **errors, **versions)
    return AsyncAdapt_aiosqlite_dbapi(shim, DRIVER)  # type: ignore[arg-type]  # a namespace serves as a module


def make_engine(path: Path, *, writer: bool, busy_timeout: BusyTimeout) -> AsyncEngine:
    """An engine for a ledger file: one writing connection, or a few that only read."""
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


def make_blocking_engine(path: Path, busy_timeout: BusyTimeout, *, writer: bool = True, tidies: bool = False) -> Engine:
    """A writer, or a reader, for use in worker threads. If `tidies`, foreign keys are not enforced.

    A tidying writer writes more than others, so it merges the log into the file in smaller steps.
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
    _set_up(engine, busy_timeout, writer=writer, tidies=tidies)
    return engine


def _set_up(engine: Engine, busy_timeout: BusyTimeout, *, writer: bool, tidies: bool = False) -> None:
    """Begin transactions explicitly: a writer's with the write lock, a reader's without.

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
