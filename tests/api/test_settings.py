"""Settings: a program's ledger and settings file are those of every process that its runs start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import psutil
import pytest

from orchestrator import Job, arun, connect, run
from orchestrator.config import load_settings
from orchestrator.endpoints import CommandEndpoint, HttpEndpoint
from orchestrator.errors import UsageError
from orchestrator.sources import IterableSource
from tests.api.scripts import ran
from tests.commands import rows

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commands import Workplace
    from tests.servers import InferenceServer


async def test_the_guard_of_a_run_has_the_ledger_and_the_settings_file_of_the_program(
    tmp_path: Path, server: InferenceServer
) -> None:
    config, ledger, woken = tmp_path / "own.toml", tmp_path / "own.db", tmp_path / "awake"
    config.write_text("busy_seconds = 5")
    state = ["sh", "-c", f"test -e {woken} && echo up || echo down"]
    endpoint = CommandEndpoint(
        "mine", server.url, resume=["touch", str(woken)], state=state, pause=["rm", str(woken)], look_every=0.05
    )
    job = Job("talk", IterableSource(rows(range(2)), id="id"), endpoint)
    await anyio.to_thread.run_sync(lambda: server.behave(hold_after=0))
    async with connect(ledger, config=config) as app, anyio.create_task_group() as group:
        group.start_soon(app.run, job)
        await anyio.to_thread.run_sync(server.wait, lambda stats: stats.in_flight)
        (guard,) = [one.cmdline() for one in psutil.Process().children() if "watch.py" in " ".join(one.cmdline())]
        assert guard[guard.index("--config") + 1] == str(config)
        assert guard[guard.index("--db") + 1] == str(ledger)
        await anyio.to_thread.run_sync(server.behave)
    assert not woken.exists()


def test_a_job_file_finds_its_named_endpoint_in_the_settings_file_of_the_program(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(3)))
    config = workplace.folder / "own.toml"
    config.write_text(f'[endpoints.ours]\nkind = "http"\nurl = "{workplace.url}"\n')
    job = workplace.job(prelude="from orchestrator.endpoints import named", endpoint="named('ours')")
    ended = ran(workplace, f"say(len(run(Path({str(job)!r}), config=Path({str(config)!r}))))")
    assert (ended.out, ended.err) == ("3\n", "")


def test_settings_from_another_file_are_passed_on_and_those_of_the_environment_are_not(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("busy_seconds = 5")
    assert load_settings(file, "other.db").options == ("--config", str(file))
    assert load_settings(None, None, {"ORCHESTRATOR_CONFIG": str(file)}).options == ()


def test_settings_that_cannot_be_used_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"), connect(config=tmp_path / "none.toml"):
        pass


def test_a_closed_application_says_that_it_is_closed(tmp_path: Path) -> None:
    with connect(tmp_path / "ledger.db") as app:
        pass
    with pytest.raises(UsageError, match="this application is closed"):
        app.runs()


def test_what_is_not_a_job_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is neither a Job nor the path of a job file"):
        run(3, ledger=tmp_path / "ledger.db")  # type: ignore[arg-type]
    for path in (tmp_path / "job.py", str(tmp_path / "job.py")):
        with pytest.raises(UsageError, match="there is no job file"):
            run(path, ledger=tmp_path / "ledger.db")


def test_messages_speak_of_calls_and_arguments(tmp_path: Path) -> None:
    job = Job("talk", IterableSource([], id="id"), HttpEndpoint("http://127.0.0.1:9/"))
    with connect(tmp_path / "ledger.db") as app:
        with pytest.raises(UsageError, match=r"^reuse=\['other'\]: job 'other' "):
            app.run(job, reuse=["other"])
        with pytest.raises(UsageError, match=r"; see `app\.runs\(\)`$"):
            app.result("talk")


def test_a_connection_that_is_not_open_says_how_to_open_it(tmp_path: Path) -> None:
    with pytest.raises(AttributeError, match="a connection has no 'run': open it with `with connect"):
        connect(tmp_path / "ledger.db").run(tmp_path / "job.py")  # type: ignore[attr-defined]


def test_a_coroutine_outside_asyncio_is_refused(tmp_path: Path) -> None:
    coroutine = arun(tmp_path / "job.py")
    with pytest.raises(UsageError, match="under trio, call `run` in a thread"):
        coroutine.send(None)


def test_one_connection_can_be_entered_twice(tmp_path: Path) -> None:
    connection = connect(tmp_path / "ledger.db")
    with connection as outer:
        with connection:
            pass
        with pytest.raises(UsageError, match="there is no ledger"):
            outer.runs()


def test_a_plan_makes_no_ledger(tmp_path: Path) -> None:
    job = Job("talk", IterableSource(rows(range(2)), id="id"), HttpEndpoint("http://127.0.0.1:9/"))
    with connect(tmp_path / "ledger.db") as app:
        assert app.plan(job).counts.new == 2
        with pytest.raises(UsageError, match="there is no ledger"):
            app.runs()
    assert list(tmp_path.iterdir()) == []


def test_a_plan_says_what_asking_takes_and_may_ask_a_canary_first(tmp_path: Path, server: InferenceServer) -> None:
    job = Job("talk", IterableSource(rows(range(60)), id="id"), HttpEndpoint(server.url))
    with connect(tmp_path / "ledger.db") as app:
        assert "no earlier run of the job has asked enough" in str(app.plan(job).estimate)
        found = app.plan(job, canary=32, progress=False)
        assert (found.counts.to_ask, found.counts.reused) == (28, 32)
        assert found.estimate.seconds is not None
        assert server.stats().requests == 32
        with pytest.raises(UsageError, match=r"^canary must be at least 1, not 0$"):
            app.plan(job, canary=0)
        assert len(app.run(job, canary=8, progress=False)) == 60


def test_a_load_test_sends_the_requests_of_a_job_or_those_of_ours(tmp_path: Path, server: InferenceServer) -> None:
    job = Job("talk", IterableSource(rows(range(5)), id="id"), HttpEndpoint(server.url))
    with connect(tmp_path / "ledger.db") as app:
        found = app.bench(job, seconds=0.3, concurrency=2, slo=["p95=1m"])
        assert (found.met, found.shown.most_in_flight) == (True, 2)
        assert "main thread" in found.client
        assert server.stats().asked == {row["text"] for row in rows(range(5))}
        assert app.bench(server.url, seconds=0.3, rate=20.0).shown.answered > 0
        with pytest.raises(UsageError, match=r"^give one of `rate=`, `concurrency=` and `sweep=`$"):
            app.bench(server.url, rate=20.0, sweep=True)
        with pytest.raises(UsageError, match=r"^`remember=True` needs `sweep=True`, which finds"):
            app.bench(server.url, remember=True)
        with pytest.raises(UsageError, match=r"^`rate=` must be above 0"):
            app.bench(server.url, rate=0.0)
