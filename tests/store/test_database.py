from __future__ import annotations

import re
import sqlite3
import tempfile
from contextlib import closing
from functools import partial
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from orchestrator.domain.errors import LedgerError, UsageError
from orchestrator.domain.group_commit import may_block
from orchestrator.store import Store, chunks, forgive, items, row_classes, snapshots, views
from orchestrator.store.busy_timeout import BusyTimeout
from orchestrator.store.connections import Pool, connect
from orchestrator.store.database import ledger_path
from orchestrator.store.migrate import HEAD, migrate, migrations_folder, upgrade
from orchestrator.store.sqlite import DRIVER, WAL, wal_is_safe
from tests.store.places import IN_MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 6, 23), True),
        ((3, 7, 0), False),
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 45, 0), False),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 53, 4), True),
    ],
)
def test_versions_with_the_wal_reset_bug_are_recognized(version: tuple[int, ...], safe: bool) -> None:
    assert wal_is_safe(version) is safe


def test_the_chosen_driver_has_no_known_bug() -> None:
    assert wal_is_safe(DRIVER.sqlite_version_info)


def test_a_new_ledger_has_exactly_the_tables_that_the_migrations_create(tmp_path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD
    migrate(tmp_path / "new.db", BusyTimeout(1))
    with closing(connect(tmp_path / "upgraded.db", BusyTimeout(1), writer=True)) as connection:
        upgrade(connection)
    assert schema(tmp_path / "new.db") == schema(tmp_path / "upgraded.db")


def schema(path: Path) -> dict[str, list[str]]:
    """Return the sorted words of each table and index: migrations write columns and constraints in another order."""
    with closing(sqlite3.connect(path)) as connection:
        made = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {name: sorted(re.findall(r"[^\s,()]+", sql)) for name, sql in made}


async def test_many_processes_can_create_the_same_ledger_at_once() -> None:
    async def create(path: Path) -> None:
        async with Store.open(str(path)) as store:
            assert await store.runs.newest(1) == []

    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        for number in range(8):  # whether they collide is a matter of luck
            async with anyio.create_task_group() as group:
                for _ in range(6):
                    group.start_soon(create, Path(folder) / f"{number}.db")


async def test_an_older_ledger_is_backed_up_before_it_is_upgraded(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('0000')")
        connection.execute("CREATE TABLE process (id, host, pid, pid_started, lease_until, state)")
        connection.commit()
    with pytest.raises(Exception, match="0000"):
        async with Store.open(str(path)):
            pass
    assert (tmp_path / f"l.db.before-{HEAD}").exists()


async def test_a_newer_ledger_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "l.db")
    async with Store.open(path) as store, store.database.write() as connection:
        await connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(LedgerError, match=r"newer version of orchestrator \(schema 9999"):
        async with Store.open(path):
            pass


@pytest.mark.parametrize("url", ["postgresql://host/db", "sqlite://", "sqlite:///:memory:", "://"])
def test_only_a_sqlite_file_is_a_ledger(url: str) -> None:
    with pytest.raises(UsageError, match=r"SQLite file|database URL"):
        ledger_path(url)


def test_a_ledger_is_named_by_path_or_url(tmp_path: Path) -> None:
    assert ledger_path(str(tmp_path / "l.db")) == ledger_path(f"sqlite:///{tmp_path}/l.db") == tmp_path / "l.db"


async def test_a_failed_transaction_changes_nothing_and_the_next_one_works(store: Store) -> None:
    async def fail() -> None:
        async with store.database.write() as connection:
            await connection.execute("INSERT INTO job (name) VALUES ('gone')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with store.database.write() as connection:
        assert (await connection.execute("SELECT count(*) FROM job")).scalar_one() == 0


async def test_cancelled_writers_leave_no_lock_behind(store: Store) -> None:
    async def write(number: int) -> None:
        async with store.database.write() as connection:
            await connection.execute("INSERT INTO job (name) VALUES (:name)", {"name": f"j{number}"})

    for number in range(60):
        with anyio.move_on_after(0.0005 * (number % 7)):
            await write(number)
    await write(999)


@pytest.mark.parametrize(
    ("rows", "lately", "here"), [(1, 0.0, True), (16, 0.01, True), (17, 0.0, False), (1, 0.02, False)]
)
async def test_a_few_rows_are_committed_on_the_event_loop_if_the_disk_is_quick(
    store: Store, rows: int, lately: float, *, here: bool
) -> None:
    await store.database.write_in_one_trip(lambda _: None)  # opens the connection
    store.database._lately = lately
    assert may_block(rows, lately) is here
    if WAL:  # otherwise a commit waits for readers
        ran_in = await store.database.write_in_one_trip(lambda _: get_ident(), rows=rows)
        assert (ran_in == get_ident()) is here


async def test_a_few_rows_wait_for_another_process_without_holding_up_the_event_loop(store: Store) -> None:
    await store.database.write_in_one_trip(lambda _: None)
    done = list[str]()

    async def write() -> None:
        store.database._lately = 0.0
        await store.database.write_in_one_trip(lambda connection: done.append(str(connection.in_transaction)), rows=1)

    with closing(DRIVER.connect(store.database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with anyio.create_task_group() as group:
            group.start_soon(write)
            await anyio.wait_all_tasks_blocked()
            assert done == []
            other.execute("ROLLBACK")
    assert done == ["True"]


async def test_a_failed_write_on_the_event_loop_changes_nothing_and_the_next_one_works(store: Store) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO job (name) VALUES ('a')")
        raise ValueError("no")

    await store.database.write_in_one_trip(lambda _: None)
    for _ in range(2):
        store.database._lately = 0.0
        with pytest.raises(ValueError, match="no"):
            await store.database.write_in_one_trip(fail, rows=1)
    count = "SELECT count(*) FROM job"
    assert await store.database.write_in_one_trip(lambda one: one.execute(count).fetchone()[0], rows=1) == 0


def test_after_one_busy_timeout_later_writes_fail_fast(tmp_path: Path) -> None:
    tries = []
    with closing(DRIVER.connect(tmp_path / "l.db", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        busy_timeout = BusyTimeout(2.0)
        with closing(DRIVER.connect(tmp_path / "l.db", isolation_level=None, timeout=busy_timeout.at_a_time)) as other:

            def begin() -> None:
                tries.append(1)
                other.execute("BEGIN IMMEDIATE")

            with pytest.raises(DRIVER.OperationalError, match="locked"):
                busy_timeout.insist(begin)
            assert len(tries) in {4, 5}
            tries.clear()
            with pytest.raises(DRIVER.OperationalError, match="locked"):
                busy_timeout.insist(begin)
            assert len(tries) in {2, 3}  # it has already waited
            holder.execute("COMMIT")
            busy_timeout.insist(begin)


class UntilItIsLetGo(BusyTimeout):
    """A lock that another process releases before the third try."""

    def __init__(self, holder: Any) -> None:
        super().__init__(60.0)
        self.holder = holder
        self.tries = 0

    def insist(self, take: Callable[[], object]) -> None:
        def counted() -> None:
            self.tries += 1
            if self.tries == 3:
                self.holder.execute("COMMIT")
            take()

        super().insist(counted)


@pytest.mark.parametrize("blocking", [True, False])
async def test_the_first_write_of_a_connection_waits_for_locks_like_any_other(store: Store, *, blocking: bool) -> None:
    path = store.database.path
    with closing(DRIVER.connect(path, isolation_level=None, check_same_thread=False)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        busy_timeout = UntilItIsLetGo(holder)
        if blocking:
            with closing(connect(path, busy_timeout, writer=True)) as connection, connection.transaction():
                assert connection.execute("SELECT count(*) FROM job").scalar_one() == 0
        else:
            pool = Pool(partial(connect, path, busy_timeout, writer=True), most=1)
            try:
                async with pool.transaction() as waited:
                    assert (await waited.execute("SELECT count(*) FROM job")).scalar_one() == 0
            finally:
                await pool.close()
    assert busy_timeout.tries > 3  # including BEGIN


def test_a_ledger_for_which_sqlite_cannot_wait_is_not_waited_for() -> None:
    tries = []

    def begin() -> None:
        tries.append(1)
        raise DRIVER.OperationalError("database is locked")

    with pytest.raises(DRIVER.OperationalError):
        BusyTimeout(60).insist(begin)
    assert len(tries) == 1


HOT: dict[str, str] = {
    "lease": items._LEASE,
    "items of chunks": items._ITEMS_OF_CHUNKS,
    "versions": row_classes._VERSIONS,
    "add members": snapshots._ADD_BARE_MEMBERS,
    "mark same": snapshots._MARK_SAME,
    "record failures": items._RECORD_FAILURES,
    "discard": items._DISCARD,
    "progress": items._PROGRESS,
    "close": chunks.CLOSE,
    "add to one chunk": chunks._ADD,
    "add everywhere": chunks._ADD_EVERYWHERE,
    "recount": chunks.RECOUNT,
    "recount one": chunks.RECOUNT_ONE,
    "reopen": forgive.REOPEN,
    "release": items._RELEASE,
    "expire": items._EXPIRE,
    "page": views._PAGE,
    "counts": views._COUNTS,
    "tokens": views._TOKENS,
}


@pytest.mark.parametrize("name", HOT)
async def test_a_hot_statement_scans_no_table_and_sorts_nothing(store: Store, name: str) -> None:
    texts = dict.fromkeys(("rows", "keys", "ids", "pairs"), "[]")
    values = dict.fromkeys(re.findall(r"(?<!:):(\w+)", HOT[name]), 1) | texts
    async with store.database.write() as connection:
        rows = (await connection.execute(f"EXPLAIN QUERY PLAN {HOT[name]}", values)).all()
    plan = [str(row.detail) for row in rows]
    scans = [step for step in plan if step.startswith("SCAN") and "VIRTUAL TABLE" not in step]
    assert [step for step in scans if not re.fullmatch(r"SCAN (s|\(subquery-\d+\))", step)] == []
    assert not any("TEMP B-TREE" in step for step in plan if "GROUP BY" not in step and "DISTINCT" not in step)


@pytest.mark.parametrize("create", [True, False])
def test_a_folder_is_refused_as_a_ledger_and_left_as_it_is(tmp_path: Path, *, create: bool) -> None:
    async def opened() -> None:
        async with Store.open(str(tmp_path), create=create):
            pass

    tmp_path.chmod(0o755)
    with pytest.raises(UsageError, match=f"ledger {re.escape(str(tmp_path))}: this is a folder, not a ledger; name"):
        anyio.run(opened)
    assert tmp_path.stat().st_mode & 0o777 == 0o755
