"""A process killed after its run ended and before all hooks were notified."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import orjson
import pytest

from tests.commands import rows, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commands import Workplace
    from tests.servers import InferenceServer

_HOOK = """
import json, os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
news = json.load(sys.stdin)
with open(folder / "told.jsonl", "a") as told:
    told.write(json.dumps([os.environ["ORCHESTRATOR_RUN"], os.environ["ORCHESTRATOR_STATE"], news["id"]]) + "\\n")
while (folder / "hold").exists():
    time.sleep(0.01)
"""


def hooked(workplace: Workplace, name: str = "on_finish") -> Path:
    hook = [sys.executable, "-c", _HOOK, str(workplace.folder)]
    path = workplace.job()
    path.write_text(f"{path.read_text()}\nimport dataclasses\njob = dataclasses.replace(job, {name}={hook!r})\n")
    return path


def results(workplace: Workplace) -> list[list[str]]:
    path = workplace.folder / "told.jsonl"
    return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def killed_while_telling(workplace: Workplace) -> Path:
    """Return the job of a run that was killed while its hook was running; the hook itself finished."""
    hold, job = workplace.folder / "hold", hooked(workplace)
    hold.touch()
    with workplace.start("run", job) as running:
        until(lambda: results(workplace))
        running.send(signal.SIGKILL)
        hold.unlink()  # the process that it started lives on and holds our standard error
        assert running.end().code == -signal.SIGKILL
    until(lambda: workplace.processes() == [])
    return job


def test_a_notification_interrupted_by_a_kill_is_sent_again_under_the_same_id(
    workplace: Workplace, server: InferenceServer
) -> None:
    workplace.write_rows(rows(range(20)))
    job = killed_while_telling(workplace)
    assert len(workplace.outputs()) == 20  # everything had been delivered before any hook was notified
    assert workplace.run("run", job).code == 0
    assert server.quiet().requests == 20
    first, again = results(workplace)
    assert first == again
    assert first[:2] == ["1", "finished"]
    assert workplace.run("report", "1").out.count("notified command python") == 1


@pytest.mark.parametrize("command", ["serve", "sweep", "run"])
def test_a_notification_interrupted_by_a_kill_is_sent_by_the_next_process(workplace: Workplace, command: str) -> None:
    workplace.write_rows(rows(range(3)))
    killed_while_telling(workplace)
    assert "its hooks have not been notified" in workplace.run("report", "1").out
    assert "run 1 ended, but the process died before it notified the hooks" in workplace.run("doctor", "--offline").out
    other = workplace.job("other.py", name="'other'", sink=f"JsonlSink({str(workplace.folder / 'other.out')!r})")
    with workplace.start(command, *([other] if command == "run" else [])) as running:
        until(lambda: len(results(workplace)) == 2)
        until(lambda: workplace.query("SELECT notification ->> '$.owed' FROM run WHERE id = 1") == [(0,)])
        if command == "serve":
            running.send(signal.SIGTERM)
        assert running.end().code == 0
    first, again = results(workplace)
    assert first == again
    assert "its hooks have not been notified" not in workplace.run("report", "1").out


def test_a_hook_that_ends_its_process_is_given_up_with_the_reason(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(3)))
    job = killed_while_telling(workplace)
    job.write_text("import os; os._exit(0)")
    assert workplace.run("sweep").code == 0
    assert len(results(workplace)) == 1
    assert workplace.query("SELECT notification ->> '$.owed' FROM run") == [(0,)]


def test_an_interrupted_run_notifies_no_hook_and_a_failed_run_does(
    workplace: Workplace, server: InferenceServer
) -> None:
    workplace.write_rows(rows(range(20)))
    job = hooked(workplace, "on_failure")
    server.behave(hold_after=5)
    with workplace.start("run", job) as running:
        server.wait(lambda stats: stats.in_flight > 0 and stats.requests > 5)
        running.send(signal.SIGINT)
        running.send(signal.SIGINT)
        assert running.end().code == 130
    assert results(workplace) == []
    server.behave(status=401)
    ended = workplace.run("run", job)
    assert ended.code == 1
    (notification,) = results(workplace)
    assert notification[1] == "failed"


def test_a_failing_hook_is_one_line_and_changes_no_exit_code(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows(rows(range(5)))
    path = workplace.job()
    hooks = "[['/no/such/notifier', 's3cret'], ['true']]"
    path.write_text(f"{path.read_text()}\nimport dataclasses\njob = dataclasses.replace(job, on_finish={hooks})\n")
    ended = workplace.run("run", "--quiet", path)
    assert (ended.code, server.quiet().requests) == (0, 5)
    assert ended.line == "run 1: could not notify command notifier: it cannot be run: No such file or directory"
    assert "s3cret" not in str(workplace.query("SELECT notification FROM run"))
    text = workplace.run("report", "1").out
    assert "could not notify command notifier: it cannot be run" in text
    assert "notified command true" in text
