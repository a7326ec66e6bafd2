"""Disk full, read-only, corrupt, locked, newer: one clear line, no committed answer lost, and work continues."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from orchestrator.store.sqlite import DRIVER, WAL
from tests.commands import rows, until
from tests.faults.scene import ANSWERED
from tests.faults.small_disk import fill, small_disk
from tests.servers import answer_to

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.commands import Workplace
    from tests.faults.scene import Scene
    from tests.servers import InferenceServer

pytestmark = pytest.mark.unmeasured

ITEMS = 300
CONCURRENCY = 8
PADDING = 8000  # so that answers fill a disk


@pytest.fixture
def disk(workplace: Workplace) -> Iterator[Path]:
    with small_disk(workplace.folder / "disk") as disk:
        workplace.ledger = disk / "ledger.db"
        yield disk


def finishes(workplace: Workplace, job: Path, items: int = ITEMS) -> None:
    ended = workplace.run("run", "--quiet", job)
    assert (ended.code, ended.err) == (0, "")
    assert [(row["id"], row["output"]["said"]) for row in workplace.outputs()] == [
        (row["id"], answer_to(str(row["text"]))) for row in rows(range(items))
    ]


def test_a_disk_that_fills_up_during_a_run_loses_no_committed_answer(
    workplace: Workplace, server: InferenceServer, disk: Path
) -> None:
    workplace.write_rows(rows(range(ITEMS)))
    job = workplace.job()
    server.behave(hold_after=100, padding=PADDING)
    with workplace.start("run", "--quiet", "--json", job) as running:
        server.wait(lambda stats: stats.requests == 100 + CONCURRENCY)
        until(lambda: workplace.count("result") == 100)
        filler = fill(disk)
        server.behave(padding=PADDING)
        ended = running.end()
    assert ended.code == 2
    assert str(workplace.ledger) in ended.err
    assert "the disk is full; free some space and run the same command again" in ended.err
    assert "Traceback" not in ended.err
    assert ended.json["exit_code"] == 2
    filler.unlink()
    committed = workplace.count("result")
    assert committed >= 100
    asked = server.quiet()
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    finishes(workplace, job)
    assert server.quiet().requests == asked.requests + ITEMS - committed
    assert server.quiet().duplicates <= CONCURRENCY


def test_a_disk_that_is_too_small_for_the_input_is_reported(workplace: Workplace, disk: Path) -> None:
    workplace.write_rows(rows(range(ITEMS), text="text of {}" + "." * 40_000))
    job = workplace.job()
    ended = workplace.run("run", "--quiet", job)
    assert ended.code == 2
    assert str(workplace.ledger) in ended.err.splitlines()[0]
    assert "the disk is full" in ended.err.splitlines()[0]
    assert "Traceback" not in ended.err
    assert not workplace.output.exists()
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    assert workplace.run("run", "--quiet", job).code == 0
    assert len(workplace.outputs()) == ITEMS


def test_a_disk_that_is_full_from_the_start_is_reported(workplace: Workplace, disk: Path) -> None:
    workplace.write_rows(rows(range(3)))
    job = workplace.job()
    filler = fill(disk)
    ended = workplace.run("run", "--quiet", "--json", job)
    assert ended.code == 2
    assert str(workplace.ledger) in ended.line
    assert "disk" in ended.line
    assert ended.json["exit_code"] == 2
    filler.unlink()
    finishes(workplace, job, 3)


def test_a_full_disk_for_the_output_keeps_the_answers(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows(rows(range(ITEMS)))
    server.behave(padding=PADDING)
    with small_disk(workplace.folder / "disk", "1m") as disk:
        workplace.output = disk / "out.jsonl"
        job = workplace.job()
        ended = workplace.run("run", "--quiet", job)
        assert ended.code == 2
        assert str(workplace.output) in ended.line
        assert "free some space" in ended.line
        assert [path.name for path in disk.iterdir()] == []
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        finishes(workplace, job)
    assert server.quiet().duplicates == 0


@pytest.mark.parametrize("made_before", [True, False])
def test_a_read_only_folder_is_reported(workplace: Workplace, disk: Path, made_before: bool) -> None:
    workplace.write_rows(rows(range(3)))
    job = workplace.job()
    if made_before:
        assert workplace.run("run", "--quiet", job).code == 0
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    commands: list[list[str | Path]] = [["run", "--quiet", job]]
    commands += [["status"], ["plan", job]] if made_before else []  # without a ledger, these create none
    for command in commands:
        ended = workplace.run(*command, "--json")
        assert ended.code == 2
        assert str(workplace.ledger) in ended.line
        assert "cannot be" in ended.line
        assert ended.json["exit_code"] == 2
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    finishes(workplace, job, 3)


def test_a_ledger_in_a_folder_that_cannot_be_created_is_reported(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(3)))
    workplace.ledger = workplace.rows / "folder" / "ledger.db"
    ended = workplace.run("run", "--quiet", "--json", workplace.job())
    assert ended.code == 2
    assert "name another ledger with --db" in ended.line


@pytest.mark.parametrize("size", [1, 100, 100_000])
def test_a_file_that_is_not_a_ledger_is_left_alone(workplace: Workplace, size: int) -> None:
    workplace.write_rows(rows(range(3)))
    noise = os.urandom(size)
    workplace.ledger.write_bytes(noise)
    ended = workplace.run("run", "--quiet", "--json", workplace.job())
    assert ended.code == 2
    assert str(workplace.ledger) in ended.line
    assert "--db" in ended.line
    assert ended.json["error"] in ended.line
    assert workplace.ledger.read_bytes() == noise


def test_the_database_of_another_program_is_left_alone(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(3)))
    workplace.change("CREATE TABLE run (something TEXT)")
    ended = workplace.run("run", "--quiet", workplace.job())
    assert ended.code == 2
    assert str(workplace.ledger) in ended.line
    assert workplace.query("SELECT name FROM sqlite_master") == [("run",)]


def test_a_ledger_with_broken_pages_is_reported(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(ITEMS)))
    job = workplace.job()
    assert workplace.run("run", "--quiet", job).code == 0
    content = bytearray(workplace.ledger.read_bytes())
    content[3 * 8192 :] = os.urandom(len(content) - 3 * 8192)
    workplace.ledger.write_bytes(content)
    ended = workplace.run("run", "--quiet", "--json", job)
    assert ended.code == 2
    assert str(workplace.ledger) in ended.err.splitlines()[0]
    assert "corrupt" in ended.err.splitlines()[0]
    assert "Traceback" not in ended.err


def test_a_ledger_locked_by_another_process_is_reported(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(3)))
    job = workplace.job()
    config = workplace.folder / "config.toml"
    config.write_text("busy_seconds = 0.2\n")
    assert workplace.run("run", "--quiet", job).code == 0
    with closing(DRIVER.connect(workplace.ledger, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        ended = workplace.run("--config", config, "run", "--quiet", "--json", job)
        assert ended.code == 2
        assert str(workplace.ledger) in ended.line
        assert "another process holds it" in ended.line
        assert ended.json["exit_code"] == 2
    finishes(workplace, job, 3)


def test_commands_that_only_look_do_not_wait_for_a_process_that_writes(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(3)))
    job = workplace.job()
    config = workplace.folder / "config.toml"
    config.write_text("busy_seconds = 0.2\n")
    assert workplace.run("run", "--quiet", job).code == 0
    commands = [("runs",), ("status",), ("report",), ("items", "1"), ("costs",), ("queue",), ("plan", job)]
    with closing(DRIVER.connect(workplace.ledger, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        ended = {command: workplace.run("--config", config, *command) for command in commands}
    assert {command: (one.code, one.err) for command, one in ended.items() if one.code} == {}


@contextmanager
def locked_by_a_stopped_process(workplace: Workplace) -> Iterator[subprocess.Popen[str]]:
    """Suspend a process that has begun to write to the ledger."""
    program = f"import {DRIVER.__name__} as d; c = d.connect({str(workplace.ledger)!r}, isolation_level=None); "
    program += "c.execute('BEGIN IMMEDIATE'); print('held', flush=True); input()"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGSTOP)
        yield holder


@pytest.mark.skipif(sys.platform != "linux" or not WAL, reason="no other system says who holds a lock")
def test_the_process_that_locks_the_ledger_is_named_while_waiting(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(3)))
    job = workplace.job()
    assert workplace.run("submit", job).code == 0
    with locked_by_a_stopped_process(workplace) as holder, workplace.start("prioritize", "1", "2") as running:
        running.says(f"waiting for ledger {workplace.ledger}: it is held by process {holder.pid} (")
        holder.send_signal(signal.SIGCONT)
        holder.communicate("\n")
        assert running.end().code == 0
    assert workplace.query("SELECT priority FROM run") == [(2,)]


@pytest.mark.skipif(sys.platform != "linux", reason="no other system says who holds a lock")
def test_a_suspended_process_that_locks_the_ledger_is_named_as_such(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(3)))
    job = workplace.job()
    config = workplace.folder / "config.toml"
    config.write_text("busy_seconds = 0.2\n")
    assert workplace.run("run", "--quiet", job).code == 0
    with locked_by_a_stopped_process(workplace) as holder:
        ended = workplace.run("--config", config, "run", "--quiet", job)
        holder.kill()
    assert ended.code == 2
    assert f"it is held by process {holder.pid} (" in ended.err
    assert f"and is stopped: `kill -CONT {holder.pid}`" in ended.err
    finishes(workplace, job, 3)


def test_a_lock_during_a_run_is_waited_for_and_then_reported(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows(rows(range(ITEMS)))
    job = workplace.job()
    config = workplace.folder / "config.toml"
    config.write_text("busy_seconds = 0.2\n")
    server.behave(hold_after=50)
    with workplace.start("--config", config, "run", "--quiet", job) as running:
        server.wait(lambda stats: stats.requests == 50 + CONCURRENCY)
        until(lambda: workplace.count("result") == 50)
        with closing(DRIVER.connect(workplace.ledger, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            server.behave()
            ended = running.end()
    assert ended.code == 2
    assert "another process holds it" in ended.err.splitlines()[0]
    assert "Traceback" not in ended.err
    finishes(workplace, job)
    assert server.quiet().duplicates <= CONCURRENCY


def test_a_newer_ledger_is_refused_and_left_untouched(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(3)))
    job = workplace.job()
    assert workplace.run("run", "--quiet", job).code == 0
    workplace.change("UPDATE alembic_version SET version_num = '9999'")
    for command in (["run", "--quiet", job], ["status"], ["runs"], ["plan", job]):
        ended = workplace.run(*command, "--json")
        assert ended.code == 2
        assert str(workplace.ledger) in ended.line
        assert "newer version" in ended.line
        assert ended.json["exit_code"] == 2
    assert workplace.query("SELECT version_num FROM alembic_version") == [("9999",)]


@pytest.mark.parametrize("how", ["removed", "replaced", "written over"])
def test_a_ledger_deleted_during_a_run_is_preserved_and_the_endpoint_paused(scene: Scene, how: str) -> None:
    job, ledger = scene.job(), scene.workplace.ledger
    older = ledger.with_name("older")
    scene.service.behave(hold_after=ANSWERED)
    with scene.start(job) as running:
        scene.held_back()
        scene.workplace.run("backup", older)
        match how:
            case "removed":
                ledger.unlink()
            case "replaced":
                older.replace(ledger)
            case _:
                shutil.copyfile(older, ledger)
        scene.service.behave()
        ended = running.end()
    assert (ended.code, "Traceback" in ended.err) == (2, False), ended.err
    assert f"ledger {ledger} was {how} " in ended.err.replace("removed or replaced", how)
    assert scene.service.endpoint("batch").state == "paused"
    (kept,) = ledger.parent.glob("*.rescued-*")
    assert str(kept) in ended.err
    assert kept.stat().st_mode & 0o077 == 0
    for left in ledger.parent.glob(f"{ledger.name}*"):
        if left.is_file() and left != kept:
            left.unlink()
    kept.replace(ledger)
    assert scene.workplace.count("result") >= ANSWERED
    scene.finishes(job)


@pytest.mark.parametrize("replaced", [False, True])
def test_after_kill_9_the_endpoint_is_paused_even_if_the_ledger_is_gone(
    scene: Scene,
    replaced: bool,
) -> None:
    job, ledger = scene.job(), scene.workplace.ledger
    older = ledger.with_name("older")
    scene.service.behave(hold_after=ANSWERED)
    with scene.start(job) as running:
        scene.held_back()
        if replaced:
            scene.workplace.run("backup", older)
            with closing(DRIVER.connect(older)) as connection, connection:
                connection.executescript("DELETE FROM hold; DELETE FROM awake_window")  # it was not awake then
            older.replace(ledger)
        else:
            ledger.unlink()
        os.kill(running.pid, signal.SIGKILL)
        until(lambda: scene.service.endpoint("batch").state == "paused")
    until(lambda: not scene.workplace.processes())


@pytest.mark.parametrize("signals", [1, 2])
def test_stopping_does_not_wait_for_a_locked_ledger(scene: Scene, signals: int) -> None:
    """The endpoint does not stay awake meanwhile either; the next command corrects its final state."""
    config = scene.workplace.folder / "config.toml"
    config.write_text("busy_seconds = 3600\n")
    grace = 0.1 if signals == 1 else 3600
    policy = f"concurrency={CONCURRENCY}, backoff=Backoff(first=0.01), grace={grace}"
    job = scene.job(policy=policy)
    scene.service.behave(hold_after=ANSWERED)
    with scene.workplace.start("--config", config, "run", job, env=scene.env) as running:
        scene.held_back()
        with closing(DRIVER.connect(scene.workplace.ledger, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            scene.service.behave()
            running.send(signal.SIGTERM)
            if signals == 2:
                running.says("stopping")
                running.send(signal.SIGTERM)
            ended = running.end()
            assert scene.service.endpoint("batch").state == "paused"
    assert "Traceback" not in ended.err
    assert (ended.code, "another process holds it" in ended.err) == (2, True)
    scene.finishes(job)


def test_a_daemon_stopped_twice_does_not_wait_for_a_locked_ledger(workplace: Workplace) -> None:
    config = workplace.folder / "config.toml"
    config.write_text("busy_seconds = 3600\n")
    with workplace.start("--config", config, "serve") as running:
        until(lambda: workplace.ledger.exists() and workplace.count("process", "serves") == 1)
        with closing(DRIVER.connect(workplace.ledger, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            running.send(signal.SIGTERM)
            running.says("stopping")
            running.send(signal.SIGTERM)
            ended = running.end()
    assert "Traceback" not in ended.err
    assert (ended.code, "another process holds it" in ended.err) == (2, True), ended
