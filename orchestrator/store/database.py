"""One open ledger: a single writer, a few readers, and SQLite's errors in plain words."""

from __future__ import annotations

import math
import os
import re
import time
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote

import anyio
from anyio import to_thread

from orchestrator.domain.errors import LedgerError, LedgerLocked, OrchestratorError, PauseUnconfirmed, UsageError
from orchestrator.domain.group_commit import may_block
from orchestrator.store.busy_timeout import BusyTimeout
from orchestrator.store.connections import Pool, connect
from orchestrator.store.health import is_damaged
from orchestrator.store.ledger_file import LedgerFile
from orchestrator.store.lock_holders import lock_holders
from orchestrator.store.migrate import migrate
from orchestrator.store.private import create_private, is_there, make_private
from orchestrator.store.sqlite import DRIVER

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Callable, Iterator

    from orchestrator.store.connection import AsyncConnection, BlockingConnection

T = TypeVar("T")
# as SQLAlchemy reads them: a driver, a host and options may be named, and mean nothing
_URL = re.compile(r"(?P<kind>\w+)(\+\w+)?://[^/?]*(/(?P<path>[^?]*))?")
CORRUPT = "it is corrupt; restore a backup, or name another ledger with --db"
# What SQLite says -> what the user can do about it.
_LOCKED = "database is locked"
_REMEDIES = {
    "database or disk is full": "the disk is full; free some space and run the same command again, it continues",
    _LOCKED: "another process holds it; see `orchestrator runs`, or try again in a moment",
    "readonly database": "it cannot be written; check the permissions of the file and of its folder",
    "unable to open database": "it cannot be opened; check that its folder exists and can be written",
    "malformed": CORRUPT,
    "Could not decode to UTF-8": CORRUPT,
    "unsupported file format": CORRUPT,
    "not a database": "this file is not a ledger; name another one with --db",
    "disk I/O error": "the disk reports an error; check it (dmesg), then run the same command again",
}
# The processes that have opened a ledger and not closed it, once for each: this one, and in a fork also its parent,
# whose locks SQLite would then take for its own.
_USERS: list[int] = []
_FORKED = (
    "this process was forked while the process that forked it used a ledger, so it cannot use one: start it with "
    "multiprocessing's start method `spawn` or `forkserver`"
)


class Database:
    """The write connection and the read connections of one ledger file.

    Writes go one at a time and are shielded from cancellation: a statement cancelled in flight would keep SQLite's
    lock, and a cancelled commit may or may not have happened.
    """

    def __init__(self, path: Path, file: LedgerFile, busy_timeout: BusyTimeout) -> None:
        self.path = path
        self.real_path = file.real_path  # files kept beside the ledger are the same by any link to it
        self.busy_timeout = busy_timeout
        self._writer = Pool(partial(self._connect, writer=True), most=1)
        self._readers = Pool(partial(self._connect, writer=False), most=5)
        self._tidier = Pool(partial(self._connect, writer=True, tidies=True), most=1)
        self._lately = 0.0  # seconds that the last write in one trip took
        self._turn = anyio.Lock(fast_acquire=True)  # of this process, to write
        self._file = file

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str,
        *,
        busy_seconds: float = 30.0,
        create: bool = True,
        say: Callable[[str], None] = lambda _line: None,
    ) -> AsyncIterator[Database]:
        """Open the ledger at `sqlite:///PATH` or a plain path, upgraded first if need be, and private to this user.

        If there is no ledger, it is created, or `UsageError` is raised if `create` is false. `say` is called with a
        line, in any thread, while another process keeps a write waiting.
        """
        if any(pid != os.getpid() for pid in _USERS):
            raise UsageError(_FORKED)
        path = await to_thread.run_sync(ledger_path, url)
        busy_timeout = BusyTimeout(busy_seconds, lambda: say(f"waiting for {locked_words(path)}"))
        with plain_words(path):
            await to_thread.run_sync(partial(_make_ready, path, busy_timeout, create=create))
        opened = LedgerFile.open(path)
        file = await to_thread.run_sync(opened.__enter__)
        database = cls(path, file, busy_timeout)
        _USERS.append(os.getpid())
        try:
            try:
                yield database
            except Exception as error:
                await database._see_kept(error)
                raise
            await database._see_kept(None)
        finally:
            with anyio.CancelScope(shield=True):
                await database._close()
                _USERS.remove(os.getpid())
                await to_thread.run_sync(opened.__exit__, None, None, None)  # once SQLite needs its locks no more

    async def check_still_there(self) -> None:
        """Raise `LedgerError` if the ledger's file has been removed, replaced, or overwritten."""
        await to_thread.run_sync(self._file.check)

    def _connect(self, *, writer: bool, tidies: bool = False) -> BlockingConnection:
        """Connect, unless the file is gone: connecting would create a new one beside the shared log."""
        self._file.check()
        return connect(self.path, self.busy_timeout, writer=writer, tidies=tidies)

    async def _close(self) -> None:
        for pool in (self._readers, self._tidier, self._writer):
            await pool.close()

    async def _see_kept(self, error: Exception | None) -> None:
        """If the file that this process has written to is gone, save a copy beside it and say where.

        A removed file can be read completely until its last connection is closed.
        """
        with anyio.CancelScope(shield=True):
            try:
                await self.check_still_there()
            except LedgerError as gone:
                try:
                    kept = await self._rescued()
                except (OrchestratorError, DRIVER.Error, OSError) as failure:
                    message = f"{gone}; what was in it could not be kept ({failure}): restore a backup"
                else:
                    if kept is None and error is None:
                        raise
                    if kept is None:
                        return
                    message = f"{gone}; all that was in it is in {kept}: put that in its place, or name it with --db"
                raised = LedgerError(message)
                for note in getattr(error, "__notes__", ()):
                    raised.add_note(note)
                if isinstance(error, PauseUnconfirmed):
                    raised.add_note(str(error))
                raise raised from error

    async def _rescued(self) -> Path | None:
        """Copy what our writing connection sees, if we have written; a new connection would see another file.

        The copy goes into the current folder if the ledger's own folder is gone too. `LedgerError` if it is damaged.
        """
        writer = self._writer.idle
        if writer is None:
            return None
        copy = await to_thread.run_sync(_place_for_copy, self.path)
        with plain_words(copy):
            try:
                await to_thread.run_sync(writer.execute, "VACUUM INTO ?", (str(copy),))
            except DRIVER.Error:
                await to_thread.run_sync(copy.unlink)
                raise
        if await to_thread.run_sync(is_damaged, copy, math.inf):
            await to_thread.run_sync(copy.unlink)
            raise LedgerError("its pages are mixed with another's")
        return copy

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """One short transaction: committed whole when the block ends, rolled back whole when it raises."""
        with anyio.CancelScope(shield=True), plain_words(self.path):
            async with self._turn, self._writer.transaction() as connection:
                yield connection

    async def write_in_one_trip(self, work: Callable[[sqlite3.Connection], T], *, rows: float = math.inf) -> T:
        """One write transaction of blocking calls to the driver itself, in at most one trip to a worker thread.

        For the hot path: each trip waits for Python's interpreter lock beside a busy event loop. `rows`: about how many
        are written; `may_block` decides about the trip.
        """

        def transaction(connection: BlockingConnection) -> T:
            return work(connection.driver)

        with anyio.CancelScope(shield=True), plain_words(self.path):
            async with self._turn:
                begun = time.monotonic()
                here = self._writer.run_here(transaction) if may_block(rows, self._lately) else None
                done = here[0] if here is not None else await self._writer.run(transaction)
                self._lately = time.monotonic() - begun
        return done

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """One consistent view. Keep it short: while it is open, the write-ahead log cannot shrink."""
        with anyio.CancelScope(shield=True), plain_words(self.path):
            async with self._readers.transaction() as connection:
                yield connection

    async def read_in_one_trip(self, work: Callable[[BlockingConnection], T]) -> T:
        """One consistent view for blocking calls, in a single trip to a worker thread.

        For what clients of the HTTP server poll: three short statements cost a quarter of what they cost in `read`.
        """
        with anyio.CancelScope(shield=True), plain_words(self.path):
            found = await self._readers.run(work)
        return found  # noqa: RET504 - for mypy, a cancel scope may end the block early

    async def tidy(self, work: Callable[[BlockingConnection], T]) -> tuple[T, float]:
        """Run one write transaction of deletions; also return for how many seconds others had to wait for it.

        Foreign keys are not enforced in it, because deleting one run would mean looking at every member of all runs.
        Callers must delete whatever refers to a row before the row.
        """

        def timed(connection: BlockingConnection) -> tuple[T, float]:
            began = time.monotonic()
            return work(connection), time.monotonic() - began

        with anyio.CancelScope(shield=True), plain_words(self.path):
            async with self._turn:
                done = await self._tidier.run(timed)
        return done


def _place_for_copy(ledger: Path) -> Path:
    folder = ledger.parent if ledger.parent.is_dir() else Path.cwd()
    copy = folder / f"{ledger.name}.rescued-{os.getpid()}"
    create_private(copy)
    return copy


def locked_words(path: Path) -> str:
    """One phrase that says which processes keep a ledger locked."""
    holders = lock_holders(path) or ["another process"]
    return f"ledger {path}: it is held by {'; '.join(holders)}"


def ledger_path(url: str) -> Path:
    """The file behind `sqlite:///PATH` or a plain path. `UsageError` for anything else."""
    if "://" not in url:
        return Path(url).expanduser().absolute()
    parsed = _URL.match(url)
    if parsed is None:
        raise UsageError(f"ledger {url!r} is not a database URL; write sqlite:///PATH or just the path")
    kind, path = parsed["kind"], unquote(parsed["path"] or "")
    if kind != "sqlite" or path in {"", ":memory:"}:
        raise UsageError(f"ledger {url!r} is not a SQLite file; write sqlite:///PATH or just the path")
    return Path(path).expanduser().absolute()


def _make_ready(path: Path, busy_timeout: BusyTimeout, *, create: bool) -> None:
    if path.is_dir():
        raise UsageError(f"ledger {path}: this is a folder, not a ledger; name another one with --db")
    if not create and not is_there(path):
        raise UsageError(f"there is no ledger {path}: the first run makes it; or name another one with --db")
    make_private(path)
    with LedgerFile.open(path):
        migrate(path, busy_timeout)


@contextmanager
def plain_words(path: Path) -> Iterator[None]:
    """Turn SQLite's errors about the file into one line that names it and the remedy."""
    try:
        yield
    except DRIVER.DatabaseError as error:
        message = str(error)
        for phrase, remedy in _REMEDIES.items():
            if phrase in message:
                kind = LedgerLocked if phrase == _LOCKED else LedgerError
                raise kind(f"ledger {path}: {remedy}") from error
        raise
    except UnicodeDecodeError as error:  # SQLite's own message quotes what it found in the file
        raise LedgerError(f"ledger {path}: {CORRUPT}") from error
