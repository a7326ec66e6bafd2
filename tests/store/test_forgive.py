"""Discarded items become available again when they are forgiven, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from orchestrator.domain.attempt import Completed, Discarded, Outcome, RetryLater
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.domain.item import ItemState
from orchestrator.domain.run import Plan, Run, RunState, Spec
from orchestrator.store.items import Settlement
from orchestrator.store.row_classes import NewItem
from tests.asks import Asked, write_asks
from tests.ledgers import forgive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.store import Store

REFUSED = Discarded(RequestFailed(FailureKind.REJECTED, "bad input"))
BROKEN = NewItem("broken", "h", None, None, "not JSON")


def row(name: str) -> NewItem:
    return NewItem(name, "h", "{}", None)


async def process(store: Store) -> int:
    return await store.runs.register(host="h", pid=1, pid_started=0.0, lease=60)


async def run_of(store: Store, *chunks: Sequence[NewItem], job: str = "job", version: str = "1") -> tuple[Run, Plan]:
    run = await store.runs.take(Spec(job, version, version), await process(store))
    plan = await store.snapshots.ingest(run.id, run.job_id, 0, chunks)
    await store.runs.ingested(run.id, total=plan.total, plan=plan, input_sha256=version)
    return run, plan


async def settle_all(store: Store, run: Run) -> None:
    """Settle all items; those whose name begins with `bad` are refused."""
    me = await process(store)
    for part in await store.items.lease(run.id, me, 100):
        outcomes: list[Outcome] = [REFUSED if item.id.startswith("bad") else Completed('"x"') for item in part.items]
        done = [Settlement(item, outcome, 0.1) for item, outcome in zip(part.items, outcomes, strict=True)]
        await store.items.settle(done, [part.lease])


async def chunks_of(store: Store, run: Run) -> list[tuple[object, ...]]:
    async with store.database.read() as connection:
        statement = "SELECT state, completed, discarded FROM chunk WHERE run_id = :run ORDER BY lo"
        return [tuple(found) for found in await connection.execute(statement, {"run": run.id})]


async def states_of(store: Store, run: Run) -> dict[str, ItemState]:
    return {item.id: item.state async for page in store.views.pages(run.id) for item in page}


async def known_of(store: Store, run: Run, *names: str) -> frozenset[int]:
    return await store.delivered_items.delivered(run.job_id, [row(name) for name in names])


async def test_items_that_could_be_read_are_asked_again_and_chunk_counts_stay_consistent(store: Store) -> None:
    run, _ = await run_of(store, [row("bad 1"), row("good")], [row("bad 2"), BROKEN], [row("bad 3")])
    await settle_all(store, run)
    assert await chunks_of(store, run) == [("done", 1, 1), ("done", 0, 2), ("done", 0, 1)]
    assert await forgive(store, run.id) == 3
    assert await chunks_of(store, run) == [("available", 1, 0), ("available", 0, 1), ("available", 0, 0)]
    assert await states_of(store, run) == {
        "bad 1": ItemState.AVAILABLE,
        "good": ItemState.COMPLETED,
        "bad 2": ItemState.AVAILABLE,
        "broken": ItemState.DISCARDED,
        "bad 3": ItemState.AVAILABLE,
    }


@pytest.mark.parametrize("forgiven", [True, False])
async def test_a_new_run_counts_items_settled_before_it(store: Store, *, forgiven: bool) -> None:
    first, _ = await run_of(store, [row("bad"), row("good"), BROKEN])
    await settle_all(store, first)
    if forgiven:
        await forgive(store, first.id)
    await store.runs.leave(first.holder or 0)
    second, plan = await run_of(store, [row("bad"), row("good"), BROKEN], [row("new")], version="2")
    assert plan == (Plan(new=1, reused=1, retry=1, discarded=1) if forgiven else Plan(new=1, reused=1, discarded=2))
    first_chunk = ("available", 1, 1) if forgiven else ("done", 1, 2)
    assert await chunks_of(store, second) == [first_chunk, ("available", 0, 0)]


async def test_forgiven_items_start_with_a_clean_record(store: Store) -> None:
    run, _ = await run_of(store, [row("bad")])
    await settle_all(store, run)
    await forgive(store, run.id)
    (part,) = await store.items.lease(run.id, await process(store), 1)
    (item,) = part.items
    assert (item.attempt, list(item.failures)) == (2, [])


async def test_an_item_that_failed_several_times_is_asked_again_with_a_clean_record(store: Store) -> None:
    run, _ = await run_of(store, [row("bad")])
    (part,) = await store.items.lease(run.id, await process(store), 1)
    (item,) = part.items
    again = RetryLater(0.0, RequestFailed(FailureKind.TIMEOUT, "no answer"))
    await store.items.settle([Settlement(item, again, 0.1)], [])
    item.attempt += 1
    await store.items.settle([Settlement(item, REFUSED, 0.1)], [part.lease])
    assert await forgive(store, run.id) == 1
    assert await chunks_of(store, run) == [("available", 0, 0)]
    (part,) = await store.items.lease(run.id, await process(store), 1)
    assert [(item.attempt, list(item.failures)) for item in part.items] == [(3, [])]


async def test_an_older_run_with_forgiven_items_stays_whole(store: Store) -> None:
    older, _ = await run_of(store, [row("bad"), row("good")])
    await settle_all(store, older)
    await store.runs.leave(older.holder or 0)
    newer, _ = await run_of(store, [row("bad"), row("good")], version="2")
    assert await forgive(store, newer.id) == 1
    assert await chunks_of(store, newer) == [("available", 1, 0)]
    assert await chunks_of(store, older) == [("done", 1, 1)]


async def test_what_failed_in_the_rollout_of_a_forgiven_item_is_asked_anew_and_answers_stay(store: Store) -> None:
    run, _ = await run_of(store, [row("bad"), row("good"), BROKEN])
    await settle_all(store, run)
    for item in ("bad", "good", "broken"):
        answered, refused = Asked(item, 1, "answered"), Asked(item, 2, "refused", outcome="discarded")
        await write_asks(store, run.id, answered, refused, Asked(item, 3, "tried", outcome=None))
    await forgive(store, run.id)
    assert [ask["request"] for ask in await store.transcripts.of(run.id, "bad")] == ["answered"]
    for item in ("good", "broken"):
        assert len(await store.transcripts.of(run.id, item)) == 3


async def test_an_incremental_job_still_knows_items_that_were_not_forgiven(store: Store) -> None:
    run, _ = await run_of(store, [row("bad"), row("good"), BROKEN])
    other, _ = await run_of(store, [row("bad"), row("good")], job="other")
    for one in (run, other):
        await settle_all(store, one)
        await store.delivered_items.add(await store.runs.find(str(one.id)))
    await forgive(store, run.id)
    assert await known_of(store, run, "bad", "good", "broken") == {1, 2}
    assert await known_of(store, other, "bad", "good") == {0, 1}


async def test_a_row_that_is_still_unreadable_has_the_newest_reason(store: Store) -> None:
    first, _ = await run_of(store, [BROKEN])
    await store.runs.end(first.id, first.holder or 0, RunState.FINISHED)
    await store.runs.leave(first.holder or 0)
    second, plan = await run_of(store, [replace(BROKEN, unreadable="still not JSON")], version="2")
    assert plan == Plan(discarded=1)
    (cause,) = await store.views.causes(second.id)
    assert (cause.message, cause.items) == ("still not JSON", 1)


async def test_scattered_items_are_leased_together(store: Store) -> None:
    chunks = [[row(f"{'bad' if n == 3 else 'good'} {chunk} {n}") for n in range(10)] for chunk in range(12)]
    run, _ = await run_of(store, *chunks)
    await settle_all(store, run)
    await forgive(store, run.id)
    me = await process(store)
    leased = await store.items.lease(run.id, me, 1)  # as many items as one new chunk has
    assert [[item.id for item in part.items] for part in leased] == [[f"bad {chunk} 3"] for chunk in range(10)]
    assert len(await store.items.lease(run.id, me, 1)) == 2
    assert await store.items.lease(run.id, me, 1) == []
