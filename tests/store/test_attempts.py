"""How the attempts of a run ended, including those followed by a success."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from orchestrator.domain.attempt import Completed, Discarded, Outcome, RetryLater
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.domain.run import Run, Spec
from orchestrator.domain.traffic import Failed, Latency
from orchestrator.store.items import Settlement
from orchestrator.store.row_classes import NewItem
from tests.asks import Asked, write_asks, write_totals
from tests.past import clock_at

if TYPE_CHECKING:
    from orchestrator.store import Store

BUSY = RequestFailed(FailureKind.RATE_LIMITED, "busy", status=429)
DONE = Completed('"x"')


async def run_of(store: Store, names: str, version: str = "1", per_chunk: int = 500) -> tuple[Run, int]:
    process_id = await store.runs.register(host="h", pid=1, pid_started=0.0, lease=60)
    run = await store.runs.take(Spec("job", version, version), process_id)
    rows = [NewItem(name, "h", "{}", None) for name in names]
    chunks = [rows[start : start + per_chunk] for start in range(0, len(rows), per_chunk)]
    plan = await store.snapshots.ingest(run.id, run.job_id, 0, chunks)
    await store.runs.ingested(run.id, total=plan.total, plan=plan, input_sha256=version)
    return run, process_id


async def settle(store: Store, run: Run, process_id: int, outcomes: dict[str, Outcome], seconds: float = 0.5) -> None:
    """Settle these items; all others stay unchanged."""
    for part in await store.items.lease(run.id, process_id, 100):
        done = [Settlement(item, outcomes[item.id], seconds) for item in part.items if item.id in outcomes]
        await store.items.settle(done, [])
    await store.items.release(process_id)


async def test_failed_attempts_are_counted_by_cause_even_if_a_later_one_succeeded(store: Store) -> None:
    run, me = await run_of(store, "abcd")
    timeout = RequestFailed(FailureKind.TIMEOUT, "no answer")
    busy = RetryLater(0.0, BUSY)
    await settle(store, run, me, {"a": busy, "b": busy, "c": RetryLater(0.0, timeout), "d": DONE})
    await settle(store, run, me, {"a": busy, "b": DONE, "c": Discarded(timeout)})
    assert (await store.attempts.failed([run.id]))[run.id] == [
        Failed("rate_limited", 429, 3, 3),
        Failed("timeout", None, 2, 1),
    ]


async def test_items_never_asked_and_attempts_of_earlier_runs_are_not_counted(store: Store) -> None:
    with clock_at(time.time() - 60):
        run, me = await run_of(store, "abc")
        await settle(store, run, me, {"a": RetryLater(0.0, BUSY), "b": DONE}, seconds=9.0)
        await store.runs.leave(me)
    later, me = await run_of(store, "abc", "2")
    refused = Discarded(RequestFailed(FailureKind.REJECTED, "no"))
    await settle(store, later, me, {"c": refused}, seconds=0.0)  # as an item that shares the outcome of another
    assert await store.attempts.failed([later.id]) == {}
    assert await store.attempts.latency([later.id]) == {}
    await settle(store, later, me, {"a": DONE}, seconds=0.25)
    assert await store.attempts.latency([later.id]) == {later.id: Latency(0.25, 0.25, 0.25, 0.25)}
    assert await store.attempts.failed([run.id]) == {run.id: [Failed("rate_limited", 429, 1, 1)]}


async def test_durations_are_estimated_from_an_even_sample_of_many_answers(store: Store) -> None:
    run, me = await run_of(store, "abcdefgh", per_chunk=1)
    for number, name in enumerate("abcdefgh"):
        await settle(store, run, me, {name: DONE}, seconds=1.0 + number)
    assert await store.attempts.latency([run.id]) == {run.id: Latency(4.0, 8.0, 8.0, 8.0)}
    assert await store.attempts.latency([run.id], sampled=3) == {run.id: Latency(3.0, 6.0, 6.0, 6.0)}


async def test_items_waiting_for_their_next_attempt_are_known_even_if_others_can_be_asked(
    store: Store,
) -> None:
    run, me = await run_of(store, "abc")
    await settle(store, run, me, {"a": RetryLater(300.0, BUSY), "b": RetryLater(900.0, BUSY)})
    now = time.time()
    assert await store.views.waiting(run.id, now) is None
    later = await store.views.later(run.id, now)
    assert later is not None
    assert (later.items, later.why) == (2, "the last attempt failed (rate_limited 429), and its retry is not due yet")
    assert now + 290 < later.until <= now + 300
    await settle(store, run, me, {"c": DONE})
    assert await store.views.waiting(run.id, now) == later


async def test_failures_and_latency_of_a_rollout_are_those_of_its_asks(store: Store) -> None:
    run, me = await run_of(store, "ab")
    await settle(store, run, me, {"a": DONE, "b": Discarded(BUSY)}, seconds=9.0)
    await write_totals(store, run.id, {})  # it has endpoints by name
    now = time.time() + 1
    busy, refused = ["rate_limited", 429, "busy", 0.5, now, now], ["rejected", 400, "no", 0.5, now, None]
    await write_asks(
        store,
        run.id,
        Asked("a", 1, "q", answer=1, failures=[busy, busy], at=now),
        Asked("a", 2, "q", endpoint=None, answer=1, at=now),
        Asked("b", 1, "q", outcome="discarded", failures=[busy, refused], at=now),
        Asked("b", 2, "q", answer=1, failures=[["timeout", None, "", 0.5, 1.0, 2.0]], at=1.0),  # of an earlier run
        Asked("c", 1, "q", answer=1, failures=[busy], at=now),  # of an item that the run does not have
    )
    assert (await store.attempts.failed([run.id]))[run.id] == [
        Failed("rate_limited", 429, 3, 3),
        Failed("rejected", 400, 1, 0),
    ]
    assert await store.attempts.latency([run.id]) == {run.id: Latency(0.25, 0.25, 0.25, 0.25)}
