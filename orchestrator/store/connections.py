"""How connections to a ledger are made and set up, and kept until they are needed again."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import anyio
from anyio import to_thread

from orchestrator.store.connection import AsyncConnection, Connection
from orchestrator.store.sqlite import DRIVER, WAL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from orchestrator.store.busy_timeout import BusyTimeout

T = TypeVar("T")


def connect(path: Path, busy_timeout: BusyTimeout, *, writer: bool, tidies: bool = False) -> Connection:
    """Open a ledger to write it, or only to read it. If it `tidies`, foreign keys are not enforced. Blocking.

    A tidying writer writes more than others, so it merges the log into the file in smaller steps. Transactions begin
    explicitly: a writer's with the write lock, a reader's without. A deferred transaction that reads and then writes
    fails at once with SQLITE_BUSY_SNAPSHOT whatever the timeout.
    """
    driver = DRIVER.connect(
        path,
        timeout=busy_timeout.at_a_time if writer else busy_timeout.seconds,
        isolation_level=None,
        check_same_thread=False,  # one at a time, but not always from the same worker thread
    )
    own = ["foreign_keys = OFF", "wal_autocheckpoint = 500"] if tidies else ["foreign_keys = ON"]

    def prepare() -> None:
        for pragma in [*_pragmas(writer=writer), *own]:
            driver.execute(f"PRAGMA {pragma}")

    try:
        if not writer:
            prepare()
            return Connection(driver, lambda: driver.execute("BEGIN"))
        busy_timeout.insist(prepare)  # auto_vacuum takes the lock
        return Connection(driver, lambda: busy_timeout.insist(lambda: driver.execute("BEGIN IMMEDIATE")))
    except BaseException:
        driver.close()
        raise


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


class Pool:
    """At most so many connections of one kind. Each is made when it is first needed, and then kept.

    Blocking calls are made in worker threads, which other work cannot use up.
    """

    def __init__(self, make: Callable[[], Connection], most: int) -> None:
        self._make = make
        self._idle: list[Connection] = []
        self._room = anyio.Semaphore(most, fast_acquire=True)
        self._threads = anyio.CapacityLimiter(math.inf)

    @property
    def idle(self) -> Connection | None:
        """A connection that is open and not in use, if there is one."""
        return self._idle[-1] if self._idle else None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed whole when the block ends, rolled back whole when it raises."""
        async with self._room:
            connection = await to_thread.run_sync(self._begun, limiter=self._threads)
            done = False
            try:
                yield AsyncConnection(connection, self._threads)
                done = True
            finally:
                await to_thread.run_sync(self._end, connection, done, limiter=self._threads)

    async def run(self, work: Callable[[Connection], T]) -> T:
        """One transaction of blocking calls, in a single trip to a worker thread."""

        def transaction() -> T:
            connection = self._begun()
            done = False
            try:
                found = work(connection)
                done = True
            finally:
                self._end(connection, done)
            return found

        async with self._room:
            return await to_thread.run_sync(transaction, limiter=self._threads)

    def close(self) -> None:
        """Close all connections. Blocking."""
        while self._idle:
            self._idle.pop().close()

    def _begun(self) -> Connection:
        connection = self._idle.pop() if self._idle else self._make()
        try:
            connection.begin()
        except BaseException:
            self._idle.append(connection)
            raise
        return connection

    def _end(self, connection: Connection, commit: bool) -> None:  # noqa: FBT001 - `run_sync` passes no names
        try:
            connection.end(commit=commit)
        finally:
            self._idle.append(connection)
