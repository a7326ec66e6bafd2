"""Waiting: with the endpoint asleep if the wait is longer than waking it, and always with a message."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from orchestrator import Policy
from orchestrator.domain import waiting
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import AskedToStop, Snoozed
from orchestrator.domain.events import Phase
from orchestrator.domain.queue import Claim, Submission
from orchestrator.domain.terms import Terms
from orchestrator.domain.verdict import ALONE
from orchestrator.engine.asking import fanout
from orchestrator.engine.awake.reaper import registered
from orchestrator.engine.progress import Progress
from orchestrator.engine.run import execution
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from orchestrator.engine.tasks import task_group
from tests.engine.scripted import QUICK, Scripted, job_of, outputs, run
from tests.past import clock_at
from tests.unguarded import UNGUARDED

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator import Job
    from orchestrator.domain.waiting import Waiting
    from orchestrator.store import Store

DAY = 86_400.0
BILLED = Terms("scripted", {})


async def _until_it_waits(job: Job, store: Store) -> Waiting:
    """Run until nothing is awake and something is waited for, then stop. Return the messages."""
    progress, stop, said = Progress(), Stop(), []

    async def watch() -> None:
        while progress.waiting is None:
            await anyio.sleep(0.005)
        assert progress.step is Phase.WAIT
        said.append(progress.waiting)
        stop.drain()

    async with task_group() as group:
        group.start_soon(watch)
        with pytest.raises(AskedToStop, match="not before"):
            await run_job(RunRequest(job), store, progress, stop, UNGUARDED)
    return said[0]


@pytest.mark.parametrize("named", [3600.0, DAY, 1e17])
async def test_an_endpoint_sleeps_while_one_item_of_ten_waits_for_hours(
    store: Store, tmp_path: Path, named: float
) -> None:
    endpoint = Scripted(terms=BILLED, refuses={"3": named})
    job = job_of([str(number) for number in range(10)], endpoint, tmp_path, Policy(concurrency=4, backoff=QUICK))
    waiting = await _until_it_waits(job, store)
    assert endpoint.state is EndpointState.PAUSED
    assert waiting.items == 1
    assert waiting.until == pytest.approx(time.time() + min(named, DAY), abs=60)
    assert endpoint.texts.count("3") == 1

    woken = endpoint.calls.count("resume")
    await _until_it_waits(job, store)  # again, too early: it is not even woken
    assert endpoint.calls.count("resume") == woken


async def test_once_the_wait_is_over_the_item_is_asked_again(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(terms=BILLED, refuses={"a": 3600.0})
    job = job_of(["a", "b"], endpoint, tmp_path, Policy(backoff=QUICK))
    await _until_it_waits(job, store)
    endpoint.refuses = {}
    with clock_at(time.time() + 3601):
        report = await run(job, store)
    assert report.counts.completed == 2
    assert outputs(job)["i0"] == "A"


async def test_an_endpoint_that_refuses_every_request_for_an_hour_is_paused_at_once(
    store: Store, tmp_path: Path
) -> None:
    endpoint = Scripted(terms=BILLED, refuses={"*": 3600.0}, delay=0.001)
    job = job_of([str(number) for number in range(100)], endpoint, tmp_path, Policy(concurrency=8, backoff=QUICK))
    waiting = await _until_it_waits(job, store)
    assert waiting.items == 100
    assert len(endpoint.asked) <= 8
    assert endpoint.state is EndpointState.PAUSED


async def test_an_endpoint_that_slept_during_a_wait_is_woken_by_the_same_run(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((fanout, "WORTH_SAYING"), (execution, "WORTH_SAYING"), (waiting, "WORTH_PAUSING")):
        monkeypatch.setattr(module, name, 0.05)
    endpoint = Scripted(terms=BILLED, refuses={"*": 1.0})
    job = job_of(["a", "b", "c"], endpoint, tmp_path, Policy(backoff=QUICK))
    async with task_group() as group:
        group.start_soon(run, job, store)
        while endpoint.calls != ["resume", "pause"]:
            await anyio.sleep(0.005)
        endpoint.refuses = {}
    assert endpoint.calls == ["resume", "pause"] * 2
    assert len(outputs(job)) == 3


async def test_a_pace_of_one_request_an_hour_lets_the_endpoint_sleep_in_between(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(terms=BILLED)
    policy = Policy(requests_per_minute=1 / 60, backoff=QUICK)
    waiting = await _until_it_waits(job_of(["a", "b", "c"], endpoint, tmp_path, policy), store)
    assert (len(endpoint.asked), waiting.items) == (1, 2)
    assert "requests_per_minute" in waiting.why
    assert endpoint.calls == ["resume", "pause"]


async def test_a_waiting_run_is_requeued_until_its_time_with_the_reason(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(terms=BILLED, refuses={"a": 3600.0})
    job = job_of(["a", "b"], endpoint, tmp_path, Policy(backoff=QUICK))
    now = time.time()
    number, _ = await store.queue.submit(Submission(job.name, {}, [endpoint.name], now))
    async with registered(store) as daemon:
        assert await store.queue.claim(daemon, time.time()) == number
        with pytest.raises(Snoozed):
            await run_job(RunRequest(job, claim=Claim(number, daemon)), store, Progress(), Stop(), UNGUARDED)
    (queued,) = await store.queue.listed(now)
    assert queued.due_at == pytest.approx(now + 3600, abs=60)
    assert "1 item" in str(queued.why)
    assert endpoint.state is EndpointState.PAUSED


async def test_one_endpoint_rests_while_another_takes_its_items(store: Store, tmp_path: Path) -> None:
    refusing, working = Scripted(name="refusing", terms=BILLED, refuses={"*": 3600.0}), Scripted(name="working")
    texts = [str(number) for number in range(40)]
    job = job_of(texts, [refusing, working], tmp_path, Policy(concurrency=2, backoff=QUICK))
    assert (await run(job, store)).counts.completed == 40
    assert refusing.state is EndpointState.PAUSED
    assert refusing.texts


async def test_an_item_that_alone_is_refused_is_soon_given_up_and_delays_no_other(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(refuses={"3": None, "7": None}, delay=0.001)
    policy = Policy(concurrency=4, order="input", backoff=QUICK)
    job = job_of([str(number) for number in range(200)], endpoint, tmp_path, policy)
    report = await run(job, store)
    assert report.counts.discarded == 2
    # of the ALONE refusals, the last counts only if nothing else is in flight: some more may come before it
    assert endpoint.texts.count("3") <= 2 * ALONE
    assert endpoint.texts.count("7") <= 2 * ALONE


async def test_setting_the_clock_back_delays_no_item(store: Store, tmp_path: Path) -> None:
    gate = anyio.Event()
    endpoint = Scripted(gate=gate)
    job = job_of(["busy 1", "b"], endpoint, tmp_path, Policy(concurrency=2, backoff=QUICK))
    with clock_at(time.time()) as clock:
        async with task_group() as group:
            group.start_soon(run, job, store)
            while len(endpoint.asked) < 2:
                await anyio.sleep(0.005)
            gate.set()
            while len(endpoint.texts) < 2:
                await anyio.lowlevel.checkpoint()
            clock.now -= 3600
    assert set(outputs(job)) == {"i0", "i1"}


async def test_a_stored_wait_is_not_longer_after_the_clock_was_set_back(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(terms=BILLED, refuses={"a": 300.0})
    job = job_of(["a", "b"], endpoint, tmp_path, Policy(backoff=QUICK))
    await _until_it_waits(job, store)
    with clock_at(time.time() - DAY):
        waiting = await store.views.waiting(1, time.time())
        assert waiting is not None
        assert waiting.until <= time.time() + 300


async def test_retries_are_paced_and_counted(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(reasks=2)
    policy = Policy(concurrency=4, requests_per_minute=3000, backoff=QUICK)
    report = await run(job_of(["a", "b", "c", "d"], endpoint, tmp_path, policy), store)
    assert (report.asked, len(endpoint.asked_at)) == (12, 12)
    assert max(endpoint.asked_at) - min(endpoint.asked_at) >= 11 * 0.02 - 0.015


async def test_halves_of_a_batch_are_paced(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(batch_size=8)
    policy = Policy(concurrency=1, batch_size=8, requests_per_minute=3000, backoff=QUICK)
    texts = ["poison", *"abcdefg"]
    report = await run(job_of(texts, endpoint, tmp_path, policy), store)
    assert report.counts.discarded == 1
    assert report.asked == len(endpoint.asked)
    waits = [after - before for before, after in pairwise(endpoint.asked_at)]
    assert min(waits) >= 0.02 - 0.015
    assert sum(waits) >= len(waits) * 0.02 - 0.015


async def test_the_pace_survives_a_reconnection_and_is_shared_by_all_endpoints(store: Store, tmp_path: Path) -> None:
    first, second = Scripted(name="first", paused_by_others_at="2"), Scripted(name="second")
    policy = Policy(concurrency=2, requests_per_minute=3000, on_foreign_pause="resume", backoff=QUICK)
    report = await run(job_of([str(number) for number in range(20)], [first, second], tmp_path, policy), store)
    moments = sorted(first.asked_at + second.asked_at)
    assert report.asked == len(moments)
    assert moments[-1] - moments[0] >= (len(moments) - 1) * 0.02 - 0.015
