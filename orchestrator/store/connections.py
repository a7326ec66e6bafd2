"""How connections to a ledger are made and set up, and kept until they are needed again."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

import aiosqlite
import anyio
from anyio import to_thread

from orchestrator.store.connection import AsyncConnection, BlockingConnection
from orchestrator.store.sqlite import DRIVER, WAL

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from orchestrator.store.busy_timeout import BusyTimeout

T = TypeVar("T")


def connect(path: Path, busy_timeout: BusyTimeout, *, writer: bool, tidies: bool = False) -> BlockingConnection:
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

    def begin_at_once() -> bool:
        driver.execute("PRAGMA busy_timeout = 0")
        try:
            driver.execute("BEGIN IMMEDIATE")
        except DRIVER.OperationalError:  # locked, or a problem that shows again where a transaction waits for the lock
            return False
        finally:
            driver.execute(f"PRAGMA busy_timeout = {round(busy_timeout.at_a_time * 1000)}")
        return True

    try:
        if not writer:
            prepare()
            return BlockingConnection(driver, lambda: driver.execute("BEGIN"))
        busy_timeout.insist(prepare)  # auto_vacuum takes the lock
        begin = partial(busy_timeout.insist, lambda: driver.execute("BEGIN IMMEDIATE"))
        # with a rollback journal, a commit also waits: for readers
        return BlockingConnection(driver, begin, begin_at_once) if WAL else BlockingConnection(driver, begin)
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
    """At most so many connections of one kind, each made when it is first needed, and then kept.

    A transaction either makes blocking calls in one trip to a worker thread, or is one of coroutines, whose connection
    gets a thread of its own from aiosqlite. Other work cannot use up the threads.
    """

    def __init__(self, make: Callable[[], BlockingConnection], most: int) -> None:
        self._make = make
        self._idle: list[_Opened] = []
        self._room = anyio.Semaphore(most, fast_acquire=True)
        self._threads = anyio.CapacityLimiter(math.inf)

    @property
    def idle(self) -> BlockingConnection | None:
        """A connection that is open and not in use, if there is one."""
        return self._idle[-1].blocking if self._idle else None

    async def run(self, work: Callable[[BlockingConnection], T]) -> T:
        """One transaction: committed whole when `work` returns, rolled back whole when it raises."""

        def transaction() -> T:
            opened = self._idle.pop() if self._idle else _Opened(self._make())
            try:
                with opened.blocking.transaction():
                    return work(opened.blocking)
            finally:
                self._idle.append(opened)

        async with self._room:
            return await to_thread.run_sync(transaction, limiter=self._threads)

    def run_here(self, work: Callable[[BlockingConnection], T]) -> tuple[T] | None:
        """One transaction on the calling thread; None, with nothing done, if that would mean waiting for a lock."""
        if (connection := self.idle) is None or not connection.begin_at_once():
            return None
        done = False
        try:
            found = work(connection)
            done = True
        finally:
            connection.end(commit=done)
        return (found,)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed whole when the block ends, rolled back whole when it raises."""
        async with self._room:
            opened = self._idle.pop() if self._idle else _Opened(await self._in_thread(self._make))
            done = False
            try:
                connection = await opened.for_coroutines()
                await self._in_thread(opened.blocking.begin)
                yield connection
                done = True
            finally:
                try:
                    await self._in_thread(partial(opened.blocking.end, commit=done))
                finally:
                    self._idle.append(opened)

    async def close(self) -> None:
        """Close all connections and end their threads."""
        while self._idle:
            await self._idle.pop().close()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await to_thread.run_sync(call, limiter=self._threads)


class _Opened:
    """A connection for blocking calls, and the same one for coroutines once they need it."""

    def __init__(self, blocking: BlockingConnection) -> None:
        self.blocking = blocking
        self._threaded: aiosqlite.Connection | None = None

    async def for_coroutines(self) -> AsyncConnection:
        if self._threaded is None:
            driver = cast("sqlite3.Connection", self.blocking.driver)
            self._threaded = await aiosqlite.Connection(lambda: driver, iter_chunk_size=64)
        return AsyncConnection(self._threaded)

    async def close(self) -> None:
        if self._threaded is None:
            await to_thread.run_sync(self.blocking.close)
        else:
            await self._threaded.close()
