"""Ctrl-C and SIGTERM, once and twice: exit 130, leases released, no attempt counted, the next run finishes."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.commands import rows, until
from tests.servers import answer_to

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commands import Ended, Workplace
    from tests.servers import InferenceServer

ITEMS = 60
CONCURRENCY = 8
ANSWERED = 20  # answers before the server holds back all others
HOW_TO_GO_ON = "run the same command again to continue"
GRACE = 600.0  # longer than any test: a run that ends sooner did not wait for it


@pytest.fixture
def job(workplace: Workplace, server: InferenceServer) -> Path:
    workplace.write_rows(rows(range(ITEMS)))
    server.behave(hold_after=ANSWERED)
    return workplace.job(policy=f"concurrency={CONCURRENCY}, grace={GRACE}")


def stopped(workplace: Workplace, ended: Ended, completed: int) -> None:
    """Check that it ended as an interrupted run must, and that the ledger agrees."""
    assert ended.code == 130
    assert HOW_TO_GO_ON in ended.err
    assert "Traceback" not in ended.err
    status = workplace.run("status", "--json").json
    assert status["state"] == "stopped"
    assert status["counts"]["leased"] == 0
    assert (status["counts"]["completed"], status["counts"]["available"]) == (completed, ITEMS - completed)
    items = workplace.run("items", "talk", "--json").json["items"]
    assert {(item["state"], item["attempts"]) for item in items} == {("completed", 1), ("available", 0)}
    assert workplace.count("process", "state = 'live'") == 0


def finishes(workplace: Workplace, job: Path) -> None:
    ended = workplace.run("run", "--quiet", job)
    assert (ended.code, ended.err) == (0, "")
    assert [row["output"]["said"] for row in workplace.outputs()] == [
        answer_to(str(row["text"])) for row in rows(range(ITEMS))
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_waits_for_answers_in_flight(
    workplace: Workplace, server: InferenceServer, job: Path, number: signal.Signals
) -> None:
    ignoring = f"import signal\nsignal.signal(signal.{number.name}, signal.SIG_IGN)\n"  # as an imported library might
    job.write_text(ignoring + job.read_text(encoding="utf-8"), encoding="utf-8")
    with workplace.start("run", job) as running:
        server.wait(lambda stats: stats.requests == ANSWERED + CONCURRENCY)
        running.send(number)
        running.says("stopping: waiting for the answers in flight")
        server.behave()
        ended = running.end()
    stopped(workplace, ended, completed=ANSWERED + CONCURRENCY)
    finishes(workplace, job)
    stats = server.quiet()
    assert (stats.requests, stats.duplicates) == (ITEMS, 0)  # the answers that were paid for are kept


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_aborts(
    workplace: Workplace, server: InferenceServer, job: Path, number: signal.Signals
) -> None:
    with workplace.start("run", job) as running:
        server.wait(lambda stats: stats.requests == ANSWERED + CONCURRENCY)
        until(lambda: workplace.count("result") == ANSWERED)
        running.send(number)
        running.says("stopping")  # otherwise Python may merge the two signals
        running.send(number)
        ended = running.end()
    stopped(workplace, ended, completed=ANSWERED)
    server.behave()
    finishes(workplace, job)
    assert server.quiet().duplicates <= CONCURRENCY


def test_a_first_signal_waits_no_longer_than_the_grace(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows(rows(range(ITEMS)))
    server.behave(hold_after=ANSWERED)
    job = workplace.job(policy=f"concurrency={CONCURRENCY}, grace=0.3")
    with workplace.start("run", "--quiet", job) as running:
        server.wait(lambda stats: stats.requests == ANSWERED + CONCURRENCY)
        until(lambda: workplace.count("result") == ANSWERED)
        running.send(signal.SIGINT)
        ended = running.end()
    stopped(workplace, ended, completed=ANSWERED)


def test_an_interrupted_run_is_reported_as_json(workplace: Workplace, server: InferenceServer, job: Path) -> None:
    with workplace.start("run", "--json", "--quiet", job) as running:
        server.wait(lambda stats: stats.requests == ANSWERED + CONCURRENCY)
        running.send(signal.SIGINT)
        running.send(signal.SIGINT)
        ended = running.end()
    assert ended.code == 130
    assert ended.json["exit_code"] == 130
    assert HOW_TO_GO_ON in ended.json["error"]
    assert HOW_TO_GO_ON in ended.line


def test_repeated_ctrl_c_makes_no_difference(workplace: Workplace, server: InferenceServer, job: Path) -> None:
    with workplace.start("run", job) as running:
        server.wait(lambda stats: stats.requests == ANSWERED + CONCURRENCY)
        until(lambda: workplace.count("result") == ANSWERED)
        while running.process.poll() is None:
            running.send(signal.SIGINT)
        ended = running.end()
    stopped(workplace, ended, completed=ANSWERED)
    server.behave()
    finishes(workplace, job)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
def test_a_signal_during_startup_leaves_no_traceback(workplace: Workplace, job: Path, seconds: float) -> None:
    with workplace.start("run", job, fresh=True) as running:
        until(lambda: running.catches(signal.SIGTERM))  # Python itself does not: from here on it is our program
        time.sleep(seconds)  # moments during startup
        running.send(signal.SIGINT)
        running.send(signal.SIGINT)
        ended = running.end()
    assert ended.code == 130
    assert "Traceback" not in ended.err


@pytest.mark.slow
@pytest.mark.parametrize("how", ["Ctrl-C twice", "kill -9", "kill -9 while loading"])
def test_no_worker_process_outlives_the_run(workplace: Workplace, how: str) -> None:
    tiny_models = pytest.importorskip("tests.tiny_models", reason="needs the `local` extra", exc_type=ImportError)
    model = tiny_models.text_classifier(workplace.folder / "model")
    many = 20_000
    workplace.write_rows(rows(range(many)))
    job = workplace.job(
        endpoint=f"LocalEndpoint({str(model)!r}, task='text-classification', threads=1)", policy="batch_size=4"
    )
    with workplace.start("run", job) as running:
        until(lambda: workers(running.pid))
        if how != "kill -9 while loading":
            until(lambda: workplace.count("result"))
        if how == "Ctrl-C twice":
            running.send(signal.SIGINT)
            running.send(signal.SIGINT)
            ended = running.end()
            assert ended.code == 130
            assert HOW_TO_GO_ON in ended.err
            assert workplace.processes() == []
        else:
            running.kill()
            until(lambda: not workplace.processes())
    assert workplace.count("result") < many
    assert workplace.count("attempt") == 0


def workers(pid: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(pid).children() if "orchestrator.worker" in child.cmdline()]
