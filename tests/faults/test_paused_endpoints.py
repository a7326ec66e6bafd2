"""However a run ends, the endpoint that it woke is paused and the ledger records it: real processes, a real service."""

from __future__ import annotations

import math
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.commands import rows, until
from tests.faults.scene import ANSWERED, ITEMS, guard_of
from tests.hf_service import Trouble

if TYPE_CHECKING:
    from tests.faults.scene import Scene


def test_a_run_wakes_the_endpoint_works_pauses_it_and_proves_it(scene: Scene) -> None:
    job = scene.job(options="price_per_hour=3.6")
    ended = scene.workplace.run("run", "--json", job, env=scene.env)
    assert ended.code == 0, ended.err
    (stay,) = ended.json["awake"]
    assert stay["proof"].startswith("endpoint acme/batch read as paused at 20")
    assert stay["proof"] in ended.err
    assert stay["cost"] == pytest.approx(stay["seconds"]["all"] / 1000, abs=1e-5)
    assert scene.windows == [("closed", 1, "run")]
    seen = scene.service.endpoint("batch")
    assert seen.state == "paused"
    assert (seen.scaling["minReplica"], seen.scaling["scaleToZeroTimeout"]) == (0, 15)  # the last timer was armed
    assert seen.asked == {str(row["text"]): 1 for row in rows(range(ITEMS))}
    costs = scene.workplace.run("costs", "--by", "endpoint", "--json").json["costs"]
    assert [(cost["what"], cost["seconds"] > 0) for cost in costs] == [("acme/batch", True)]
    calls = [call for call in scene.service.calls(" /v2/") if call.method != "GET"]
    assert [str(call).rpartition("/")[2] for call in calls] == ["resume", "batch", "pause"]
    assert scene.workplace.run("run", job, env=scene.env).code == 0  # with nothing to do, nothing is woken
    assert len([call for call in scene.service.calls(" /v2/") if call.method != "GET"]) == 3


def test_a_parse_that_always_raises_stops_the_run_and_pauses(scene: Scene) -> None:
    job = scene.job(prelude="def parse(answer):\n    return answer['no such thing']\n", parse="parse")
    assert "in a row failed for the same cause" in scene.run("run", job, code=1)
    assert scene.left_paused


def test_a_bug_in_the_job_does_not_leave_the_endpoint_on(scene: Scene) -> None:
    job = scene.job(prelude="def parse(answer):\n    raise SystemExit(7)\n", parse="parse")
    scene.workplace.run("run", job, env=scene.env)
    assert scene.left_paused


@pytest.mark.parametrize(
    ("script", "options", "code", "says"),
    [
        ({"fails": "CUDA out of memory"}, "", 1, "CUDA out of memory"),
        ({"pending": math.inf}, "startup_timeout=1", 4, "was not awake within 1 s"),
        ({"initializing": math.inf}, "startup_timeout=1", 4, "was not awake within 1 s"),
    ],
)
def test_an_endpoint_that_does_not_start_is_paused(
    scene: Scene, script: dict[str, Any], options: str, code: int, says: str
) -> None:
    scene.service.script("batch", **script)
    assert says in scene.run("run", scene.job(options=options), code=code)
    assert scene.left_paused


def test_an_endpoint_cancelled_while_starting_is_paused(scene: Scene) -> None:
    scene.service.script("batch", initializing=math.inf)
    with scene.start(scene.job()) as running:
        scene.service.wait_for_state("batch", "initializing")
        running.send(signal.SIGINT)
        assert running.end().code == 130
    assert scene.left_paused


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_signals_end_in_a_paused_endpoint(scene: Scene, number: signal.Signals, times: int) -> None:
    scene.service.behave(hold_after=ANSWERED)
    job = scene.job()
    with scene.start(job) as running:
        scene.held_back()
        for _ in range(times):
            running.send(number)
        if times == 1:
            scene.service.behave()
        assert running.end().code == 130
    assert scene.left_paused
    scene.finishes(job)


def test_after_kill_9_the_guard_pauses_the_endpoint(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    job = scene.job()
    with scene.start(job) as running:
        scene.held_back()
        os.kill(running.pid, signal.SIGKILL)
        scene.service.wait_for_state("batch", "paused")
        until(lambda: scene.left_paused)
    assert scene.windows == [("closed", 1, "sweep")]
    until(lambda: not scene.workplace.processes())
    scene.finishes(job)


def test_after_kill_9_during_startup_the_guard_pauses_the_endpoint(scene: Scene) -> None:
    scene.service.script("batch", initializing=math.inf)
    with scene.start(scene.job()) as running:
        scene.service.wait_for_state("batch", "initializing")
        os.kill(running.pid, signal.SIGKILL)
        until(lambda: scene.left_paused)
    until(lambda: not scene.workplace.processes())


def test_after_kill_9_of_run_and_guard_the_sweep_pauses_only_that_endpoint(scene: Scene) -> None:
    scene.service.add("theirs", state="running")
    scene.service.behave(hold_after=ANSWERED)
    with scene.start(scene.job()) as running:
        scene.held_back()
        for pid in (guard_of(running).pid, running.pid):
            os.kill(pid, signal.SIGKILL)
    assert scene.service.endpoint("batch").state == "running"
    assert "endpoint acme/batch is owed a pause" in scene.run("sweep", "--dry-run")
    assert scene.service.endpoint("batch").state == "running"
    assert "endpoint acme/batch read as paused at" in scene.run("sweep")
    assert scene.left_paused
    assert "nothing is owed" in scene.run("sweep")
    assert scene.service.endpoint("theirs").state == "running"
    assert not scene.service.calls("theirs")


def test_the_next_run_of_any_job_pays_the_debt(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    with scene.start(scene.job()) as running:
        scene.held_back()
        for pid in (guard_of(running).pid, running.pid):
            os.kill(pid, signal.SIGKILL)
    scene.workplace.write_rows([])
    other = scene.workplace.job("other.py", name="'other'")
    assert "swept: endpoint acme/batch read as paused" in scene.run("run", other)
    assert scene.left_paused


def test_an_endpoint_left_on_is_adopted_when_its_job_continues(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    job = scene.job()
    with scene.start(job) as running:
        scene.held_back()
        for pid in (guard_of(running).pid, running.pid):
            os.kill(pid, signal.SIGKILL)
    scene.finishes(job)
    assert len(scene.service.calls("POST /v2/.*/resume")) == 1  # it was awake: nothing was paid for twice
    assert scene.windows == [("closed", 1, "run")]


def test_a_killed_guard_is_replaced_and_its_successor_pauses(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    with scene.start(scene.job()) as running:
        scene.held_back()
        first = guard_of(running)
        first.kill()
        until(lambda: any(_watches(one, but=first.pid) for one in psutil.Process(running.pid).children()))
        os.kill(running.pid, signal.SIGKILL)
        until(lambda: scene.left_paused)
    until(lambda: not scene.workplace.processes())


def test_a_pause_that_the_guard_missed_is_found_and_made_although_the_ledger_is_gone(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    folder, name = scene.workplace.ledger.parent, scene.workplace.ledger.name

    def found() -> str:
        looked = scene.workplace.run("doctor", "--offline", "--json", env=scene.env).json["checks"]
        return "".join(check["seen"] for check in looked if (check["name"], check["verdict"]) == ("guard", "fail"))

    with scene.start(scene.job()) as running:
        scene.held_back()
        guard = guard_of(running)
        scene.service.trouble(Trouble("POST /v2/.*/pause", status=403))
        scene.workplace.ledger.unlink()
        running.kill()
        trace = folder / f"{name}.guard-{guard.pid}"
        until(lambda: trace.is_file() and "403" in trace.read_text())
        assert trace.stat().st_mode & 0o077 == 0
        assert (
            f"process {guard.pid} is trying to pause endpoint acme/batch: endpoint acme/batch is still owed" in found()
        )
        guard.kill()
    until(lambda: not scene.workplace.processes())
    assert f"process {guard.pid} gave up pausing endpoint acme/batch" in found()
    assert "is still owed a pause" in scene.run("sweep", code=1)
    scene.service.calm()
    assert "endpoint acme/batch read as paused" in scene.run("sweep")
    assert scene.service.endpoint("batch").state == "paused"
    assert list(folder.glob(f"{name}.guard-*")) == []
    assert found() == ""


def test_a_killed_guard_is_reported_even_without_a_progress_display(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    with scene.workplace.start("run", "--quiet", scene.job(), env=scene.env) as running:
        scene.held_back()
        first = guard_of(running)
        first.kill()
        until(lambda: any(_watches(one, but=first.pid) for one in psutil.Process(running.pid).children()))
        scene.service.behave()
        ended = running.end()
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == "the guard of acme/batch was killed; another one watches\n"


def _watches(process: psutil.Process, *, but: int) -> bool:
    with suppress(psutil.Error):
        return process.pid != but and any("watch.py" in word for word in process.cmdline())
    return False
