"""A queue in trouble: a full disk under the daemon, processes that return from the dead, clocks that jump."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.commands import rows, until
from tests.faults.audit import wrongs
from tests.faults.daemons import all_finished, answers, children, job, queue, serving
from tests.faults.scene import ANSWERED, CONCURRENCY, ITEMS
from tests.faults.small_disk import fill, small_disk
from tests.hf_rules import answer_to

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.scene import Scene

pytestmark = pytest.mark.unmeasured

# All times that decisions depend on; to a clock that was set forward, all of them are older.
MOMENTS = {
    "process": ["started_at", "lease_until"],
    "run": ["created_at", "started_at", "due_at"],
    "awake_window": ["opened_at", "asked_at", "resumed_at", "looked_at"],
    "hold": ["since"],
}
HOUR = 3600.0


def done_once(scene: Scene, repeated: int = 0) -> None:
    until(lambda: scene.left_paused)
    until(lambda: not scene.workplace.processes())
    assert wrongs(scene.workplace) == []
    assert answers(scene.workplace, "nightly") == [[answer_to(str(row["text"]))] for row in rows(range(ITEMS))]
    assert len(scene.service.calls("POST /data/")) <= ITEMS + repeated


# -- a full disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(scene: Scene) -> Iterator[Path]:
    with small_disk(scene.workplace.folder / "disk") as disk:
        scene.workplace.ledger = disk / "ledger.db"
        yield disk


def test_a_daemon_with_a_full_disk_pauses_everything_ends_with_one_line_and_continues_later(
    scene: Scene, disk: Path
) -> None:
    scene.service.behave(hold_after=ANSWERED)
    queue(scene, job(scene, "nightly"))
    with serving(scene) as daemon:
        scene.held_back()
        filler = fill(disk)
        scene.service.behave()
        ended = daemon.end()
    assert ended.code == 2
    assert "Traceback" not in ended.err
    last = ended.err.splitlines()[-1]
    assert str(scene.workplace.ledger) in last
    assert "the disk is full" in last
    assert scene.service.endpoint("batch").state == "paused"
    until(lambda: not scene.workplace.processes())
    asked = len(scene.service.calls("POST /data/"))
    fill(disk)  # the last process to close a ledger shrinks it
    assert scene.workplace.run("serve", env=scene.env).code == 2
    assert len(scene.service.calls("POST /data/")) == asked
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    with serving(scene):
        all_finished(scene)
    done_once(scene, asked - scene.workplace.count("result") + ITEMS)


# -- zombies ----------------------------------------------------------------------------------------------------------


def test_a_resumed_child_whose_run_was_taken_over_fences_itself(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    run = queue(scene, job(scene, "nightly"))
    with serving(scene) as daemon:
        scene.held_back()
        (zombie,) = children(daemon)
        scene.workplace.suspend(zombie.pid)
        scene.workplace.change("UPDATE process SET lease_until = 0 WHERE serves = 0")  # half a minute later
        with serving(scene):
            until(lambda: scene.service.endpoint("batch").in_flight > CONCURRENCY)  # another run asks
            until(lambda: scene.workplace.count("process", "state = 'dead'") == 1)
            before, managed = standing(scene), len(scene.service.calls("POST /v2/"))
            zombie.send_signal(signal.SIGCONT)
            until(lambda: not zombie.is_running())
            assert standing(scene) == before
            assert scene.service.endpoint("batch").state == "running"
            assert len(scene.service.calls("POST /v2/")) == managed
            scene.service.behave()
            all_finished(scene)
    done_once(scene, CONCURRENCY)
    assert "another one has taken over" in log_of(scene, run)
    assert scene.workplace.count("attempt") == 0


def test_a_resumed_child_wakes_and_asks_nothing_if_all_is_done(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    queue(scene, job(scene, "nightly"))
    with serving(scene) as daemon:
        scene.held_back()
        (zombie,) = children(daemon)
        scene.workplace.suspend(zombie.pid)
        scene.workplace.change("UPDATE process SET lease_until = 0 WHERE serves = 0")
        with serving(scene):
            until(lambda: scene.service.endpoint("batch").in_flight > CONCURRENCY)
            scene.service.behave()
            all_finished(scene)
            until(lambda: scene.left_paused)
            before, managed = standing(scene), len(scene.service.calls("POST /v2/"))
            zombie.send_signal(signal.SIGCONT)
            until(lambda: not zombie.is_running())
            assert standing(scene) == before
            assert len(scene.service.calls("POST /v2/")) == managed
    done_once(scene, 2 * CONCURRENCY)


def test_a_resumed_child_that_owes_a_pause_has_it_paid(scene: Scene) -> None:
    """The child was taken for dead, and the endpoint is awake and unused: its guard pauses it."""
    scene.service.behave(hold_after=ANSWERED)
    queue(scene, job(scene, "nightly"))
    with scene.workplace.start("serve", env=scene.env) as daemon:
        scene.held_back()
        (zombie,) = children(daemon)
        scene.workplace.suspend(zombie.pid)
        daemon.kill()
    scene.workplace.change("UPDATE process SET lease_until = 0")
    scene.workplace.change("UPDATE run SET held = 1")  # no daemon claims it
    assert scene.workplace.run("queue").code == 0
    assert scene.workplace.run("submit", job(scene, "other"), env=scene.env).code == 0  # notices dead processes
    assert scene.workplace.query("SELECT DISTINCT state FROM process") == [("dead",)]
    assert scene.service.endpoint("batch").state == "running"
    zombie.send_signal(signal.SIGCONT)
    scene.service.behave()
    until(lambda: scene.left_paused)
    until(lambda: not scene.workplace.processes())


def standing(scene: Scene) -> list[tuple[Any, ...]]:
    """Return the states of the runs and who uses which endpoint."""
    runs = scene.workplace.query("SELECT id, state, holder, due_at, tries, why, error, delivered_at FROM run")
    holds = scene.workplace.query("SELECT id, process_id, until IS NULL FROM hold")
    return runs + holds + scene.workplace.query("SELECT id, state, owed FROM awake_window")


def log_of(scene: Scene, run: int) -> str:
    return (scene.workplace.folder / "ledger.db.runs" / f"{run}.log").read_text()


# -- clocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [24 * HOUR, -HOUR])
def test_a_clock_jump_loses_nothing_and_repeats_nothing(scene: Scene, jump: float) -> None:
    """Make all recorded times older or younger, as a clock that was set would see them."""
    scene.service.behave(hold_after=ANSWERED)
    queue(scene, job(scene, "nightly"))
    second = queue(scene, job(scene, "second", range(100, 110)))
    with serving(scene):
        scene.held_back()
        for table, moments in MOMENTS.items():
            older = ", ".join(f"{moment} = {moment} - :jump" for moment in moments)
            scene.workplace.change(f"UPDATE {table} SET {older}", [jump])
        with serving(scene):  # which takes a process for dead if its lease has expired by this clock
            scene.service.behave()
            until(lambda: scene.workplace.count("run", "delivered_at IS NOT NULL") >= 1)
            if jump < 0:  # what was due before is due in an hour
                scene.workplace.change("UPDATE run SET due_at = due_at - 3600 WHERE due_at > unixepoch()")
            all_finished(scene)
    done_once(scene, 10 + CONCURRENCY)
    assert len(answers(scene.workplace, "second")) == 10
    assert scene.workplace.query(f"SELECT delivered_at IS NOT NULL FROM run WHERE id = {second}") == [(1,)]
