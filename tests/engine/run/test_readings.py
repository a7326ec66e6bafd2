from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from orchestrator import Job, Policy
from orchestrator.domain.errors import AskedToStop
from orchestrator.domain.latency_histogram import BOUNDS
from orchestrator.domain.readings import Reading, asked, lost_requests
from orchestrator.endpoints import HttpEndpoint
from orchestrator.engine.stop import Stop
from orchestrator.wires import OpenAIChatWire
from tests.engine.scripted import Scripted, job_of, run
from tests.wires.dialects import OPENAI, TEXT_IN, TEXT_OUT, served

WAKING = 0.5  # seconds

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.store import Store


async def test_the_readings_of_a_run_add_up_to_its_totals(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(delay=1.0)
    texts = [f"text {number}" for number in range(300)] + ["poison"]
    report = await run(job_of(texts, endpoint, tmp_path, Policy(concurrency=8)), store)
    found = await store.readings.of(1)
    whole = asked(found)
    assert (whole.completed, whole.discarded, whole.requests) == (300, 1, report.asked)
    assert (found[0].settled, found[-1].in_flight) == (0, 0)
    assert len(found) > 5
    assert 0 < max(one.in_flight for one in found) <= 8
    assert all(one.latency >= 1.0 for one in found if one.latency is not None)
    assert any(one.latency is not None for one in found)
    assert whole.tokens_in is None


async def test_readings_hold_latencies_and_commits(store: Store, tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(20)]
    await run(job_of(texts, Scripted(delay=0.02), tmp_path, Policy(concurrency=4)), store)
    last = (await store.readings.of(1))[-1]
    assert last.latency_counts is not None
    assert sum(last.latency_counts.counts) == 20
    assert sum(last.latency_counts.counts[: BOUNDS.index(0.01) + 1]) == 0
    assert last.latency_counts.seconds >= 20 * 0.02
    assert last.commits is not None
    assert last.commit_seconds is not None
    assert 1 <= last.commits <= 20
    assert last.commit_seconds > 0


async def test_requests_that_a_stop_cuts_short_are_lost(store: Store, tmp_path: Path) -> None:
    endpoint, stop = Scripted(slow_after=5), Stop()
    job = job_of([f"text {number}" for number in range(50)], endpoint, tmp_path, Policy(concurrency=2))
    async with anyio.create_task_group() as group:
        group.start_soon(stopped, job, store, stop)
        while len(endpoint.asked) < 6:
            await anyio.sleep(0.001)
        stop.abort()
    assert lost_requests(await store.readings.of(1)) == {"cut_short": 2}


async def stopped(job: Job, store: Store, stop: Stop) -> None:
    with pytest.raises(AskedToStop):
        await run(job, store, stop)


async def test_readings_count_only_the_tokens_of_this_run(store: Store, tmp_path: Path) -> None:
    async with served(OPENAI) as server:
        first = job_of(["a", "b", "c"], Scripted(), tmp_path)
        endpoint = HttpEndpoint(server.url, wire=OpenAIChatWire("m"))
        await run(Job(first.name, first.source, endpoint, first.sink), store)
        second = job_of(["a", "b", "c", "d"], Scripted(), tmp_path)
        await run(Job(first.name, second.source, endpoint, first.sink), store)
    whole = asked(await store.readings.of(2))
    assert (whole.completed, whole.tokens_in, whole.tokens_out) == (1, TEXT_IN, TEXT_OUT)


async def test_an_aborted_run_has_a_final_reading(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(slow_after=5)
    job = job_of([f"text {number}" for number in range(50)], endpoint, tmp_path, Policy(concurrency=2))
    async with anyio.create_task_group() as group:
        group.start_soon(run, job, store)
        while len(endpoint.asked) <= 5:
            await anyio.sleep(0.001)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    settled = (await store.views.counts(1, 50)).settled
    assert (await store.readings.of(1))[-1].completed == settled > 0


async def test_sampled_readings_still_add_up(store: Store, tmp_path: Path) -> None:
    await run(job_of(["a"], Scripted(), tmp_path), store)
    async with store.database.write() as connection:
        await connection.execute("DELETE FROM reading")
    for process_id, first in ((1, 0), (1, 500)):
        for number in range(500):
            settled = first + number
            await store.readings.note(1, Reading(float(settled), process_id, completed=settled))
    few = await store.readings.of(1, most=100)
    assert 50 < len(few) <= 102
    assert (few[0].at, few[-1].at, asked(few).completed) == (0.0, 999.0, 999)


async def test_waking_and_pausing_do_not_count_as_asking_time(store: Store, tmp_path: Path) -> None:
    async def slowly() -> None:
        await anyio.sleep(WAKING)

    endpoint = Scripted(before_resume=slowly, deaf=2, delay=0.01)
    report = await run(job_of(["a", "b", "c"], endpoint, tmp_path, Policy(concurrency=1)), store)
    assert 0.03 <= report.asking <= report.seconds - WAKING
    assert report.asking == asked(await store.readings.of(1)).asking
