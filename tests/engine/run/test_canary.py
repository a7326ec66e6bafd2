"""A canary: so many items are asked first, and what the rest would cost decides whether it is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from orchestrator import Job, Policy
from orchestrator.domain.errors import CanaryEnded, TooExpensive, UsageError
from orchestrator.domain.run import RunState
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from tests.engine.run.test_estimate import billed, planned, server, texts
from tests.engine.scripted import job_of, run
from tests.unguarded import UNGUARDED

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.engine.run.run_result import RunResult
    from orchestrator.store import Store


async def with_canary(job: Job, store: Store, items: int = 32, *, only: bool = False) -> RunResult:
    request = replace(RunRequest(job), canary=items, only_canary=only)
    return await run_job(request, store, Progress(), Stop(), UNGUARDED)


async def test_a_canary_is_asked_alone_and_its_answers_are_kept(store: Store, tmp_path: Path) -> None:
    found, endpoint = texts(200), server()
    job = job_of(found, endpoint, tmp_path, Policy(concurrency=16))
    with pytest.raises(CanaryEnded, match="with 32 of 200 items done"):
        await with_canary(job, store, only=True)
    assert endpoint.calls == ["resume", "pause"]
    assert (await store.runs.find("1")).state is RunState.STOPPED
    lengths = sorted(map(len, endpoint.texts))
    assert len(lengths) == 32
    whole = sorted(map(len, found))
    assert sum(lengths) / 32 == pytest.approx(sum(whole) / 200, rel=0.1)  # they are spread over the lengths
    assert (lengths[0] < whole[10], lengths[-1] > whole[-10]) == (True, True)
    await run(job, store)
    assert sorted(endpoint.texts) == sorted(found)  # nothing is asked twice


async def test_the_plan_after_a_canary_says_what_the_rest_costs(store: Store, tmp_path: Path) -> None:
    job = job_of(texts(400), server(), tmp_path, Policy(concurrency=16))
    with pytest.raises(CanaryEnded):
        await with_canary(job, store, only=True)
    estimate = await planned(job, store)
    assert estimate.cost is not None
    await run(job, store)
    assert estimate.awake_seconds == pytest.approx(await billed(store, 2), rel=0.2)


async def test_a_run_stops_after_its_canary_if_the_rest_is_too_expensive(store: Store, tmp_path: Path) -> None:
    found, endpoint = texts(400), server()
    job = job_of(found, endpoint, tmp_path, Policy(concurrency=16, max_cost=60.0))
    with pytest.raises(TooExpensive, match=r"368 more items would cost about .* but policy.max_cost is \$60.00"):
        await with_canary(job, store)
    assert endpoint.calls == ["resume", "pause"]
    assert len(endpoint.texts) == 32
    enough = replace(job, policy=Policy(concurrency=16, max_cost=1000.0))
    await with_canary(enough, store)
    assert sorted(endpoint.texts) == sorted(found)


async def test_a_run_goes_on_after_its_canary_in_the_same_awake_window(store: Store, tmp_path: Path) -> None:
    found, endpoint = texts(100), server()
    job = job_of(found, endpoint, tmp_path, Policy(concurrency=16, max_cost=1000.0))
    report = await with_canary(job, store)
    assert report.counts.completed == 100
    assert endpoint.calls == ["resume", "pause"]
    assert len({receipt.window_id for receipt in await store.receipts.since()}) == 1


async def test_nothing_else_is_asked_while_the_canary_is(store: Store, tmp_path: Path) -> None:
    found, endpoint = texts(100), server()
    await with_canary(job_of(found, endpoint, tmp_path, Policy(concurrency=64)), store, 16)
    first = endpoint.texts[:16]
    pairs, others = first[:4], first[4:]
    assert [len(text) for text in others] == sorted(map(len, others), reverse=True)
    assert max(map(len, pairs)) > min(map(len, others))
    assert endpoint.asked_at[4] > endpoint.asked_at[2] > endpoint.asked_at[0]


async def test_a_canary_that_covers_everything_leaves_nothing_to_ask(store: Store, tmp_path: Path) -> None:
    endpoint = server()
    job = job_of(texts(10), endpoint, tmp_path, Policy(concurrency=16))
    with pytest.raises(CanaryEnded):
        await with_canary(job, store, only=True)
    assert not (tmp_path / "out.jsonl").exists()  # a plan delivers nothing
    assert (await planned(job, store)).cost == 0
    await run(job, store)
    assert len(endpoint.texts) == 10
    assert (tmp_path / "out.jsonl").exists()


async def test_a_canary_asks_equal_requests_once(store: Store, tmp_path: Path) -> None:
    endpoint = server()
    job = job_of(["same"] * 50 + texts(20), endpoint, tmp_path, Policy(concurrency=16))
    report = await with_canary(job, store)
    assert report.counts.completed == 70
    assert endpoint.texts.count("same") == 1


async def test_failures_of_a_canary_are_judged_as_any(store: Store, tmp_path: Path) -> None:
    endpoint = server()
    report = await with_canary(job_of([*texts(40), "poison"], endpoint, tmp_path, Policy(concurrency=4)), store, 41)
    assert (report.counts.completed, report.counts.discarded) == (40, 1)


async def test_items_of_any_chunks_are_chosen_once(store: Store, tmp_path: Path) -> None:
    """Chunks are divided, and every row stays in exactly one."""
    job = job_of([f"{number}" for number in range(1200)], server(delay=0.001), tmp_path, Policy(concurrency=64))
    with pytest.raises(CanaryEnded):
        await with_canary(job, store, 100, only=True)
    async with store.database.read() as connection:
        chunks = (await connection.execute("SELECT lo, hi FROM chunk ORDER BY lo")).all()
    assert [row for lo, hi in chunks for row in range(lo, hi)] == list(range(1200))
    assert sum(hi - lo == 1 for lo, hi in chunks) >= 100


async def test_a_job_with_a_rollout_has_no_canary(store: Store, tmp_path: Path) -> None:
    async def rollout(row: dict[str, object], ask: object) -> object:
        return row

    job = job_of(["text"], server(), tmp_path)
    declared = Job(job.name, job.source, job.endpoint, job.sink, rollout=rollout)
    with pytest.raises(UsageError, match="without --canary"):
        await with_canary(declared, store)
    assert (await planned(declared, store)).reason == "how much a rollout asks is not known before it runs"
