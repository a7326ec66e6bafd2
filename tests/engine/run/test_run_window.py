from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio
import pytest

from orchestrator import Policy
from orchestrator.domain.errors import AskedToStop, WindowOver
from orchestrator.domain.queue import Claim, Submission
from orchestrator.domain.terms import Terms
from orchestrator.engine.awake.reaper import registered
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from tests.engine.scripted import QUICK, Scripted, job_of, run
from tests.unguarded import UNGUARDED

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.store import Store

TERMS = Terms("scripted", {"kind": "scripted"}, price_per_hour=3600.0)


def window(opens_in: float, closes_in: float) -> str:
    """Return a window in UTC that opens and closes in so many seconds."""
    now = time.time()
    opens, closes = (datetime.fromtimestamp(now + seconds, UTC) for seconds in (opens_in, closes_in))
    return f"{opens:%H:%M:%S}-{closes:%H:%M:%S}"


async def test_a_run_outside_its_window_waits_and_wakes_nothing_until_then(store: Store, tmp_path: Path) -> None:
    endpoint, progress = Scripted(terms=TERMS), Progress()
    job = job_of(["a"], endpoint, tmp_path, Policy(backoff=QUICK, window=window(2, 3600)))
    async with anyio.create_task_group() as group:
        group.start_soon(run_job, RunRequest(job), store, progress, Stop(), UNGUARDED)
        while "outside its window" not in progress.note:
            await anyio.sleep(0.01)
        assert endpoint.calls == []
    assert endpoint.calls == ["resume", "pause"]
    assert progress.note == ""


async def test_a_run_that_waits_for_its_window_can_be_stopped(store: Store, tmp_path: Path) -> None:
    endpoint, progress, stop = Scripted(terms=TERMS), Progress(), Stop()
    job = job_of(["a"], endpoint, tmp_path, Policy(backoff=QUICK, window=window(3600, 7200)))

    async def stop_it() -> None:
        while "outside its window" not in progress.note:
            await anyio.sleep(0.01)
        stop.drain()

    async with anyio.create_task_group() as group:
        group.start_soon(stop_it)
        with pytest.raises(AskedToStop):
            await run_job(RunRequest(job), store, progress, stop, UNGUARDED)
    assert endpoint.calls == []


async def test_at_the_end_of_its_window_a_run_drains_and_continues_in_the_next(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(terms=TERMS, delay=0.05)
    policy = Policy(concurrency=2, backoff=QUICK, window=window(-60, 4))
    job = job_of([f"text {number}" for number in range(1000)], endpoint, tmp_path, policy)
    with pytest.raises(
        WindowOver, match=r"its window \(.*\) is over; run the same command again: it continues at"
    ) as over:
        await run(job, store)
    assert over.value.opens_at == pytest.approx(time.time() + 86400 - 64, abs=10)
    assert endpoint.calls == ["resume", "pause"]
    stopped = await store.runs.find("scripted")
    assert (stopped.state, await store.windows.debts()) == ("stopped", [])
    asked = len(endpoint.asked)
    assert (await store.views.counts(stopped.id, stopped.total)).completed == asked  # none was aborted
    job = replace(job, policy=replace(policy, window=None))
    endpoint.delay = 0
    assert (await run(job, store)).counts.completed == 1000
    assert len(endpoint.asked) == 1000


async def test_requests_that_outlast_the_grace_period_are_released(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(terms=TERMS, slow_after=3)
    policy = Policy(concurrency=1, backoff=QUICK, grace=0.0, window=window(-60, 4))
    job = job_of([f"text {number}" for number in range(9)], endpoint, tmp_path, policy)
    with pytest.raises(WindowOver):
        await run(job, store)
    assert endpoint.calls == ["resume", "pause"]
    found = await store.runs.find("scripted")
    assert (await store.views.counts(found.id, found.total)).completed == 3


async def test_an_endpoint_still_starting_at_the_end_of_the_window_is_not_waited_for(
    store: Store, tmp_path: Path
) -> None:
    endpoint = Scripted(terms=TERMS, wakes=False, startup_timeout=600.0)
    job = job_of(["a"], endpoint, tmp_path, Policy(backoff=QUICK, grace=600.0, window=window(-60, 4)))
    with pytest.raises(WindowOver):
        await run(job, store)
    assert endpoint.calls == ["resume", "pause"]


async def test_a_window_applies_to_endpoints_that_do_not_bill(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(slow_after=1)
    policy = Policy(concurrency=1, backoff=QUICK, grace=0.0, window=window(-60, 4))
    with pytest.raises(WindowOver):
        await run(job_of(["a", "b"], endpoint, tmp_path, policy), store)


async def test_a_run_with_nothing_to_do_does_not_wait_for_its_window(store: Store, tmp_path: Path) -> None:
    policy = Policy(backoff=QUICK, window=window(3600, 7200))
    assert (await run(job_of([], Scripted(), tmp_path, policy), store)).counts.total == 0


async def test_a_queued_run_outside_its_window_stays_in_the_queue_unchanged(store: Store, tmp_path: Path) -> None:
    job = job_of(["a"], Scripted(), tmp_path, Policy(backoff=QUICK, window=window(3600, 7200)))
    number, _ = await store.queue.submit(Submission(job.name, {}, ["scripted"], due_at=0.0))
    async with registered(store) as daemon:
        assert await store.queue.claim(daemon, time.time()) == number
        with pytest.raises(WindowOver) as over:
            await run_job(RunRequest(job, claim=Claim(number, daemon)), store, Progress(), Stop(), UNGUARDED)
        await store.queue.unclaim(Claim(number, daemon))
    (queued,) = await store.queue.listed(time.time())
    assert (queued.id, queued.state, queued.due_at, queued.tries) == (number, "ingesting", over.value.opens_at, 0)
    assert "its window" in (queued.why or "")
