"""Servers of ours whose engine dies while their process lives on: real processes, whole runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator import Backoff, Job, Policy
from orchestrator.domain.errors import FailureKind, NotAwake
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from orchestrator.sinks import JsonlSink
from orchestrator.sources import IterableSource
from tests.endpoints.test_local_server import server
from tests.unguarded import UNGUARDED

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.engine.run.run_result import RunResult
    from orchestrator.store import Store

ITEMS = 30


async def finished(
    store: Store, folder: Path, *arguments: object, replicas: int = 1, within: float = 300.0
) -> RunResult:
    rows = [{"id": f"i{number}", "text": f"text {number}"} for number in range(ITEMS)]
    endpoint = server("--starts", folder / "starts", *arguments, replicas=replicas, grace=0.0)
    policy = Policy(concurrency=4, timeout=within, max_attempts=1, backoff=Backoff(first=0.001, cap=0.001))
    job = Job("dead", IterableSource(rows, id="id"), endpoint, JsonlSink(folder / "out.jsonl"), policy=policy)
    return await run_job(RunRequest(job), store, Progress(), Stop(), UNGUARDED)


@pytest.mark.parametrize("unwell", [(), ("--unwell",)], ids=["well", "unwell"])
@pytest.mark.parametrize("how", ["error", "hang"])
async def test_a_server_with_a_dead_engine_is_restarted_and_no_item_loses_an_attempt(
    how: str, unwell: tuple[str, ...], store: Store, tmp_path: Path
) -> None:
    within = 4.0 if how == "hang" else 300.0
    report = await finished(store, tmp_path, "--dead-after", 20, "--dead-how", how, *unwell, within=within)
    assert (report.counts.completed, report.counts.discarded) == (ITEMS, 0)
    assert (tmp_path / "starts").read_bytes() == b".."


async def test_a_run_ends_if_all_replicas_are_dead_for_good(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotAwake, match=r"endpoint small replica [12] .*fails every request .*EngineCore"):
        await finished(store, tmp_path, "--dead-after", 10, "--dead-for-good", tmp_path / "dead", replicas=2)


async def test_a_server_that_dies_at_once_is_restarted_twice_and_then_given_up(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotAwake, match=r"fails every request .*EngineCore"):
        await finished(store, tmp_path, "--dead-after", 20, "--dead-for-good", tmp_path / "dead")
    assert (tmp_path / "starts").read_bytes() == b"..."


async def test_a_row_that_kills_the_engine_whenever_it_is_asked_is_discarded_for_that(
    store: Store, tmp_path: Path
) -> None:
    rows = [{"id": f"i{number}", "text": "kill the engine" if number == 3 else f"text {number}"} for number in range(8)]
    endpoint = server("--starts", tmp_path / "starts", grace=0.0)
    policy = Policy(concurrency=4, backoff=Backoff(first=0.001, cap=0.001))
    job = Job("deadly", IterableSource(rows, id="id"), endpoint, JsonlSink(tmp_path / "out.jsonl"), policy=policy)
    report = await run_job(RunRequest(job), store, Progress(), Stop(), UNGUARDED)
    assert (report.counts.completed, report.counts.discarded) == (7, 1), report.causes
    assert [(cause.kind, cause.items) for cause in report.causes] == [(FailureKind.CRASHED, 1)]
