"""The application without the command line: a script uses all of it; a billed endpoint always has a guard."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import anyio
import orjson
import psutil
import pytest

from orchestrator import Backoff, Job, Policy
from orchestrator.app import open_app
from orchestrator.config import Settings
from orchestrator.domain.errors import RunStopped, UsageError
from orchestrator.domain.item import ItemState
from orchestrator.domain.terms import Spent, Terms
from orchestrator.endpoints import CommandEndpoint, HttpEndpoint
from orchestrator.engine.awake.reaper import registered
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from orchestrator.engine.tasks import task_group
from orchestrator.sinks import JsonlSink
from orchestrator.sources import IterableSource
from orchestrator.store.windows import Leaving
from tests.commands import rows
from tests.servers import answer_to

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.ports import Endpoint
    from orchestrator.store import Store
    from tests.commands import Workplace
    from tests.servers import InferenceServer

_SCRIPT = """
import json
import sys
from pathlib import Path

import anyio

from orchestrator.app import open_app
from orchestrator.config import Settings
from orchestrator.engine.run.run_request import request_from
from orchestrator.engine.stop import Stop


async def serve_until_finished(app, run):
    stop = Stop()
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: app.serve(stop))
        while (await app.status(str(run))).state != "finished" or (await app.queue())[0]:
            await anyio.sleep(0.05)
        stop.drain()


async def main(jobfile):
    request = request_from(Path(jobfile))
    async with open_app(Settings(db="ledger.db")) as app:
        plan = (await app.plan(request)).counts
        result = await app.run(request)
        rows = [row async for row in app.results("talk")]
        results = [[row.id, row.state, row.output, row.error and row.error["status"]] for row in rows]
        queued = await app.submit(request)
        await serve_until_finished(app, queued.run.id)
        report = await app.report(str(queued.run.id))
        said = {
            "planned": plan.to_ask,
            "discarded": result.counts.discarded,
            "results": results,
            "runs": [run.id for run, _ in await app.runs()],
            "report": [run.state for run in report.runs],
            "swept": [swept.endpoint for swept in await app.sweep()],
        }
    said["front_ends"] = [name for name in sys.modules if name.startswith(("orchestrator.cli", "typer", "rich"))]
    print(json.dumps(said))


anyio.run(main, sys.argv[1])
"""


def job_at(endpoint: Endpoint, folder: Path) -> Job:
    source = IterableSource(rows(range(6)), id="id")
    sink = JsonlSink(folder / "out.jsonl", keep=["text"])
    return Job(
        "talk", source, endpoint, sink, request="{text}", policy=Policy(concurrency=2, backoff=Backoff(first=0.01))
    )


def settings_in(folder: Path) -> Settings:
    return Settings(db=str(folder / "ledger.db"))


def test_a_script_runs_submits_reads_reports_and_sweeps_without_the_command_line(
    workplace: Workplace, server: InferenceServer
) -> None:
    workplace.write_rows([*rows(range(5)), {"id": "bad", "text": "poison"}])
    script = workplace.folder / "script.py"
    script.write_text(_SCRIPT)
    command = [sys.executable, str(script), str(workplace.job())]
    done = subprocess.run(command, cwd=workplace.folder, capture_output=True, check=True, timeout=120)
    said = orjson.loads(done.stdout)
    answered = [
        [f"i{number}", "completed", {"said": answer_to(f"text of {number}"), "pad": ""}, None] for number in range(5)
    ]
    assert said == {
        "planned": 6,
        "discarded": 1,
        "results": [*answered, ["bad", "discarded", None, 400]],
        "runs": [2, 1],
        "report": ["finished"],
        "swept": [],
        "front_ends": [],
    }
    assert server.quiet().requests == 6


async def test_a_live_run_is_stopped_from_another_application_on_the_same_ledger(
    tmp_path: Path, server: InferenceServer
) -> None:
    server.behave(hold_after=3)
    ended = list[str]()
    async with open_app(settings_in(tmp_path)) as one, open_app(settings_in(tmp_path), create=False) as other:

        async def run() -> None:
            with pytest.raises(RunStopped) as stopped:
                await one.run(RunRequest(job_at(HttpEndpoint(server.url), tmp_path)))
            ended.append(str(stopped.value))

        async with task_group() as group:
            group.start_soon(run)
            await anyio.to_thread.run_sync(server.wait, lambda stats: stats.requests > 3)
            found, was = await other.stop("talk")
        assert (found.id, was.ended) == (1, False)
        assert [line.startswith("run 1 was cancelled") for line in ended] == [True]
        states = [row.state async for row in other.results("1")]
        assert states.count(ItemState.COMPLETED) == 3
        assert set(states) == {ItemState.COMPLETED, ItemState.CANCELLED}


async def test_running_a_job_at_a_billed_endpoint_starts_a_guard_automatically(
    tmp_path: Path, server: InferenceServer
) -> None:
    server.behave(hold_after=0)
    woken = tmp_path / "awake"
    endpoint = CommandEndpoint(
        "mine",
        server.url,
        resume=["touch", str(woken)],
        state=["sh", "-c", f"test -e {woken} && echo up || echo down"],
        pause=["rm", str(woken)],
        look_every=0.05,
    )
    async with open_app(settings_in(tmp_path)) as app, task_group() as group:
        group.start_soon(app.run, RunRequest(job_at(endpoint, tmp_path)))
        await anyio.to_thread.run_sync(server.wait, lambda stats: stats.in_flight)
        assert woken.exists()
        assert len(guards()) == 1
        server.behave()
    assert not woken.exists()
    assert guards() == []


@pytest.mark.parametrize("payer", ["run", "sweep", "daemon"])
async def test_what_the_guard_of_a_lost_ledger_gave_up_pausing_is_paused(
    payer: str, tmp_path: Path, server: InferenceServer
) -> None:
    woken = tmp_path / "awake"
    woken.touch()
    state = ["sh", "-c", f"test -e {woken} && echo up || echo down"]
    endpoint = CommandEndpoint("lost", server.url, resume=["true"], state=state, pause=["rm", "-f", str(woken)])
    async with endpoint.control() as control:
        assert control.terms is not None
        owed = {"endpoint": "lost", "pause_with": control.terms.pause_with, "to_zero": False, "opened_at": 1.0}
    trace = tmp_path / "ledger.db.guard-0"
    trace.write_bytes(orjson.dumps({"file": [0, 0], **owed}, default=dict) + b"\nit was forbidden\n")
    async with open_app(settings_in(tmp_path)) as app:
        assert [one.endpoint for one in await app.owed()] == ["lost"]
        match payer:
            case "run":
                result = await app.run(RunRequest(job_at(HttpEndpoint(server.url), tmp_path)))
                assert [one.endpoint for one in result.swept] == ["lost"]
            case "sweep":
                assert [one.endpoint for one in await app.sweep()] == ["lost"]
            case _:
                stop = Stop()
                async with task_group() as group:
                    group.start_soon(app.serve, stop)
                    while await app.owed():
                        await anyio.sleep(0.05)
                    stop.drain()
        assert await app.owed() == []
    assert not woken.exists()
    assert not trace.exists()


async def test_a_debt_of_a_lost_ledger_leaves_an_endpoint_alone_while_it_is_in_use(store: Store) -> None:
    async with registered(store) as me:
        window = await store.windows.enter(Terms("shared"), me)
        assert window is not None
        await store.windows.adopt("shared", {"kind": "other"}, to_zero=True, opened_at=1.0)
        assert await store.windows.debts() == []
        assert await store.windows.leave(window, me, Spent()) == (Leaving.OWED, True)


async def test_an_application_without_a_ledger_fails_unless_it_may_create_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no ledger"):
        async with open_app(settings_in(tmp_path), create=False):
            pass
    async with open_app(settings_in(tmp_path)) as app:
        with pytest.raises(UsageError, match="no run 'talk'"):
            await app.stop("talk")


async def test_an_order_that_sets_nothing_or_something_unknown_is_refused(tmp_path: Path) -> None:
    async with open_app(settings_in(tmp_path)) as app:
        for controls, named in [({}, "nothing"), ({"pace": 3}, "pace")]:
            with pytest.raises(UsageError, match=f"sets held or concurrency, not {named}"):
                await app.order("talk", **controls)


def guards() -> list[psutil.Process]:
    """Return the guard processes of this process."""
    return [
        child for child in psutil.Process().children() if any(word.endswith("watch.py") for word in child.cmdline())
    ]
