"""The members of an endpoint as real processes, in whole runs: late, killed, never ready, or idle."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import orjson
import psutil

from orchestrator import Job, Policy
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from orchestrator.sinks import JsonlSink
from orchestrator.sources import IterableSource
from tests.commands import DEADLINE, until
from tests.endpoints.test_engines import PRELUDE, SMALL
from tests.endpoints.test_local_server import held, server
from tests.unguarded import UNGUARDED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.store import Store
    from tests.commands import Workplace


def job_of(folder: Path, texts: Sequence[str], *arguments: object, replicas: int = 2) -> Job:
    """Return a job whose replica N sees GPU N, from 0."""
    rows = [{"id": f"i{number}", "text": text} for number, text in enumerate(texts)]
    gpus = [[number] for number in range(replicas)]
    endpoint = server("--hold-until", folder / "go", "--begun", folder / "begun", *arguments, gpus=gpus, grace=0.0)
    policy = Policy(concurrency=8, max_attempts=1)
    return Job("members", IterableSource(rows, id="id"), endpoint, JsonlSink(folder / "out.jsonl"), policy=policy)


def gpus_in(job: Job) -> set[str]:
    """Return the replicas that have answered."""
    return {orjson.loads(line)["output"]["gpus"] for line in Path(str(job.output)).read_bytes().splitlines()}


def program_on(gpu: int) -> psutil.Process | None:
    """Return the server program of a replica."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it may have ended by now
            of_server = any(word.endswith("server_program.py") for word in child.cmdline()[:2])
            if of_server and child.environ().get("CUDA_VISIBLE_DEVICES") == str(gpu):
                return child
    return None


async def test_a_late_replica_joins_the_run(store: Store, tmp_path: Path) -> None:
    job = job_of(tmp_path, [f"hold {n}" for n in range(40)], "--loads-until", tmp_path / "up", "--only-on", 1)
    progress = Progress()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_job, RunRequest(job), store, progress, Stop(), UNGUARDED)
        await held(tmp_path / "begun", 4)  # the first replica works alone
        assert [(member.name, member.phase) for member in progress.servers] == [
            ("small replica 1", "asking"),
            ("small replica 2", "waking"),
        ]
        (tmp_path / "up").touch()
        await held(tmp_path / "begun", 8)
        (tmp_path / "go").touch()
    assert (progress.completed, progress.retried) == (40, 0)
    assert gpus_in(job) == {"0", "1"}


async def test_a_killed_replica_is_restarted_while_the_other_continues_and_no_item_loses_an_attempt(
    store: Store, tmp_path: Path
) -> None:
    go, up, starts = tmp_path / "go", tmp_path / "up", anyio.Path(tmp_path / "starts")
    arguments = ["--loads-until", up, "--only-on", 0, "--starts", starts]
    job, progress = job_of(tmp_path, [f"hold {number}" for number in range(200)], *arguments), Progress()
    up.touch()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_job, RunRequest(job), store, progress, Stop(), UNGUARDED)
        await held(tmp_path / "begun", 8)  # four leased by each replica
        up.unlink()
        victim = program_on(0)
        assert victim is not None
        victim.send_signal(signal.SIGKILL)
        go.touch()
        with anyio.fail_after(DEADLINE):
            while progress.completed < 20 or len(await starts.read_bytes()) < 3:  # it is down, and restarting
                await anyio.sleep(0.001)
            go.unlink()
            up.touch()
            while [str(member.phase) for member in progress.servers] != ["asking", "asking"]:
                await anyio.sleep(0.001)
            go.touch()
    assert (progress.completed, progress.discarded, progress.retried) == (200, 0, 0)
    assert gpus_in(job) == {"0", "1"}


async def test_a_run_finishes_although_one_of_three_replicas_is_never_ready(store: Store, tmp_path: Path) -> None:
    never = ["--loads-until", tmp_path / "never", "--only-on", 1]
    job = job_of(tmp_path, [f"text {number}" for number in range(40)], *never, replicas=3)
    report = await run_job(RunRequest(job), store, Progress(), Stop(), UNGUARDED)
    assert (report.counts.completed, report.out) == (40, {})
    assert "1" not in gpus_in(job)
    assert program_on(1) is None


async def test_an_idle_replica_is_stopped_while_the_other_finishes(store: Store, tmp_path: Path) -> None:
    job = job_of(tmp_path, ["a", "b", "c", "hold"])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_job, RunRequest(job), store, Progress(), Stop(), UNGUARDED)
        await held(tmp_path / "begun", 1)
        with anyio.fail_after(DEADLINE):
            while sum(program_on(gpu) is not None for gpu in (0, 1)) != 1:
                await anyio.sleep(0.01)
        (tmp_path / "go").touch()
    assert program_on(0) is None
    assert program_on(1) is None


def test_status_says_which_member_is_not_working_and_why(workplace: Workplace) -> None:
    workplace.write_rows([{"id": f"i{number}", "text": f"hold {number}"} for number in range(8)])
    options: dict[str, Any] = {
        "--hold-until": workplace.folder / "go",
        "--begun": workplace.folder / "begun",
        "--loads-until": workplace.folder / "never",
        "--only-on": 1,
    }
    words = "".join(f", {name!r}, {str(value)!r}" for name, value in options.items())
    job = workplace.job(endpoint=f"{SMALL}{words}], name='small', gpus=[[0], [1]])", prelude=PRELUDE)
    with workplace.start("run", "--quiet", job) as running:
        until(lambda: "small replica 2: loading" in workplace.run("status").out)
        (workplace.folder / "go").touch()
        ended = running.end()
    assert ended.code == 0, ended.err
    assert len(workplace.outputs()) == 8
