"""Whether the ledger has changed, for one PRAGMA: for whoever watches it without end."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from orchestrator.store.database import plain_words
from orchestrator.store.sqlite import DRIVER

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator
    from pathlib import Path

    from orchestrator.store.database import Database


class Changes:
    """Looks whether any process has committed something: SQLite counts what other connections commit."""

    def __init__(self, connection: sqlite3.Connection, ledger: Path) -> None:
        self._connection = connection
        self._ledger = ledger
        self._version: int | None = None

    @classmethod
    @asynccontextmanager
    async def watch(cls, database: Database) -> AsyncIterator[Changes]:
        """Open a connection of its own, which sees commits of this process, too."""
        await database.check_still_there()
        with plain_words(database.path):
            connection = await to_thread.run_sync(_connect, database.path)
        try:
            yield cls(connection, database.path)
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(connection.close)

    async def seen(self) -> bool:
        """Whether anything was committed since the last call. The first call returns True."""
        with plain_words(self._ledger):
            version = await to_thread.run_sync(self._data_version)
        changed, self._version = version != self._version, version
        return changed

    def _data_version(self) -> int:
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return int(version)


def _connect(ledger: Path) -> sqlite3.Connection:
    connect = partial(DRIVER.connect, isolation_level=None, check_same_thread=False)  # one thread at a time
    connection: sqlite3.Connection = connect(ledger)
    connection.execute("PRAGMA query_only = ON")
    return connection
