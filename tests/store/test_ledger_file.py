"""A replaced or removed ledger file is noticed; ordinary use of the ledger is not mistaken for that."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from anyio import Path as AsyncPath
from anyio import to_thread

from orchestrator.domain.errors import LedgerError, RunStopped
from orchestrator.store import Store
from orchestrator.store.busy_timeout import BusyTimeout
from orchestrator.store.ledger_file import LedgerFile
from orchestrator.store.migrate import migrate
from orchestrator.store.sqlite import DRIVER

if TYPE_CHECKING:
    from pathlib import Path


def ledger_at(path: Path, jobs: int = 0) -> Path:
    path.parent.mkdir(exist_ok=True)
    migrate(path, BusyTimeout(1.0))
    write(path, jobs)
    return path


def write(path: Path, jobs: int = 1000) -> None:
    """Write as another process does, so that the write-ahead log is checkpointed into the file."""
    with closing(DRIVER.connect(path)) as connection, connection:
        connection.executemany("INSERT INTO job (name) VALUES (hex(randomblob(400)))", [()] * jobs)


def test_ordinary_use_of_the_ledger_does_not_stop_a_run(tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path / "ledger.db")
    with LedgerFile.open(ledger) as file:
        for statement in ("DELETE FROM job", "PRAGMA incremental_vacuum", "VACUUM", "CREATE TABLE upgraded (a)"):
            write(ledger)
            with closing(DRIVER.connect(ledger, isolation_level=None)) as connection:
                connection.execute(statement)
            file.check()


@pytest.mark.parametrize("other", ["an older copy", "a backup", "another ledger", "nothing"])
def test_copying_into_the_ledger_file_is_noticed(tmp_path: Path, other: str) -> None:
    ledger, copy = ledger_at(tmp_path / "ledger.db"), tmp_path / "copy.db"
    match other:
        case "an older copy":
            shutil.copyfile(ledger, copy)
        case "a backup":
            with closing(DRIVER.connect(ledger)) as connection:
                connection.execute("VACUUM INTO ?", (str(copy),))
        case "another ledger":
            ledger_at(copy, jobs=5000)
        case _:
            copy.touch()
    write(ledger)
    with LedgerFile.open(ledger) as file:
        shutil.copyfile(copy, ledger)
        with pytest.raises(LedgerError, match=r"ledger\.db was written over by a copy while it was in use"):
            file.check()


async def write_and_lose(ledger: Path, what: str, lose: object, *paths: Path) -> None:
    async with Store.open(str(ledger)) as store:
        async with store.database.write() as connection:
            await connection.execute(what)
        assert callable(lose)
        await to_thread.run_sync(lose, *paths)
        raise RunStopped("a reason")


async def test_a_failed_preservation_hides_neither_the_event_nor_the_reason(tmp_path: Path) -> None:
    ledger = await to_thread.run_sync(ledger_at, tmp_path / "ledger.db", 2000)
    other = await to_thread.run_sync(ledger_at, tmp_path / "other.db")
    with pytest.raises(
        LedgerError, match=r"was written over .*; what was in it could not be kept \(.*\): restore"
    ) as lost:
        await write_and_lose(ledger, "DELETE FROM job WHERE id = 1", shutil.copyfile, other, ledger)
    assert str(lost.value.__cause__) == "a reason"
    assert [path async for path in AsyncPath(tmp_path).glob("*.rescued-*")] == []


async def test_if_the_ledger_folder_is_gone_its_content_is_kept_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ledger = tmp_path / "data" / "ledger.db"
    with pytest.raises(LedgerError, match="all that was in it is in"):
        await write_and_lose(ledger, "INSERT INTO job (name) VALUES ('kept')", shutil.rmtree, ledger.parent)
    with closing(DRIVER.connect(tmp_path / f"ledger.db.rescued-{os.getpid()}")) as connection:
        assert connection.execute("SELECT name FROM job").fetchall() == [("kept",)]


_LOCK = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 510, 0x40000000 + 2)  # SQLite's shared range
    except OSError:
        print("locked")
"""


def test_closing_a_ledger_in_one_thread_keeps_the_locks_of_another(tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path / "ledger.db")
    with LedgerFile.open(ledger), closing(DRIVER.connect(ledger)) as connection:
        connection.execute("SELECT count(*) FROM job").fetchall()  # with a write-ahead log, it keeps its lock
        with LedgerFile.open(ledger):
            migrate(ledger, BusyTimeout(1.0))
        seen = subprocess.run([sys.executable, "-c", _LOCK, str(ledger)], capture_output=True, text=True, check=True)
        assert seen.stdout == "locked\n"
