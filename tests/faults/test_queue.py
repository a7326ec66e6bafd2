"""The queue with real daemons, their children, and a service that bills."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.run_log import event_log
from tests.commands import rows, until
from tests.faults.daemons import answers, children, finished, job, serving, state
from tests.faults.scene import ANSWERED, CONCURRENCY, ITEMS
from tests.hf_rules import answer_to

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.scene import Scene

pytestmark = pytest.mark.unmeasured


def submit(scene: Scene, *arguments: str | Path) -> dict[str, Any]:
    ended = scene.workplace.run("submit", *arguments, "--json", env=scene.env)
    assert ended.code == 0, ended.err
    found: dict[str, Any] = ended.json
    return found


def stands(scene: Scene, run: int) -> str:
    ended = scene.workplace.run("queue", "--json")
    return str(next((one["stands"] for one in ended.json["queue"] if one["id"] == run), "gone"))


# -- normal operation -------------------------------------------------------------------------------------------------


def test_a_daemon_executes_a_submitted_run_and_pauses_its_endpoint(scene: Scene) -> None:
    scene.service.behave()
    run = submit(scene, job(scene, "nightly"))
    assert (run["new"], run["served"]) == (True, False)
    with serving(scene) as daemon:
        finished(scene, run["run"])
        daemon.send(signal.SIGTERM)
        ended = daemon.end()
    assert ended.code == 0
    assert f"run {run['run']} ended with exit code 0" in ended.err
    assert answers(scene.workplace, "nightly") == [[answer_to(str(row["text"]))] for row in rows(range(ITEMS))]
    assert scene.left_paused
    assert scene.workplace.run("queue").out == "the queue is empty\n"


def test_queued_runs_share_one_window_of_their_endpoint_and_a_later_submission_joins(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    first, second = submit(scene, job(scene, "first")), submit(scene, job(scene, "second", range(100, 140)))
    with serving(scene):
        scene.held_back()
        assert (state(scene, first["run"]), stands(scene, second["run"])) == ("open", "due now")
        third = submit(scene, job(scene, "third", range(200, 240)))
        scene.service.behave()
        finished(scene, first["run"], second["run"], third["run"])
    assert scene.left_paused
    assert len(scene.service.calls("POST /v2/.*/resume")) == 1
    assert len(scene.service.calls("POST /v2/.*/pause")) == 1
    assert scene.workplace.query("SELECT count(*), count(DISTINCT window_id) FROM hold WHERE run_id IS NOT NULL") == [
        (3, 1)
    ]


def test_a_queued_rollout_shares_the_window_of_its_endpoint_with_plain_runs(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    first = submit(scene, job(scene, "first"))
    rollout, asks = (
        job(scene, "second", range(100, 120)),
        "async def twice(row, ask):\n    return await ask(await ask(row['text']))\n",
    )
    rollout.write_text(asks + rollout.read_text().replace("request='{text}'", "rollout=twice"))
    with serving(scene):
        scene.held_back()
        second, third = submit(scene, rollout), submit(scene, job(scene, "third", range(200, 240)))
        assert stands(scene, second["run"]) == "due now"
        scene.service.behave()
        finished(scene, first["run"], second["run"], third["run"])
    assert scene.left_paused
    assert len(scene.service.calls("POST /v2/.*/resume")) == len(scene.service.calls("POST /v2/.*/pause")) == 1
    assert scene.workplace.count("ask") == 40
    assert scene.workplace.query("SELECT count(DISTINCT run_id), count(DISTINCT window_id) FROM hold") == [(3, 1)]


def test_a_run_that_depends_on_another_shares_its_window(scene: Scene) -> None:
    scene.service.behave()
    first = submit(scene, job(scene, "first"))["run"]
    second = submit(scene, job(scene, "second", range(100, 140)), "--after", str(first))["run"]
    with serving(scene):
        finished(scene, first, second)
    assert scene.left_paused
    assert len(scene.service.calls("POST /v2/.*/resume")) == 1


def test_two_queued_runs_of_one_job_share_a_window(scene: Scene) -> None:
    scene.service.behave()
    path = job(scene, "nightly")
    first, second = submit(scene, path), submit(scene, path, "--limit", "5", "--set", "policy.max_attempts=2")
    with serving(scene):
        finished(scene, first["run"], second["run"])
    assert scene.left_paused
    assert len(answers(scene.workplace, "nightly")) == ITEMS  # the later run has delivered beside it
    assert scene.workplace.count("result") == ITEMS


def test_runs_at_different_endpoints_execute_at_once(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    scene.service.add("other")
    first = submit(scene, job(scene, "first"))
    other = job(scene, "second")
    other.write_text(other.read_text().replace("acme/batch", "acme/other"))
    second = submit(scene, other)
    with serving(scene):
        until(lambda: scene.service.endpoint("batch").in_flight and scene.service.endpoint("other").in_flight)
        scene.service.behave()
        finished(scene, first["run"], second["run"])


def test_runs_are_taken_by_priority_then_deadline_then_age(scene: Scene) -> None:
    scene.service.behave()
    plain = submit(scene, job(scene, "plain"))["run"]
    late = submit(scene, job(scene, "late"), "--deadline", "+9h")["run"]
    urgent = submit(scene, job(scene, "urgent"), "--deadline", "+1h")["run"]
    raised = submit(scene, job(scene, "raised"))["run"]
    scene.run("prioritize", str(raised), "7")
    with serving(scene, "--runs", "1"):
        finished(scene, plain, late, urgent, raised)
    found = scene.workplace.query("SELECT id FROM run ORDER BY started_at")
    assert [row[0] for row in found] == [raised, urgent, late, plain]


def test_a_run_can_wait_for_the_success_or_for_any_end_of_another(scene: Scene) -> None:
    scene.service.behave()
    broken = submit(scene, job(scene, "broken"))
    (scene.workplace.folder / "broken.rows").unlink()
    anyhow = submit(scene, job(scene, "anyhow"), "--after-end", "broken")["run"]
    succeeded = submit(scene, job(scene, "succeeded"), "--after", "anyhow")["run"]
    never = submit(scene, job(scene, "never"), "--after", str(broken["run"]))["run"]
    with serving(scene):
        finished(scene, anyhow, succeeded)
        assert state(scene, broken["run"]) == "failed"
        assert stands(scene, never) == f"waits for run {broken['run']}"
    starts = dict(scene.workplace.query("SELECT id, started_at FROM run"))
    ends = dict(scene.workplace.query("SELECT id, finished_at FROM run"))
    assert starts[succeeded] >= ends[anyhow]


def test_two_submissions_with_one_key_make_one_run_and_a_different_job_is_refused(scene: Scene) -> None:
    path = job(scene, "nightly")
    first = submit(scene, path, "--key", "tonight")
    again = submit(scene, path, "--key", "tonight")
    assert (again["run"], again["new"]) == (first["run"], False)
    path.write_text(path.read_text() + "\n# changed\n")
    refused = scene.workplace.run("submit", path, "--key", "tonight", env=scene.env)
    assert refused.code == 2
    assert f"key 'tonight' belongs to run {first['run']}" in refused.line
    assert scene.workplace.count("run") == 1


# -- commands ---------------------------------------------------------------------------------------------------------


def test_a_held_run_gives_up_its_slot_and_continues_when_released(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    first = submit(scene, job(scene, "first"))["run"]
    with serving(scene):
        scene.held_back()
        scene.run("hold", str(first))
        scene.service.behave(delays={"": 3.0})  # six times the interval at which a run looks for commands
        until(lambda: scene.service.endpoint("batch").state == "paused")
        until(lambda: stands(scene, first).startswith("held"))
        second = submit(scene, job(scene, "second", range(100, 140)))["run"]
        finished(scene, second)
        assert state(scene, first) == "stopped"
        scene.service.behave()
        scene.run("go", str(first))
        assert "lets it go on" not in stands(scene, first)
        finished(scene, first)
    assert scene.left_paused


def test_a_cancelled_run_leaves_the_queue_even_if_it_was_waiting(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    first, second = (submit(scene, job(scene, name))["run"] for name in ("first", "second"))
    scene.run("cancel", str(second))
    with serving(scene):
        scene.held_back()
        scene.run("cancel", str(first))
        scene.service.behave()
        until(lambda: scene.left_paused)
        until(lambda: scene.workplace.count("run", "holder IS NOT NULL") == 0)
    assert [state(scene, run) for run in (first, second)] == ["cancelled", "cancelled"]
    assert scene.workplace.run("queue").out == "the queue is empty\n"


# -- trouble ----------------------------------------------------------------------------------------------------------


def test_a_run_with_a_broken_job_file_fails_and_the_others_continue(scene: Scene) -> None:
    scene.service.behave()
    path = job(scene, "broken")
    broken, fine = submit(scene, path)["run"], submit(scene, job(scene, "fine"))["run"]
    path.write_text("job = 1 / 0\n")
    with serving(scene):
        finished(scene, fine)
        until(lambda: state(scene, broken) == "failed")
    assert "ZeroDivisionError" in dict(scene.workplace.query("SELECT id, error FROM run"))[broken]


def test_a_run_whose_endpoint_has_no_capacity_is_requeued_visibly_and_tried_again(scene: Scene) -> None:
    scene.service.behave()
    scene.service.script("batch", pending=3600.0)
    path = job(scene, "nightly", options="startup_timeout=1.0")
    run = submit(scene, path)["run"]
    with serving(scene):
        until(lambda: "was not awake within" in stands(scene, run))
        assert stands(scene, run).startswith("due 2")
        until(lambda: scene.left_paused)
        scene.service.script("batch", pending=0.05)
        path.write_text(path.read_text().replace("startup_timeout=1.0", "startup_timeout=600.0"))
        scene.workplace.change("UPDATE run SET due_at = 0 WHERE id = ?", [run])  # half a minute later
        finished(scene, run)


def test_sigterm_waits_for_answers_pauses_and_leaves_the_run_to_the_next_daemon(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    run = submit(scene, job(scene, "nightly"))["run"]
    with serving(scene) as daemon:
        scene.held_back()
        daemon.send(signal.SIGTERM)
        until(lambda: "stop_requested" in event_log(scene.workplace.ledger, run).read_text())
        scene.service.behave()
        ended = daemon.end()
        assert (ended.code, "Traceback" in ended.err) == (0, False)
    assert scene.left_paused
    assert scene.workplace.count("result") >= ANSWERED + CONCURRENCY
    assert scene.workplace.count("chunk", "state = 'leased'") == 0
    assert stands(scene, run).startswith("due now")
    before = len(scene.service.calls("POST /data/"))
    with serving(scene):
        finished(scene, run)
    assert len(scene.service.calls("POST /data/")) == ITEMS
    assert before < ITEMS


def test_a_second_sigterm_aborts_and_still_pauses(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    run = submit(scene, job(scene, "nightly", policy=f"concurrency={CONCURRENCY}, grace=3600"))["run"]
    with serving(scene) as daemon:
        scene.held_back()
        daemon.send(signal.SIGTERM)
        daemon.says("stopping")  # otherwise Python may merge the two signals
        daemon.send(signal.SIGTERM)
        assert daemon.end().code == 0
    assert scene.left_paused
    assert state(scene, run) == "stopped"
    assert scene.workplace.count("result") == ANSWERED


def test_after_kill_9_of_the_daemon_work_stops_the_endpoint_is_paused_and_another_daemon_finishes(
    scene: Scene,
) -> None:
    scene.service.behave(hold_after=ANSWERED)
    run = submit(scene, job(scene, "nightly", policy=f"concurrency={CONCURRENCY}, grace=0.1"))["run"]
    with serving(scene) as daemon:
        scene.held_back()
        (child,) = children(daemon)
        os.kill(daemon.pid, signal.SIGKILL)
        until(lambda: not child.is_running())
    until(lambda: scene.left_paused)
    scene.service.behave()
    with serving(scene):
        finished(scene, run)
    assert len(scene.service.calls("POST /data/")) <= ITEMS + CONCURRENCY


def test_a_run_whose_process_is_killed_is_continued(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    run = submit(scene, job(scene, "nightly"))["run"]
    with serving(scene) as daemon:
        scene.held_back()
        children(daemon)[0].kill()
        scene.service.behave()
        finished(scene, run)
    until(lambda: scene.left_paused)


def test_a_daemon_taken_for_dead_repeats_nothing_when_it_resumes(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    run = submit(scene, job(scene, "nightly"))["run"]
    with serving(scene) as daemon:
        scene.held_back()
        scene.workplace.suspend(daemon.pid)
        scene.workplace.change("UPDATE process SET lease_until = 0 WHERE serves = 1")  # half a minute later
        with serving(scene) as second:
            until(lambda: scene.workplace.count("process", "serves = 1 AND state = 'dead'") == 1)
            assert not children(second)  # a live process executes the run
            os.kill(daemon.pid, signal.SIGCONT)
            scene.service.behave()
            finished(scene, run)
            until(lambda: scene.workplace.count("process", "serves = 1 AND state = 'live'") == 2)
    assert len(scene.service.calls("POST /data/")) == ITEMS


def test_run_and_serve_in_two_terminals_share_one_window(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    queued = submit(scene, job(scene, "queued"))["run"]
    with scene.start(job(scene, "by_hand", range(100, 140))) as by_hand:
        until(lambda: scene.service.endpoint("batch").in_flight == CONCURRENCY)
        with serving(scene):
            until(lambda: scene.workplace.count("hold", "until IS NULL") == 2)
            scene.service.behave()
            assert by_hand.end().code == 0
            finished(scene, queued)
    assert scene.left_paused
    assert len(scene.service.calls("POST /v2/.*/resume")) == 1


def test_systemd_is_notified_when_the_daemon_is_ready_alive_and_stopping(scene: Scene) -> None:
    address = str(scene.workplace.folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(address)
        channel.settimeout(30)
        with serving(scene, env={"NOTIFY_SOCKET": address}) as daemon:
            told = {channel.recv(100) for _ in range(2)}
            daemon.send(signal.SIGTERM)
            assert daemon.end().code == 0
        told.add(channel.recv(100))
    assert told == {b"READY=1", b"WATCHDOG=1", b"STOPPING=1"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_daemon_with_nothing_to_do_ends_at_once(scene: Scene, number: signal.Signals) -> None:
    with serving(scene) as daemon:
        daemon.send(number)
        assert daemon.end().code == 0
