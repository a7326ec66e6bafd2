"""`backup` while others write, and `compact` while nothing else uses the ledger."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from orchestrator.store.sqlite import DRIVER
from tests.commands import rows, until
from tests.servers import answer_to

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commands import Workplace
    from tests.servers import InferenceServer

ITEMS = 200
CONCURRENCY = 8


def sound(ledger: Path) -> bool:
    with closing(DRIVER.connect(ledger)) as connection:
        (said,) = connection.execute("PRAGMA quick_check").fetchone()
        return bool(said == "ok" and not connection.execute("PRAGMA foreign_key_check").fetchall())


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if ".partial-" in path.name]


def finished(workplace: Workplace, padding: int = 0) -> Path:
    """Create a ledger with a finished run; return the job file."""
    workplace.write_rows(rows(range(ITEMS), text="text of {}" + "." * padding))
    job = workplace.job()
    assert workplace.run("run", "--quiet", job).code == 0
    return job


def roomy(workplace: Workplace) -> Path:
    """Create a ledger of mostly free pages; return the job file of the remaining rows."""
    job = finished(workplace)
    filler = "INSERT INTO tuning SELECT hex(randomblob(3000)), 1, 1.0, NULL FROM json_each(?)"
    workplace.change(filler, [f"[{','.join('0' * 2000)}]"])
    workplace.change("DELETE FROM tuning WHERE length(shape) > 1000")
    return job


# -- backup --------------------------------------------------------------------------------


def test_a_backup_of_a_live_ledger_is_complete_and_the_run_can_continue_from_it(
    workplace: Workplace, server: InferenceServer
) -> None:
    workplace.write_rows(rows(range(ITEMS)))
    job = workplace.job()
    copy = workplace.folder / "copy.db"
    server.behave(hold_after=100)
    with workplace.start("run", "--quiet", job) as running:
        server.wait(lambda stats: stats.requests == 100 + CONCURRENCY)
        until(lambda: workplace.count("result") == 100)
        saved = workplace.run("backup", copy, "--json")
        assert saved.json == {"backup": str(copy), "bytes": copy.stat().st_size}
        server.behave()
        assert running.end().code == 0
    assert sound(copy)
    original, workplace.ledger = workplace.ledger, copy
    assert workplace.count("result") == 100
    asked = server.quiet().requests
    assert workplace.run("run", "--quiet", job).code == 0
    assert server.quiet().requests == asked + ITEMS - 100
    assert [row["output"]["said"] for row in workplace.outputs()] == [answer_to(f"text of {n}") for n in range(ITEMS)]
    assert sound(original)


def test_writers_do_not_wait_for_a_backup(workplace: Workplace, tmp_path: Path) -> None:
    """While a backup is under way, which its file shows, a write does not wait."""
    roomy(workplace)
    workplace.change(
        "INSERT INTO tuning SELECT hex(randomblob(30000)), 1, 1.0, NULL FROM json_each(?)",
        [f"[{','.join('0' * 2000)}]"],
    )
    with workplace.start("backup", tmp_path / "copy.db") as running:
        until(lambda: leftovers(tmp_path))
        os.kill(running.pid, signal.SIGSTOP)
        with closing(DRIVER.connect(workplace.ledger, timeout=0.0)) as connection, connection:
            connection.execute("INSERT INTO job (name) VALUES ('meanwhile')")
        os.kill(running.pid, signal.SIGCONT)
        assert running.end().code == 0
    assert sound(tmp_path / "copy.db")


def test_a_backup_replaces_a_file_only_if_told(workplace: Workplace) -> None:
    finished(workplace)
    copy = workplace.folder / "copy.db"
    copy.write_text("precious")
    ended = workplace.run("backup", copy)
    assert (ended.code, copy.read_text()) == (2, "precious")
    assert "--force" in ended.line
    assert workplace.run("backup", copy, "--force").code == 0
    assert sound(copy)
    ended = workplace.run("backup", workplace.ledger, "--force")
    assert (ended.code, "the ledger itself" in ended.line) == (2, True)


def test_a_backup_that_cannot_be_written_leaves_nothing(workplace: Workplace) -> None:
    finished(workplace)
    ended = workplace.run("backup", workplace.folder / "nowhere" / "copy.db", "--json")
    assert ended.code == ended.json["exit_code"] == 2
    assert "cannot be written: No such file or directory" in ended.line


def test_a_broken_ledger_is_not_backed_up(workplace: Workplace) -> None:
    finished(workplace, padding=3000)
    content = bytearray(workplace.ledger.read_bytes())
    content[40 * 8192 : 60 * 8192] = bytes(20 * 8192)
    workplace.ledger.write_bytes(content)
    copy = workplace.folder / "copy.db"
    ended = workplace.run("backup", copy)
    assert (ended.code, copy.exists(), leftovers(workplace.folder)) == (2, False, [])
    assert "orchestrator doctor" in ended.line


def test_without_a_ledger_nothing_is_copied_or_created(workplace: Workplace) -> None:
    for command in (["backup", "copy.db"], ["compact"]):
        ended = workplace.run(*command)
        assert (ended.code, "there is no ledger" in ended.line) == (2, True)
    assert not workplace.ledger.exists()


# -- compact --------------------------------------------------------------------------------


def test_compact_frees_space_and_keeps_every_answer(workplace: Workplace, server: InferenceServer) -> None:
    job = roomy(workplace)
    workplace.ledger.chmod(0o640)
    before = workplace.ledger.stat().st_size
    found = workplace.run("compact", "--json").json
    assert found == {"ledger": str(workplace.ledger), "bytes_before": before, "bytes": workplace.ledger.stat().st_size}
    assert found["bytes"] < before / 3
    assert workplace.ledger.stat().st_mode & 0o777 == 0o640
    assert workplace.query("PRAGMA freelist_count") == [(0,)]
    assert workplace.query("PRAGMA auto_vacuum") == [(2,)]
    asked = server.quiet().requests
    assert workplace.run("run", "--quiet", job).code == 0
    assert server.quiet().requests == asked
    assert sound(workplace.ledger)


def test_compact_refuses_while_a_run_uses_the_ledger_and_names_it(
    workplace: Workplace, server: InferenceServer
) -> None:
    workplace.write_rows(rows(range(ITEMS)))
    server.behave(hold_after=10)
    with workplace.start("run", "--quiet", workplace.job()) as running:
        server.wait(lambda stats: stats.requests == 10 + CONCURRENCY)
        ended = workplace.run("compact")
        assert (ended.code, f"process {running.pid}" in ended.line) == (2, True)
        server.behave()
        assert running.end().code == 0


@pytest.mark.parametrize("statement", ["SELECT count(*) FROM job", "BEGIN IMMEDIATE"])
def test_compact_refuses_while_another_process_has_the_file_open(workplace: Workplace, statement: str) -> None:
    roomy(workplace)
    with closing(DRIVER.connect(workplace.ledger, isolation_level=None)) as reader:
        before = workplace.ledger.read_bytes()
        reader.execute(statement).fetchall()
        config = workplace.folder / "config.toml"
        config.write_text("busy_seconds = 0.2\n")
        ended = workplace.run("--config", config, "compact")
        assert ended.code == 2
        assert "in use" in ended.err or "another process holds it" in ended.err
        if statement.startswith("SELECT"):
            assert f"process {os.getpid()}" in ended.err
        assert workplace.ledger.read_bytes() == before
    assert workplace.run("compact").code == 0


def test_compact_follows_a_link_to_the_ledger(workplace: Workplace) -> None:
    roomy(workplace)
    real, link = workplace.ledger, workplace.folder / "link.db"
    link.symlink_to(real)
    workplace.ledger = link
    before = real.stat().st_size
    assert workplace.run("compact").code == 0
    assert link.is_symlink()
    assert real.stat().st_size < before


@pytest.mark.parametrize("command", ["compact", "backup"])
@pytest.mark.parametrize("point", ["while it writes", "before rename", "after rename"])
def test_a_compaction_killed_at_any_point_leaves_a_whole_ledger_and_works_the_next_time(
    workplace: Workplace, point: str, command: str
) -> None:
    job = roomy(workplace)
    points = workplace.folder / "points"
    points.mkdir()
    (points / point).touch()
    arguments = [command] if command == "compact" else [command, "copy.db", "--force"]
    with workplace.start(*arguments, env={"ORCHESTRATOR_FAILPOINTS": str(points)}) as running:
        if point == "while it writes":
            until(lambda: running.process.poll() is not None or leftovers(workplace.folder))
            running.kill()
        else:
            assert running.end().code == -signal.SIGKILL
    assert sound(workplace.ledger)
    assert workplace.count("result") == ITEMS
    assert workplace.run(*arguments).code == 0
    assert leftovers(workplace.folder) == []
    assert workplace.run("run", "--quiet", job).code == 0
    assert sound(workplace.ledger)


@pytest.mark.parametrize("command", ["compact", "backup"])
def test_ctrl_c_stops_compact_and_leaves_no_files(workplace: Workplace, command: str) -> None:
    finished(workplace)
    workplace.change(
        "INSERT INTO tuning SELECT hex(randomblob(30000)), 1, 1.0, NULL FROM json_each(?)",
        [f"[{','.join('0' * 3000)}]"],
    )
    with workplace.start(*([command] if command == "compact" else [command, "copy.db"])) as running:
        until(lambda: leftovers(workplace.folder))
        running.send(signal.SIGINT)
        ended = running.end()
    assert (ended.code, leftovers(workplace.folder)) == (130, [])
    assert sound(workplace.ledger)
