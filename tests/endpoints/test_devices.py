"""Several workers on several devices: who sits where, and a whole run on two of them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import psutil
import pytest

from orchestrator import Job, Policy
from orchestrator.domain.errors import UsageError
from orchestrator.endpoints import LocalEndpoint
from orchestrator.endpoints.devices import Seat, accelerators, cores, seats
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from orchestrator.sinks import JsonlSink
from orchestrator.sources import IterableSource
from tests.unguarded import UNGUARDED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.store import Store

pytestmark = pytest.mark.unmeasured


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    accelerators.cache_clear()
    yield
    accelerators.cache_clear()


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with four accelerators, as far as its driver's program says."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\ntest "$1" = --query-gpu=index && printf "0\\n1\\n2\\n3\\n"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("four")
def test_every_accelerator_gets_a_worker_that_sees_only_it() -> None:
    each = max(1, cores() // 4)
    assert seats("all", 1, None) == [Seat(f"cuda:{n}", "cuda:0", str(n), each) for n in range(4)]
    assert [seat.visible for seat in seats(["cuda:3", "cuda:1"], 2, 1)] == ["3", "3", "1", "1"]
    assert len({seat.name for seat in seats("all", 2, 1)}) == 8
    with pytest.raises(UsageError, match="there is no device cuda:4: this process may use 4"):
        seats(["cuda:4"], 1, None)


@pytest.mark.usefixtures("four")
def test_a_number_names_that_accelerator() -> None:
    assert [seat.visible for seat in seats([3, 0], 1, 1)] == ["3", "0"]
    assert [(seat.name, seat.visible) for seat in seats(0, 2, 1)] == [("0/1", "0"), ("0/2", "0")]


def test_accelerators_that_the_user_has_hidden_stay_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6, 2")
    assert accelerators() == ("6", "2")
    assert [seat.visible for seat in seats("all", 1, 1)] == ["6", "2"]


def test_without_an_accelerator_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert seats("all", 2, None) == [Seat(f"cpu/{n}", "cpu", None, max(1, cores() // 2)) for n in (1, 2)]


def job_of(texts: list[str], endpoint: LocalEndpoint, folder: Path) -> Job:
    source = IterableSource([{"id": f"i{number}", "text": text} for number, text in enumerate(texts)], id="id")
    return Job("devices", source, endpoint, JsonlSink(folder / "out.jsonl"), policy=Policy(batch_size=8))


def workers() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it may be gone by now
            if "orchestrator.worker" in child.cmdline():
                found.append(child)
    return found


@pytest.fixture
def job(tmp_path: Path) -> Job:
    tiny_models = pytest.importorskip("tests.tiny_models", reason="needs the `local` extra", exc_type=ImportError)
    model = tiny_models.text_classifier(tmp_path / "model")
    endpoint = LocalEndpoint(str(model), "text-classification", workers_per_device=2)
    return job_of([f"text number {number}" for number in range(30_000)], endpoint, tmp_path)


@pytest.mark.untraced
@pytest.mark.model
async def test_two_workers_share_the_work_and_one_that_is_killed_is_started_again(store: Store, job: Job) -> None:
    progress, seen = Progress(), dict[int, dict[str, str]]()
    async with anyio.create_task_group() as group:
        group.start_soon(run_job, RunRequest(job), store, progress, Stop(), UNGUARDED)
        while len(seen) < 2 or not all(worker.settled for worker in progress.servers):
            seen |= {worker.pid: worker.environ() for worker in workers() if worker.pid not in seen}
            await anyio.sleep(0.01)
        settled, (victim, other) = progress.completed, workers()
        victim.kill()
        while not ({worker.pid for worker in workers()} - {victim.pid, other.pid}):
            await anyio.sleep(0.01)
        while progress.completed <= settled:
            await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    assert {environment["OMP_NUM_THREADS"] for environment in seen.values()} == {str(max(1, cores() // 2))}
    assert workers() == []
