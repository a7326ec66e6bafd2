"""Ledgers of older versions are upgraded completely or not at all, and their unfinished work continues."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

import anyio
import psutil
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from anyio import to_thread

from orchestrator.domain.attempt import Completed
from orchestrator.domain.errors import LedgerError
from orchestrator.domain.notification import NotificationResult
from orchestrator.domain.run import Counts, RunState, Spec, Tokens
from orchestrator.store import Store
from orchestrator.store.busy_timeout import BusyTimeout
from orchestrator.store.connections import connect
from orchestrator.store.items import Settlement
from orchestrator.store.migrate import HEAD, migrations_folder, upgrade
from orchestrator.store.processes import this_host
from orchestrator.store.row_classes import NewItem
from orchestrator.store.sqlite import DRIVER
from tests.store.counters import check_counters

if TYPE_CHECKING:
    from pathlib import Path

# A run of three items, one of them answered, as every version would have written it.
_BEGUN = """
INSERT INTO process (id, host, pid, pid_started, started_at, lease_until, state)
    VALUES (1, 'h', 1, 0.0, 1.0, 1.0, 'dead');
INSERT INTO job (id, name) VALUES (1, 'job');
INSERT INTO run (id, job_id, state, fingerprint, spec, input_sha256, total, created_at)
    VALUES (1, 1, 'open', 'f', '{}', 's', 3, 1.0);
INSERT INTO item (key, job_id, item_id, hash, request) VALUES (1, 1, 'a', 'h', '"a"'), (2, 1, 'b', 'h', '"b"');
INSERT INTO item (key, job_id, item_id, hash, request) VALUES (3, 1, 'c', 'h', '"c"');
INSERT INTO member (id, run_id, item_key) VALUES (4294967296, 1, 1), (4294967297, 1, 2), (4294967298, 1, 3);
INSERT INTO chunk (run_id, lo, hi, state, completed) VALUES (1, 0, 3, 'available', 1);
INSERT INTO result (item_key, outcome, attempts, seconds, finished_at, output)
    VALUES (1, 'completed', 1, 0.1, 1.0, '"A"');
INSERT INTO attempt (item_key, number, outcome, kind, message, seconds, at, available_at)
    VALUES (2, 1, 'retry_later', 'unavailable', 'busy', 0.1, 1.0, 1.0);
"""
# Upgrades, and is killed after so many statements.
_KILLED = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import Engine, event
from orchestrator.store.migrate import migrate
from orchestrator.store.busy_timeout import BusyTimeout
left = [int(sys.argv[2])]
def count(*_):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
event.listen(Engine, "before_cursor_execute", count)
migrate(Path(sys.argv[1]), BusyTimeout(1.0))
"""


def older() -> list[str]:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    found = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    return [revision for revision in reversed(found) if revision != HEAD]


OLDER = older()


def write(path: Path, revision: str) -> None:
    """Write a ledger with unfinished work, as the version with that schema would have left it."""
    with closing(connect(path, BusyTimeout(1), writer=True)) as upgraded:
        upgrade(upgraded, revision)
    with closing(DRIVER.connect(path)) as connection, connection:
        for statement in _BEGUN.split(";\n"):
            connection.execute(statement)


def revision_of(path: Path) -> str:
    with closing(DRIVER.connect(path)) as connection:
        return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def backup_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.before-{HEAD}")


async def goes_on(path: Path) -> None:
    async with Store.open(str(path)) as store:
        me = await store.runs.register(host="h", pid=1, pid_started=0.0, lease=60)
        run = await store.runs.take(Spec("job", "f", "s"), me)
        assert (run.id, run.state, run.total) == (1, RunState.OPEN, 3)
        (leased,) = await store.items.lease(run.id, me, 1)
        assert [(item.id, item.attempt) for item in leased.items] == [("b", 2), ("c", 1)]
        done = [Settlement(item, Completed('"X"', None, 2, 3), 0.1) for item in leased.items]
        await store.items.settle(done, [leased.lease])
        assert (await store.views.counts(run.id, 3)).completed == 3
        async with store.database.read() as connection:
            assert (await connection.execute("PRAGMA foreign_key_check")).all() == []
            assert (await connection.execute("PRAGMA quick_check")).scalar_one() == "ok"


@pytest.mark.parametrize("revision", OLDER)
async def test_a_ledger_of_every_older_version_is_upgraded_and_its_run_continues(tmp_path: Path, revision: str) -> None:
    path = tmp_path / "ledger.db"
    await to_thread.run_sync(write, path, revision)
    await goes_on(path)
    assert revision_of(path) == HEAD
    copy = backup_of(path)
    assert revision_of(copy) == revision
    assert {stat.S_IMODE(one.stat().st_mode) for one in (path, copy)} == {0o600}


async def test_a_ledger_is_upgraded_only_once_no_process_of_the_older_version_uses_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    await to_thread.run_sync(write, path, OLDER[-1])
    async with await anyio.open_process([sys.executable, "-c", "input()"]) as user:
        started = await to_thread.run_sync(lambda: psutil.Process(user.pid).create_time())
        row = await to_thread.run_sync(this_host), user.pid, started, time.time() + 60
        with closing(DRIVER.connect(path)) as connection, connection:
            connection.execute(
                "INSERT INTO process (host, pid, pid_started, started_at, lease_until, state) "
                "VALUES (?, ?, ?, 1.0, ?, 'live')",
                row,
            )
        with pytest.raises(LedgerError, match=f"process {user.pid} on .* of that version uses it: stop it"):
            await goes_on(path)
        assert revision_of(path) == OLDER[-1]
        assert not backup_of(path).exists()
        user.kill()
        await user.wait()
    await goes_on(path)
    assert revision_of(path) == HEAD


# A possible state at 0007: counters that missed changes, uncounted tokens, a done chunk with an unsettled item.
_WRONG = """
INSERT INTO run (id, job_id, state, fingerprint, spec, total, created_at, finished_at, told)
    VALUES (2, 1, 'finished', 'g', '{}', 2, 1.0, 2.0,
            '{"id": "msg", "owed": 0, "told": [{"hook": "h", "event": "e", "at": 2.0, "ok": true, "said": ""}]}');
INSERT INTO member (id, run_id, item_key) VALUES (8589934592, 2, 1), (8589934593, 2, 2);
INSERT INTO chunk (run_id, lo, hi, state, completed, discarded, counted) VALUES (2, 0, 2, 'done', 0, 2, 1);
INSERT INTO known (job_id, item_id, hash) VALUES (1, 'a', 'h');
UPDATE chunk SET completed = 0 WHERE run_id = 1;
UPDATE result SET tokens_in = 7;
"""


async def test_upgrading_recounts_an_older_ledger_and_keeps_its_data(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    await to_thread.run_sync(write, path, "0007")
    with closing(DRIVER.connect(path)) as connection, connection:
        for statement in _WRONG.split(";\n"):
            connection.execute(statement)
    async with Store.open(str(path)) as store:
        await check_counters(store)
        assert await store.views.counts(2, 2) == Counts(2, 1, 0, 0)  # items lost by an older `retry` can be asked
        assert await store.views.tokens(1) == await store.views.tokens(2) == Tokens(7, None)
        rows = [NewItem("a", "h", "{}", None), NewItem("b", "h", "{}", None)]
        assert await store.delivered_items.delivered(1, rows) == {0}
        assert (await store.history.run(2)).notified == [NotificationResult("h", "e", 2.0, ok=True)]


@pytest.mark.parametrize("statements", [5, 12, 20, 30, 40])
async def test_a_killed_upgrade_changes_nothing_and_is_repeated_the_next_time(tmp_path: Path, statements: int) -> None:
    path, first = tmp_path / "ledger.db", OLDER[0]
    await to_thread.run_sync(write, path, first)
    arguments = [sys.executable, "-c", _KILLED, str(path), str(statements)]
    ended = await to_thread.run_sync(lambda: subprocess.run(arguments, check=False, capture_output=True))
    assert ended.returncode == -signal.SIGKILL
    assert revision_of(path) == first
    await goes_on(path)
    assert revision_of(path) == HEAD
