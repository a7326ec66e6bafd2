"""How often and when an item is asked: within its limits, after its backoff, and without counting stopped attempts."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from orchestrator import Backoff, Policy
from orchestrator.domain.attempt import Completed, Discarded
from orchestrator.domain.batching import Limits
from orchestrator.domain.errors import EndpointLost, EndpointRefused, FailureKind, RequestFailed, RunStopped
from orchestrator.domain.run import Spec
from orchestrator.engine.asking.breaker import BreakerTripped
from orchestrator.engine.asking.concurrency import UNPROVEN_LIMIT
from orchestrator.engine.asking.leased_items import open_work_queue
from orchestrator.engine.asking.work_queue import Demand, RunContext
from orchestrator.engine.progress import Progress
from orchestrator.engine.stop import Stop
from orchestrator.engine.tasks import task_group
from orchestrator.store.items import Settlement
from orchestrator.store.row_classes import NewItem
from tests.engine.scripted import QUICK, Scripted, job_of, run
from tests.past import clock_at

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator import Job
    from orchestrator.store import Store

HOUR = 3600.0
BUSY = RequestFailed(FailureKind.UNAVAILABLE, "busy", status=500)


async def column(store: Store, sql: str) -> list[Any]:
    async with store.database.read() as connection:
        return list((await connection.execute(sql)).scalars())


@pytest.mark.parametrize(("kind", "times"), [(FailureKind.UNAVAILABLE, 3), (FailureKind.REJECTED, 1)])
async def test_an_item_is_asked_at_most_as_often_as_allowed(
    store: Store, tmp_path: Path, kind: FailureKind, times: int
) -> None:
    endpoint = Scripted(fails=RequestFailed(kind, "no"))
    report = await run(job_of(["a", "b"], endpoint, tmp_path, Policy(max_attempts=3, backoff=QUICK)), store)
    assert report.counts.discarded == 2
    assert sorted(endpoint.texts) == ["a"] * times + ["b"] * times
    assert await column(store, "SELECT attempts FROM result") == [times, times]


async def test_after_a_stop_an_item_in_flight_causes_no_further_request(store: Store, tmp_path: Path) -> None:
    endpoint, stop = Scripted(gate=anyio.Event(), reasks=2), Stop()

    async def stop_once_asked() -> None:
        while not endpoint.asked:
            await anyio.sleep(0.001)
        stop.drain()
        assert endpoint.gate is not None
        endpoint.gate.set()

    async with task_group() as tasks:
        tasks.start_soon(stop_once_asked)
        with pytest.raises(RunStopped):
            await run(job_of(["a", "b"], endpoint, tmp_path, Policy(concurrency=1, backoff=QUICK)), store, stop)
    assert len(endpoint.asked_at) == len(endpoint.asked) == 1


@pytest.mark.parametrize(("sent", "asked"), [(True, 3), (False, 2)])
async def test_only_requests_that_were_sent_are_counted(
    store: Store, tmp_path: Path, *, sent: bool, asked: int
) -> None:
    endpoint, refused = Scripted(), RequestFailed(FailureKind.CONNECTION, "the connection was refused")
    refused.sent = sent
    endpoint.fails_with = lambda _: refused if len(endpoint.asked) == 2 else None
    report = await run(job_of(["a", "b"], endpoint, tmp_path, Policy(concurrency=1, backoff=QUICK)), store)
    assert (report.counts.completed, report.asked) == (2, asked + len(endpoint.asked) - 3)
    assert report.traffic.statuses.get("none") == (1 if sent else None)


@pytest.mark.parametrize("failure", [BUSY, RequestFailed(FailureKind.UNAVAILABLE, "busy", retry_after=0.2)])
async def test_no_attempt_starts_before_its_backoff_or_retry_after_has_passed(
    store: Store, tmp_path: Path, failure: RequestFailed
) -> None:
    endpoint = Scripted(fails=failure)
    policy = Policy(max_attempts=4, backoff=Backoff(first=0.05, cap=0.1))
    await run(job_of(["a"], endpoint, tmp_path, policy), store)
    due = await column(store, "SELECT available_at FROM attempt WHERE available_at IS NOT NULL ORDER BY number")
    waits = [wait for wait, _ in zip(due, endpoint.asked_at, strict=False)]
    assert len(due) == 3
    for failed_at, again_at, asked_again_at in zip(endpoint.asked_at, waits, endpoint.asked_at[1:], strict=False):
        assert again_at - failed_at >= (failure.retry_after or 0.05 / 2)
        assert asked_again_at >= again_at


async def test_a_later_start_counts_earlier_attempts_and_keeps_their_backoff(store: Store, tmp_path: Path) -> None:
    """One of two items has to wait for an hour; the other is asked at once, so the ledger knows the wait."""
    policy = Policy(concurrency=2, max_attempts=2, backoff=Backoff(first=HOUR, cap=HOUR))
    with clock_at(time.time()) as clock:
        first = Scripted(stuck_over="now")
        await _cut_short(job_of(["busy 9", "now"], first, tmp_path, policy), store, first)
        second = Scripted()
        await _stopped_once_answered(job_of(["busy 9", "now"], second, tmp_path, policy), store)
        assert second.asked == [["now"]]
        clock.now += HOUR
        third = Scripted()
        report = await run(job_of(["busy 9", "now"], third, tmp_path, policy), store)
    assert third.asked == [["busy 9"]]
    assert (report.counts.completed, report.counts.discarded) == (1, 1)
    assert sorted(await column(store, "SELECT attempts FROM result")) == [1, 2]


async def _cut_short(job: Job, store: Store, endpoint: Scripted) -> None:
    """Abort the process when one attempt has failed and the other is in flight."""
    async with anyio.create_task_group() as group:
        group.start_soon(run, job, store)
        while not await column(store, "SELECT number FROM attempt") or not endpoint.in_flight:
            await anyio.sleep(0.001)
        group.cancel_scope.cancel()


async def _stopped_once_answered(job: Job, store: Store) -> None:
    """Stop the process once an item has been completed."""
    stop = Stop()
    async with anyio.create_task_group() as group:
        group.start_soon(_stopped, job, store, stop)
        while not await column(store, "SELECT 1 FROM result"):
            await anyio.sleep(0.001)
        stop.drain()


async def _stopped(job: Job, store: Store, stop: Stop) -> None:
    with pytest.raises(RunStopped, match=r"stopped as asked with [01] of 2 items done[;,]"):
        await run(job, store, stop)


@pytest.mark.parametrize("by", ["a second signal", "cancel"])
async def test_a_request_in_flight_when_its_run_is_aborted_counts_no_attempt(
    store: Store, tmp_path: Path, by: str
) -> None:
    endpoint = Scripted(gate=anyio.Event())
    job = job_of(["a", "b"], endpoint, tmp_path)
    async with anyio.create_task_group() as group:
        group.start_soon(_cancelled, job, store)
        while endpoint.in_flight < 2:
            await anyio.sleep(0.001)
        if by == "cancel":
            await store.runs.cancel(1)
        else:
            group.cancel_scope.cancel()
    assert await column(store, "SELECT count(*) FROM attempt") == [0]
    assert await column(store, "SELECT state FROM chunk") == ["available"]
    await run(job_of(["a", "b"], Scripted(), tmp_path), store)
    assert await column(store, "SELECT attempts FROM result") == [1, 1]


async def test_an_answer_received_when_its_run_is_aborted_is_kept(store: Store, tmp_path: Path) -> None:
    came = []
    async with anyio.create_task_group() as group:

        def parse(answer: object) -> object:
            came.append(answer)
            if len(came) == UNPROVEN_LIMIT + 1:
                group.cancel_scope.cancel()
            return answer

        job = job_of([f"text {number}" for number in range(40)], Scripted(), tmp_path, Policy(concurrency=32))
        group.start_soon(run, replace(job, parse=parse), store)
    assert await column(store, "SELECT count(*) FROM result") == [len(came)]
    assert await column(store, "SELECT completed FROM chunk") == [len(came)]


@pytest.mark.parametrize("by", ["a second signal", "cancel", "abort"])
async def test_failures_held_by_the_breaker_are_kept_when_the_run_is_aborted(
    store: Store, tmp_path: Path, by: str
) -> None:
    endpoint, stop = Scripted(slow_after=3), Stop()
    job = job_of([f"poison {number}" for number in range(9)], endpoint, tmp_path, Policy(concurrency=1, breaker=9))
    async with anyio.create_task_group() as group:
        group.start_soon(_stopped_somehow, job, store, stop)
        while len(endpoint.asked) < 4:
            await anyio.sleep(0.001)
        await anyio.wait_all_tasks_blocked()
        match by:
            case "cancel":
                await store.runs.cancel(1)
            case "abort":
                stop.abort()
            case _:
                group.cancel_scope.cancel()
    assert await column(store, "SELECT attempts FROM result") == [1, 1, 1]
    assert await column(store, "SELECT discarded FROM chunk") == [3]


async def _stopped_somehow(job: Job, store: Store, stop: Stop) -> None:
    with pytest.raises(RunStopped):
        await run(job, store, stop)


async def test_a_full_streak_is_released_even_if_the_endpoint_is_lost_at_the_same_moment(
    store: Store, tmp_path: Path
) -> None:
    losses = [EndpointLost("gone")]

    def fails(texts: Sequence[str]) -> Exception:
        return losses.pop() if losses and texts == ["first"] else RequestFailed(FailureKind.REJECTED, "no", status=400)

    endpoint = Scripted(gate=anyio.Event(), fails_with=fails)
    policy = Policy(concurrency=4, breaker=3, order="input", backoff=QUICK)
    job = job_of(["first", "a", "b", "c"], endpoint, tmp_path, policy)
    async with anyio.create_task_group() as group:
        group.start_soon(_tripped, job, store)
        while endpoint.in_flight < 4:
            await anyio.sleep(0.001)
        assert endpoint.gate is not None
        endpoint.gate.set()
    assert not losses
    assert await column(store, "SELECT count(*) FROM result") == [0]


async def _tripped(job: Job, store: Store) -> None:
    with pytest.raises(BreakerTripped):
        await run(job, store)


async def test_an_answer_received_when_too_many_items_are_discarded_is_kept(store: Store) -> None:
    refused, paid_for = Discarded(RequestFailed(FailureKind.REJECTED, "no")), Completed('"paid for"')
    process = await store.runs.register(host="h", pid=1, pid_started=0.0, lease=60)
    taken = await store.runs.take(Spec("job", "f", "s"), process)
    rows = [NewItem(str(number), "h", "{}", None) for number in range(300)]
    await store.snapshots.ingest(taken.id, taken.job_id, 0, [rows])
    work = RunContext(store, taken.id, process, None, Policy(max_error_rate=0.1), Progress(), Stop())

    async def stopped() -> None:
        async with open_work_queue(work) as queue, task_group() as hands:
            queue.set_demand(hands, Demand(1, 300))
            while len(items := queue.take(Limits(300))) < 300:
                queue.requeue(items)
                await queue.changed()
            async with store.database.write():  # the first commit waits meanwhile
                for some, outcome in ((items[:150], refused), (items[150:], paid_for)):
                    hands.start_soon(queue.settle, [Settlement(item, outcome, 0.1) for item in some], _ignored)
                    await anyio.wait_all_tasks_blocked()

    with pytest.raises(RunStopped, match="150 of 150 items were discarded"):
        await stopped()
    assert sorted(await column(store, "SELECT count(*) FROM result GROUP BY outcome")) == [150, 150]


def _ignored(_settled: list[Settlement]) -> None: ...


async def _cancelled(job: Job, store: Store) -> None:
    with pytest.raises(RunStopped, match="was cancelled"):
        await run(job, store)


async def test_after_a_success_a_refusal_of_url_token_or_model_discards_the_row(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted()
    policy = Policy(concurrency=1, order="input", backoff=QUICK)
    job = job_of(["a", "b", "forbidden", "c", "d"], endpoint, tmp_path, policy)
    report = await run(job, store)
    assert (report.counts.completed, report.counts.discarded) == (4, 1)
    assert endpoint.texts.count("forbidden") == 2
    assert "403 (flagged)" in report.causes[0].message


async def test_an_initial_refusal_of_url_token_or_model_ends_the_run(store: Store, tmp_path: Path) -> None:
    with pytest.raises(EndpointRefused, match="403"):
        await run(job_of(["forbidden"] * 4, Scripted(), tmp_path, Policy(concurrency=1, backoff=QUICK)), store)
