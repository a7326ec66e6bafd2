"""Copies of a ledger: a backup while others write, and a compacted copy in its place while unused. Blocking."""

from __future__ import annotations

import glob
import os
import shutil
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from orchestrator.domain.errors import LedgerError, UsageError
from orchestrator.domain.failpoints import reached
from orchestrator.domain.local_path import local_path
from orchestrator.store.blobs import Blobs
from orchestrator.store.files import IN_USE
from orchestrator.store.private import create_private
from orchestrator.store.sqlite import DRIVER, WAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PAGES = 2000  # copied per step; Ctrl-C takes effect between steps
_INSTRUCTIONS = 1_000_000  # of SQLite's virtual machine between two calls of `pulse`
_ASIDE = ".partial-"  # and the process that writes it
_ROOM = 1.05  # of what a copy holds: it has to fit beside the ledger


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy: where it is, and the bytes of the original and of the copy. `files`: contents that were copied too."""

    path: Path
    before: int
    after: int
    files: int = 0


def back_up(ledger: Path, copy: Path, *, force: bool, pulse: Callable[[], None] = lambda: None) -> Copied:
    """Write a copy of the ledger as it stands now; others go on writing, and the copy appears whole or not at all.

    Contents of files and batches that it names are copied first, into the folder `COPY.files` beside it.

    `pulse` is called repeatedly, and may raise to stop the copy. `UsageError` if the copy exists, unless forced, or
    would be the ledger itself; `LedgerError` if it cannot be written or read back.
    """
    _check_ledger(ledger)
    copy = Path(os.path.abspath(local_path(copy)))
    if copy.exists() and not force:
        raise UsageError(f"{copy} is there already; name another file, or replace it with --force")
    if copy.exists() and copy.samefile(ledger):
        raise UsageError(f"{copy} is the ledger itself; name another file")
    with _aside(copy) as aside, closing(_opened(ledger)) as source:
        _need_room(copy.parent, _bytes_in_use(source))
        _copy(source, aside, pulse)
        _check(aside)
        files = Blobs(ledger.resolve()).copy_to(Blobs(copy), _contents(aside), pulse)
        _put_in_place(aside, copy, force=force)
    return Copied(copy, ledger.stat().st_size, copy.stat().st_size, files)


def compact(ledger: Path, *, pulse: Callable[[], None] = lambda: None) -> Copied:
    """Replace the ledger by a copy without free pages. If killed at any point, either file is left complete.

    `pulse` as in `back_up`. `LedgerError` if the ledger is in use, or if the disk has no room for both.
    """
    _check_ledger(ledger)
    ledger = ledger.resolve()  # where it is a link, the file that it points to is replaced
    with closing(_opened(ledger)) as source:
        _keep_others_out(source, ledger)
        with _aside(ledger) as aside:  # nobody else can be writing one beside this ledger: we have it alone
            before = ledger.stat().st_size
            _need_room(ledger.parent, _bytes_in_use(source))
            _vacuum(source, aside, pulse)
            _check(aside)
            shutil.copymode(ledger, aside)
            _put_in_place(aside, ledger, force=True)
        # Other processes may connect only now. One that waited finds its file replaced, and gets an error that says so.
    return Copied(ledger, before, ledger.stat().st_size)


def _contents(ledger: Path) -> list[str]:
    """Return the hashes of the contents that a ledger names; older versions had none."""
    with closing(_opened(ledger)) as connection:
        tables = "SELECT count(*) FROM sqlite_master WHERE name IN ('file', 'upload_part', 'batch')"
        if connection.execute(tables).fetchone() != (3,):
            return []
        return [sha256 for (sha256,) in connection.execute(IN_USE)]


def _check_ledger(ledger: Path) -> None:
    if not ledger.is_file():
        raise UsageError(f"there is no ledger {ledger}")


def _opened(ledger: Path) -> Any:
    """Connect with `isolation_level=None`: transactions are explicit here."""
    return DRIVER.connect(ledger, isolation_level=None, timeout=1.0)


def _keep_others_out(source: Any, ledger: Path) -> None:
    """Lock the file while the connection is open. This fails if any other process has a connection, even an idle one.

    The write-ahead log is merged into the file and deleted, so that none can be left beside the new file.
    """
    try:
        source.execute("PRAGMA locking_mode = EXCLUSIVE")
        source.execute("PRAGMA journal_mode = DELETE").fetchone()
        source.execute("BEGIN EXCLUSIVE")
        source.execute("COMMIT")
    except DRIVER.OperationalError as error:
        if "locked" not in str(error):
            raise
        raise LedgerError(f"ledger {ledger} is in use; stop who uses it, then compact it") from error


def _bytes_in_use(source: Any) -> int:
    numbers = [source.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")]
    pages, free, size = numbers
    return int((pages - free) * size)


def _need_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed * _ROOM:
        raise LedgerError(
            f"the disk of {folder} has {free / 1e6:,.0f} MB free, and the copy needs {needed * _ROOM / 1e6:,.0f} MB; "
            "free some space first"
        )


@contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """A private path for writing a copy before it is put in place. Leftovers of killed processes are deleted."""
    aside = target.with_name(f"{target.name}{_ASIDE}{os.getpid()}")
    try:
        _clear(target)
        create_private(aside)
        yield aside
    except OSError as error:
        raise LedgerError(f"{error.filename or target} cannot be written: {error.strerror}") from error
    except DRIVER.Error as error:
        full = "is full" in str(error)
        reason = "the disk is full; free some space first" if full else f"{error}; see `orchestrator doctor`"
        raise LedgerError(f"the copy {target} cannot be made: {reason}") from error
    finally:
        with suppress(OSError):
            _clear(target)


def _clear(target: Path) -> None:
    """Delete unfinished copies that no other living process writes."""
    for path in target.parent.glob(f"{glob.escape(target.name)}{_ASIDE}*"):
        writer = path.name.removeprefix(f"{target.name}{_ASIDE}").partition("-")[0]
        if writer.isdecimal() and (int(writer) == os.getpid() or not psutil.pid_exists(int(writer))):
            path.unlink(missing_ok=True)


def _vacuum(source: Any, aside: Path, pulse: Callable[[], None]) -> None:
    """Write a compacted copy. An exception from `pulse` is raised once SQLite has stopped."""
    raised: list[BaseException] = []

    def look() -> bool:
        try:
            pulse()
        except BaseException as error:  # noqa: BLE001 - it is raised below
            raised.append(error)
        return bool(raised)

    source.set_progress_handler(look, _INSTRUCTIONS)
    try:
        source.execute("VACUUM INTO ?", (str(aside),))
    except DRIVER.OperationalError:
        if raised:
            raise raised[0] from None
        raise
    finally:
        source.set_progress_handler(None, 0)


def _copy(source: Any, aside: Path, pulse: Callable[[], None]) -> None:
    """Copy the ledger's present content.

    Inside a read transaction, others can keep writing to the write-ahead log without restarting the copy. With a
    rollback journal they would have to wait, so there each step stands alone, and a write restarts the copy.
    """
    if WAL:
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
    with closing(DRIVER.connect(aside, isolation_level=None)) as target:
        source.backup(target, pages=_PAGES, progress=lambda *_: pulse(), sleep=0.0)
        target.execute("PRAGMA journal_mode = DELETE").fetchone()  # one file, complete in itself
    if WAL:
        source.execute("COMMIT")


def _check(aside: Path) -> None:
    """Raise `LedgerError` if the copy is damaged."""
    with closing(_opened(aside)) as connection:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise LedgerError(f"the copy is not sound: {verdict}; see `orchestrator doctor`")


def _put_in_place(aside: Path, target: Path, *, force: bool) -> None:
    """Sync the copy, then rename it over an existing file, or link it, which fails if the target exists."""
    _sync(aside)
    reached("before rename")
    if force:
        aside.replace(target)
    else:
        try:
            os.link(aside, target)
        except FileExistsError:
            raise UsageError(
                f"{target} has appeared meanwhile; name another file, or replace it with --force"
            ) from None
    reached("after rename")
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def users(ledger: Path) -> list[str]:
    """Other processes that have the ledger open, as far as this user can see: id and command."""
    processes = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and any(Path(file.path) == ledger.resolve() for file in process.open_files()):
                processes.append(f"process {process.pid} ({' '.join(process.cmdline())[:100]})")
    return processes
