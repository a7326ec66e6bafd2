"""Bring a ledger up to the schema of this program; refuse one that is newer."""

from __future__ import annotations

import os
import time
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from secrets import randbelow
from typing import TYPE_CHECKING

from orchestrator.domain.errors import LedgerError
from orchestrator.store.connections import connect
from orchestrator.store.ledger_file import held_open
from orchestrator.store.private import create_private
from orchestrator.store.processes import LIVE, Process
from orchestrator.store.sqlite import DRIVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.store.busy_timeout import BusyTimeout
    from orchestrator.store.connection import BlockingConnection

HEAD = "0011"  # the newest revision in migrations/; a test compares them
_AGAIN = 0.02  # seconds between two tries
_MAGIC = b"SQLite format 3\0"


def migrate(path: Path, busy_timeout: BusyTimeout) -> None:
    """Create or upgrade the ledger; an upgrade is preceded by a backup beside the file. Blocking.

    SQLite lets nobody wait who wants to change the journal mode of a file that others open: of several that create one
    ledger, all but one try again.
    """
    until = time.monotonic() + busy_timeout.seconds
    while True:
        try:
            return _migrate(path, busy_timeout)
        except DRIVER.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(_AGAIN)


def _migrate(path: Path, busy_timeout: BusyTimeout) -> None:
    """Looking comes first and costs one statement: Alembic is imported only when there is something to do."""
    _refuse_foreign_file(path)
    revision, foreign = _look(path, busy_timeout)
    if revision == HEAD:
        return
    if foreign:
        raise LedgerError(f"{path} is another program's database, not a ledger; name another one with --db")
    if revision is not None and revision > HEAD:
        raise LedgerError(
            f"ledger {path} was written by a newer version of orchestrator (schema {revision}, this one knows "
            f"{HEAD}); upgrade orchestrator, or name another ledger with --db"
        )
    with closing(connect(path, busy_timeout, writer=True)) as connection:
        if revision is not None:
            with connection.transaction():
                _refuse_while_used(connection, path)
            _back_up(path, path.with_name(f"{path.name}.before-{HEAD}"))
            upgrade(connection, check=lambda: _refuse_while_used(connection, path))
            return
        with connection.transaction():
            if _revision(connection) is None:  # else another process has created it in the meantime
                _create(connection)


def _look(path: Path, busy_timeout: BusyTimeout) -> tuple[str | None, bool]:
    """Return the schema's revision, and whether there are tables without one.

    This only reads: commands that only look work while another process holds the write lock.
    """
    with closing(connect(path, busy_timeout, writer=False)) as connection, connection.transaction():
        revision = _revision(connection)
        return revision, revision is None and _has_tables(connection)


def _refuse_foreign_file(path: Path) -> None:
    """SQLite takes a file of a few bytes for an empty database and writes over it.

    With a journal beside it, it is a ledger whose making was cut off: SQLite puts that right itself.
    """
    if not path.is_file() or path.with_name(f"{path.name}-journal").exists():
        return
    with held_open(path) as descriptor:
        start = os.pread(descriptor, len(_MAGIC), 0)
    if start and start != _MAGIC:
        raise LedgerError(f"ledger {path}: this file is not a ledger; name another one with --db")


def _refuse_while_used(connection: BlockingConnection, path: Path) -> None:
    """Raise `LedgerError` if processes of the older version are at work: their next commit would fail."""
    living = [one for row in connection.execute(LIVE) if not (one := Process(*row)).is_dead()]
    if living:
        users = ", ".join(map(str, living))
        raise LedgerError(
            f"ledger {path} is from an older version of orchestrator, and {users} of that version uses it: "
            "stop it with SIGTERM, or wait until it has ended, and run the same command again"
        )


def _has_tables(connection: BlockingConnection) -> bool:
    return bool(connection.execute("SELECT count(*) FROM sqlite_master").scalar_one())


def _revision(connection: BlockingConnection) -> str | None:
    made = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'").scalar_one()
    if not made:
        return None
    revision: str | None = connection.execute("SELECT version_num FROM alembic_version").scalar_one_or_none()
    return revision


def _back_up(path: Path, copy: Path) -> None:
    create_private(copy)
    with closing(DRIVER.connect(path)) as source, closing(DRIVER.connect(copy)) as target:
        source.backup(target)


def _create(connection: BlockingConnection) -> None:
    """What all migrations together would make (a test compares them), without importing Alembic."""
    from orchestrator.store.tables import statements

    for statement in statements():
        connection.execute(statement)
    connection.execute(
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
        "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
    )
    connection.execute("INSERT INTO alembic_version VALUES (?)", (HEAD,))
    connection.execute(f"PRAGMA user_version = {1 + randbelow(2**31 - 1)}")  # its own: see `LedgerFile`


def upgrade(connection: BlockingConnection, revision: str = HEAD, check: Callable[[], None] = lambda: None) -> None:
    """Upgrade the schema to a revision in one transaction, which calls `check` first."""
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import StaticPool

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    engine = create_engine("sqlite://", module=DRIVER, creator=lambda: connection.driver, poolclass=StaticPool)
    event.listen(engine, "begin", lambda _: connection.begin())
    with engine.begin() as config.attributes["connection"]:
        check()
        command.upgrade(config, revision)


def migrations_folder() -> Path:
    """The Alembic scripts: inside the installed package, or beside it in a checkout."""
    packaged = Path(str(files("orchestrator"))) / "migrations"
    return packaged if packaged.is_dir() else packaged.parent.parent / "migrations"
