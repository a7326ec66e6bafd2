"""Only its owner can read a ledger and its copies, which hold questions and answers, whatever the umask."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from glob import escape
from typing import TYPE_CHECKING

from orchestrator.domain.errors import LedgerError

if TYPE_CHECKING:
    from pathlib import Path

ROOT = 0  # its user id
_FILE, _FOLDER = 0o600, 0o700
_BESIDE = ("", "-wal", "-shm", "-journal")  # SQLite gives these the mode of the ledger, when it makes them


def is_there(ledger: Path) -> bool:
    """Whether there is a ledger: an empty file is none."""
    try:
        return not ledger.is_file() or ledger.stat().st_size > 0 if ledger.exists() else False
    except OSError:
        return True  # what stands in the way is said when it is opened


def make_private(ledger: Path) -> None:
    """Create folder and file for this user only; take one that everybody can read from everybody else.

    What its owner shares with his group stays so. Another user's file stays as it is: `doctor` says so. `LedgerError`
    where the folder cannot be made.
    """
    try:
        _make_folder(ledger.parent)
    except OSError as error:
        raise LedgerError(
            f"the ledger's folder {ledger.parent} cannot be made ({error.strerror}); name another ledger with --db"
        ) from error
    with suppress(OSError):  # SQLite says what is wrong, as for any other reason
        ledger = ledger.resolve()
        create_private(ledger)
        copies = ledger.parent.glob(f"{escape(ledger.name)}.before-*")  # of what was upgraded
        for path in (*(ledger.with_name(f"{ledger.name}{suffix}") for suffix in _BESIDE), *copies):
            with suppress(OSError):
                _tighten(path)


def create_private(path: Path) -> None:
    """An empty file that only its owner can read, for SQLite to fill; nothing where there is one."""
    with suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE)
        try:
            os.fchmod(descriptor, _FILE)
        finally:
            os.close(descriptor)


def open_to_everybody(path: Path) -> bool:
    """Whether any user of this machine can read or write it."""
    return bool(path.stat().st_mode & stat.S_IRWXO)


def made_by_others(path: Path, ledger: Path) -> bool:
    """Whether another user made this file or folder beside a ledger, or a link in its place, and so can read it.

    The owner of the ledger and root are trusted.
    """
    trusted = {os.geteuid(), ROOT, *([ledger.stat().st_uid] if ledger.exists() else [])}
    return not {path.lstat().st_uid, path.stat().st_uid} <= trusted


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir(mode=_FOLDER)
        folder.chmod(_FOLDER)


def _tighten(path: Path) -> None:
    if open_to_everybody(path):
        path.chmod(stat.S_IMODE(path.stat().st_mode) & _FOLDER)
