"""What the log of a run says when it is read afterwards or during the run."""

from __future__ import annotations

import time
from signal import SIGINT, SIGTERM
from typing import TYPE_CHECKING

import pytest

from orchestrator.run_log import event_log
from tests.commands import rows, until

if TYPE_CHECKING:
    from pathlib import Path
    from signal import Signals

    from tests.commands import Workplace
    from tests.servers import InferenceServer

DAY = 86400.0


def job_of(workplace: Workplace, count: int = 10) -> Path:
    workplace.write_rows(rows(range(count)))
    return workplace.job(policy="concurrency=4, backoff=Backoff(first=0.01), breaker=1000, grace=1")


def names_in(log: str) -> list[str]:
    """Return the names of the events, each once if repeated in a row."""
    names = [line.split()[2] for line in log.splitlines()]
    return [name for number, name in enumerate(names) if number == 0 or names[number - 1] != name]


def test_a_run_is_logged_from_beginning_to_end(workplace: Workplace) -> None:
    job = job_of(workplace)
    assert workplace.run("run", "--quiet", job).err == ""
    ended = workplace.run("logs", "1")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == event_log(workplace.ledger, 1).read_text()
    names = names_in(ended.out)
    assert [names[0], names[-1]] == ["run_began", "run_ended"]
    assert {"source_read", "endpoint_awake", "session_ended", "items_settled", "delivered"} <= set(names)
    assert "items_settled completed=10 discarded=0 to_retry=0 left=0" in ended.out
    assert workplace.run("logs", "--tail", "1").out == ended.out.splitlines()[-1] + "\n"


def test_v_prints_events_to_standard_error_and_vv_each_failed_attempt(
    workplace: Workplace, server: InferenceServer
) -> None:
    given = rows(range(4))
    given[1] = given[1] | {"text": "flaky"}
    workplace.write_rows(given)
    job = workplace.job(policy="concurrency=1, backoff=Backoff(first=0.01)")
    said = workplace.run("-v", "run", "--quiet", job).err
    assert "endpoint_awake endpoint=" in said
    assert "attempt_failed" not in said
    server.reset()
    given[2] = given[2] | {"text": "flaky again"}
    workplace.write_rows(given)
    said = workplace.run("-vv", "run", "--quiet", job).err
    assert "endpoint_awake endpoint=" in said
    assert said.count("attempt_failed endpoint=") == 2
    assert "status=503" in said
    assert "state_seen endpoint=" in said


def test_many_failures_become_a_few_lines_and_a_count(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows(rows(range(60)))
    server.behave(status=400)
    job = workplace.job(policy="concurrency=4, breaker=1000, max_error_rate=1.0, max_attempts=1")
    assert workplace.run("run", "--quiet", job).code in {1, 3}
    failures = [line for line in workplace.run("logs").out.splitlines() if " attempt_failed " in line]
    assert len(failures) == 6
    assert failures[-1].endswith(" repeated=55")


def test_after_kill_9_only_whole_lines_remain_and_the_next_process_appends(
    workplace: Workplace, server: InferenceServer
) -> None:
    server.behave(hold_after=3)
    job, log = job_of(workplace), event_log(workplace.ledger, 1)
    with workplace.start("run", "--quiet", job) as running:
        until(lambda: log.exists() and "endpoint_awake" in log.read_text())
        running.kill()
    left = log.read_text()
    assert left.endswith("\n")
    server.behave()
    assert workplace.run("run", "--quiet", job).code == 0
    assert log.read_text().startswith(left)
    assert log.read_text().count(" run_began ") == 2


def test_a_log_can_be_followed_while_the_run_continues(workplace: Workplace, server: InferenceServer) -> None:
    server.behave(hold_after=3)
    job = job_of(workplace)
    with workplace.start("run", "--quiet", job) as running:
        until(lambda: workplace.count("run"))
        until(event_log(workplace.ledger, 1).exists)
        with workplace.start("logs", "1", "--follow") as following:
            server.behave()
            assert running.end().code == 0
            followed = following.end()
    assert (followed.code, followed.err) == (0, "")
    assert followed.out == event_log(workplace.ledger, 1).read_text()
    assert "run_ended" in followed.out
    assert workplace.run("logs", "1", "-f", "--tail", "1").out == followed.out.splitlines()[-1] + "\n"


@pytest.mark.parametrize(("number", "code", "said"), [(SIGINT, 130, "orchestrator: interrupted\n"), (SIGTERM, -15, "")])
def test_following_a_log_is_ended_by_a_signal_without_advice(
    workplace: Workplace, server: InferenceServer, number: Signals, code: int, said: str
) -> None:
    server.behave(hold_after=3)
    with workplace.start("run", "--quiet", job_of(workplace)):
        until(event_log(workplace.ledger, 1).exists)
        with workplace.start("logs", "1", "--follow") as following:
            assert following.process.stdout is not None
            assert following.process.stdout.readline()
            following.send(number)
            ended = following.end()
        server.behave()
    assert (ended.code, ended.err) == (code, said)


def test_a_log_is_deleted_with_its_run(workplace: Workplace) -> None:
    job = job_of(workplace)
    assert workplace.run("run", "--quiet", job).code == 0
    assert workplace.run("run", "--quiet", job_of(workplace, 12)).code == 0
    workplace.change("UPDATE run SET finished_at = ? WHERE id = 1", [time.time() - 40 * DAY])
    assert workplace.run("prune", "--older-than", "30d").code == 0
    assert [event_log(workplace.ledger, run).exists() for run in (1, 2)] == [False, True]


@pytest.mark.parametrize("run", ["1", "talk"])
def test_a_run_without_a_log_is_reported(workplace: Workplace, run: str) -> None:
    assert workplace.run("run", "--quiet", job_of(workplace)).code == 0
    event_log(workplace.ledger, 1).unlink()
    ended = workplace.run("logs", run)
    assert (ended.code, ended.out) == (2, "")
    assert "run 1 of talk has no log" in ended.line


def test_an_unwritable_log_does_not_stop_the_run(workplace: Workplace) -> None:
    workplace.folder.joinpath("ledger.db.runs").write_text("in the way")
    ended = workplace.run("run", "--quiet", job_of(workplace))
    assert ended.code == 0
    assert ended.line.endswith("cannot be written: File exists; the run continues without it")
    assert len(workplace.outputs()) == 10


def test_status_names_the_log_of_a_run_that_ended_early(workplace: Workplace, server: InferenceServer) -> None:
    server.behave(status=401)
    assert workplace.run("run", "--quiet", job_of(workplace)).code == 1
    assert "see what happened: orchestrator logs 1" in workplace.run("status").err
