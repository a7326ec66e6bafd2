"""Queued runs that cannot begin are reported, notified, and delay no other run."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.commands import until
from tests.faults.daemons import answers, children, finished, job, queue, serving, state
from tests.faults.scene import ANSWERED, ITEMS

if TYPE_CHECKING:
    from tests.faults.scene import Scene

WAITS = "import pathlib, time\nwhile not pathlib.Path({!r}).exists():\n    time.sleep(0.01)\n"
TELLS = "import os, sys; open(sys.argv[1], 'a').write(os.environ['ORCHESTRATOR_RUN'] + '\\n')"


@pytest.fixture
def settings(scene: Scene) -> dict[str, str]:
    """Return settings of a daemon that calls a command on failures."""
    file = scene.workplace.folder / "config.toml"
    hook = [sys.executable, "-c", TELLS, str(scene.workplace.folder / "told")]
    file.write_text(f"[serve]\non_failure = {hook!r}\n")
    return {"ORCHESTRATOR_CONFIG": str(file)}


def told(scene: Scene) -> list[str]:
    path = scene.workplace.folder / "told"
    return path.read_text().split() if path.exists() else []


def error_of(scene: Scene, run: int) -> str:
    return str(dict(scene.workplace.query("SELECT id, error FROM run"))[run])


def why(scene: Scene, run: int) -> str:
    return str(dict(scene.workplace.query("SELECT id, why FROM run"))[run])


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("job = 1 / 0", "ZeroDivisionError"),
        (None, "there is no job file"),
        ("raise SystemExit(3)", "called exit(3)"),
        ("import orchestrator", "must define exactly one Job"),
    ],
)
def test_a_run_that_cannot_begin_fails_once_appears_in_report_and_doctor_and_notifies_the_hook(
    scene: Scene, settings: dict[str, str], code: str | None, said: str
) -> None:
    path = job(scene, "broken")
    run = queue(scene, path)
    if code is None:
        path.unlink()
    else:
        path.write_text(code)
    with serving(scene, env=settings):
        until(lambda: told(scene) == [str(run)])
        until(lambda: '"owed":0' in str(scene.workplace.query("SELECT notification FROM run")))
    assert (state(scene, run), said in error_of(scene, run)) == ("failed", True)
    report = scene.workplace.run("report").out
    assert "0 of 1 run finished, 1 to look at" in report
    assert said in report
    assert f"run {run} of broken" in scene.workplace.run("doctor", "--offline").out
    assert told(scene) == [str(run)]


def test_a_run_whose_job_was_renamed_fails_at_once_and_wakes_nothing(scene: Scene, settings: dict[str, str]) -> None:
    path = job(scene, "renamed")
    run = queue(scene, path)
    path.write_text(path.read_text().replace("name='renamed'", "name='other'"))
    with serving(scene, env=settings):
        until(lambda: state(scene, run) == "failed")
        until(lambda: told(scene) == [str(run)])
    assert "its job file now declares 'other'" in error_of(scene, run)
    assert scene.service.calls("POST /v2/.*/resume") == []


def test_a_hanging_job_file_delays_no_other_run_and_its_process_ends_when_cancelled(scene: Scene) -> None:
    scene.service.behave()
    path = job(scene, "hangs")
    run = queue(scene, path)
    path.write_text(WAITS.format("/never"))
    fine = queue(scene, job(scene, "fine"))
    with serving(scene, "--runs", "1") as daemon:
        until(lambda: children(daemon))
        (child,) = children(daemon)
        scene.workplace.change("UPDATE run SET due_at = due_at - 11 WHERE id = ?", [run])  # loading takes this long
        until(lambda: state(scene, fine) == "finished")
        assert child.is_running()
        assert scene.workplace.run("cancel", str(run)).code == 0
        until(lambda: not child.is_running() or child.status() == "zombie")
        until(lambda: scene.workplace.count("run", "holder IS NOT NULL") == 0)
    assert state(scene, run) == "cancelled"


def test_a_run_that_loads_slowly_waits_for_the_one_that_passed_it(scene: Scene) -> None:
    scene.service.behave(hold_after=0)
    path, loaded = job(scene, "slow"), scene.workplace.folder / "loaded"
    run = queue(scene, path)
    path.write_text(WAITS.format(str(loaded)) + path.read_text())
    other = queue(scene, job(scene, "other", range(100, 110)))
    with serving(scene) as daemon:
        until(lambda: children(daemon))
        scene.workplace.change("UPDATE run SET due_at = due_at - 11 WHERE id = ?", [run])
        until(lambda: scene.service.endpoint("batch").in_flight)
        loaded.touch()
        until(lambda: "another run asks its endpoint" in why(scene, run))
        scene.service.behave()
        finished(scene, run, other)
    assert len(scene.service.calls("POST /v2/.*/resume")) == 1


def test_a_job_file_that_never_returns_is_killed_and_the_run_fails_with_the_reason(
    scene: Scene, settings: dict[str, str]
) -> None:
    path = job(scene, "hangs")
    run = queue(scene, path)
    path.write_text("import signal, time\nassert signal.alarm(1) > 50  # a minute later\ntime.sleep(1000)")
    with serving(scene, env=settings):
        until(lambda: told(scene) == [str(run)])
    assert state(scene, run) == "failed"
    assert error_of(scene, run) == "its job file did not say what it declares within 60 seconds"


def test_a_process_that_ends_silently_leaves_its_run_in_the_queue_with_the_reason(scene: Scene) -> None:
    path = job(scene, "ends")
    run = queue(scene, path)
    path.write_text("import os; os._exit(0)")
    with serving(scene):
        until(lambda: scene.workplace.count("run", "tries >= 4 AND holder IS NULL AND why IS NOT NULL"))
    assert why(scene, run) == "its process ended with exit code 0 before the run was over; see its log"


def test_a_process_killed_from_outside_is_reported_and_its_run_continues(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    run = queue(scene, job(scene, "nightly"))
    with serving(scene) as daemon:
        scene.held_back()
        scene.run("hold", str(run))  # so that no daemon claims it before we have looked
        (child,) = children(daemon)
        child.kill()
        until(lambda: "killed by SIGKILL, perhaps because memory ran out" in why(scene, run))
        scene.service.behave()
        scene.run("go", str(run))
        finished(scene, run)
    until(lambda: scene.left_paused)
    assert len(answers(scene.workplace, "nightly")) == ITEMS
