"""What the queue reports: which runs are coming, which daemons serve, and which runs make progress."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.domain.attempt import Completed
from orchestrator.domain.errors import Busy, UsageError
from orchestrator.domain.queue import FREE_TRIES, LOADS_FOR, TURN_AFTER, Claim, Submission
from orchestrator.domain.run import Plan, RunState, Spec
from orchestrator.domain.terms import Spent, Terms
from orchestrator.store.items import Settlement
from orchestrator.store.row_classes import NewItem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.store import Store

NOW = 1e9
MINE = 0  # a run that was not submitted
SPEC = Spec("job", "f", "s")


async def process(store: Store, *, serves: bool = False) -> int:
    return await store.runs.register(host="h", pid=1, pid_started=0.0, lease=60, serves=serves)


async def submitted(store: Store, *, due: float = NOW, after: Sequence[tuple[int, bool]] = (), job: str = "job") -> int:
    return (await store.queue.submit(Submission(job, {}, ["e"], due, after=after)))[0]


async def coming(store: Store, *, free: bool = True, endpoint: str = "e", run: int = MINE) -> bool:
    return await store.queue.coming(endpoint, run, NOW, free=free)


async def test_a_run_that_a_daemon_may_claim_now_is_coming_to_its_endpoints(store: Store) -> None:
    await process(store, serves=True)
    assert not await coming(store)
    number = await submitted(store)
    assert await coming(store)
    assert not await coming(store, free=False)
    assert not await coming(store, endpoint="other")
    assert not await coming(store, run=number)


async def test_a_run_that_no_daemon_may_claim_now_is_not_coming(store: Store) -> None:
    await process(store, serves=True)
    await submitted(store, due=NOW + 60, job="later")
    held, cancelled = await submitted(store, job="held"), await submitted(store, job="cancelled")
    await store.runs.order(held, {"held": True})
    await store.runs.cancel(cancelled)
    await submitted(store, after=[(held, False)], job="waiting")
    assert not await coming(store)


async def test_a_run_that_depends_on_mine_is_coming(store: Store) -> None:
    await process(store, serves=True)
    mine = await submitted(store, job="mine")
    await submitted(store, after=[(mine, False)])
    assert await coming(store, run=mine)


async def test_without_a_live_daemon_no_run_is_coming(store: Store) -> None:
    daemon = await process(store, serves=True)
    await process(store)
    await submitted(store)
    assert (await coming(store), await store.queue.served()) == (True, True)
    await store.runs.leave(daemon)
    assert (await coming(store), await store.queue.served()) == (False, False)


async def test_an_executing_run_is_coming_until_it_uses_the_endpoint(store: Store) -> None:
    daemon = await process(store, serves=True)
    number = await submitted(store)
    assert await store.queue.claim(daemon, NOW) == number
    assert await coming(store, free=False)
    child = await process(store)
    other = await store.windows.enter(Terms("other"), child, number)
    assert other is not None
    assert (
        await store.windows.enter(Terms("e"), await process(store), await submitted(store, job="another")) is not None
    )
    assert await coming(store, free=False)
    assert await store.windows.enter(Terms("e"), child, number) is not None
    assert not await coming(store, free=False)


async def test_a_run_that_only_delivers_is_not_coming(store: Store) -> None:
    daemon = await process(store)
    number = await submitted(store)
    assert await store.queue.claim(daemon, NOW) == number
    await store.runs.cancel(number)
    assert not await coming(store, free=False)


async def test_executing_runs_occupy_slots_until_they_have_ended(store: Store) -> None:
    one, two = await submitted(store, job="one"), await submitted(store, job="two")
    assert await store.queue.in_the_way([one, two], NOW) == 2
    await store.runs.cancel(one)
    assert await store.queue.in_the_way([one, two], NOW) == 1
    assert await store.queue.in_the_way([one], NOW) == 0


async def test_progress_of_other_runs_does_not_offset_process_deaths(store: Store) -> None:
    daemon = await process(store)
    number = await submitted(store)
    tries = []
    for fingerprint in "ab":
        assert await store.queue.claim(daemon, NOW) == number
        tries.append((await store.queue.listed(NOW))[0].tries)
        await store.queue.unclaim(Claim(number, daemon))
        await settle_one(store, "other", fingerprint)
    assert tries == [1, 2]


async def settle_one(store: Store, job: str, fingerprint: str) -> None:
    me = await process(store)
    run = await store.runs.take(Spec(job, fingerprint, "s"), me)
    plan = await store.snapshots.ingest(run.id, run.job_id, 0, [[NewItem(fingerprint, "h", "{}", None)]])
    await store.runs.ingested(run.id, total=1, plan=plan, input_sha256="s")
    (part,) = await store.items.lease(run.id, me, 1)
    await store.items.settle([Settlement(part.items[0], Completed('"x"'), 0.1)], [part.lease])
    await store.runs.end(run.id, me, RunState.FINISHED)
    await store.runs.delivered(run.id, me)
    await store.runs.leave(me)


async def test_a_run_whose_processes_die_repeatedly_is_given_up(store: Store) -> None:
    daemon = await process(store)
    number = await submitted(store)
    async with store.database.write() as connection:
        await connection.execute("UPDATE run SET tries = 19")
    assert await store.queue.claim(daemon, NOW) is None
    run = await store.runs.find(str(number))
    assert (run.state, run.due_at) == (RunState.FAILED, None)
    assert "its process died 19 times without any progress" in (run.error or "")


async def test_a_run_whose_processes_die_is_claimed_again_later_and_later(store: Store) -> None:
    daemon, now, waits = await process(store), NOW, list[float]()
    number = await submitted(store)
    for _ in range(FREE_TRIES + 2):
        assert await store.queue.claim(daemon, now) == number
        await store.queue.unclaim(Claim(number, daemon))
        due = (await store.queue.listed(now))[0].due_at
        assert await store.queue.claim(daemon, due - 1.0) is None
        waits.append(due - now)
        now = due
    assert waits[:FREE_TRIES] == [0.0] * FREE_TRIES
    assert 0.0 < waits[FREE_TRIES] < waits[FREE_TRIES + 1]


async def test_a_claimed_run_that_does_not_begin_blocks_its_endpoint_for_some_seconds_only(store: Store) -> None:
    daemon = await process(store, serves=True)
    first, second = await submitted(store, job="one"), await submitted(store, job="two")
    assert await store.queue.claim(daemon, NOW) == first
    assert await store.queue.claim(daemon, NOW + LOADS_FOR - 1.0) is None
    assert await store.queue.claim(daemon, NOW + LOADS_FOR + 1.0) == second


async def test_a_daemon_that_executes_several_runs_requeues_the_right_one(store: Store) -> None:
    daemon = await process(store)
    one = (await store.queue.submit(Submission("one", {}, ["e"], NOW)))[0]
    two = (await store.queue.submit(Submission("two", {}, ["f"], NOW)))[0]
    assert [await store.queue.claim(daemon, NOW), await store.queue.claim(daemon, NOW)] == [one, two]
    await store.queue.requeue(Claim(one, daemon), NOW + 60, "why", fruitless=True)
    await store.queue.unclaim(Claim(one, daemon))
    listed = {run.id: (run.due_at, run.why, run.tries, run.executing) for run in await store.queue.listed(NOW)}
    assert listed == {one: (NOW + 60, "why", 1, False), two: (NOW, None, 1, True)}
    await store.queue.leave(Claim(two, daemon))
    assert [run.id for run in await store.queue.listed(NOW)] == [one]


async def test_a_process_that_lost_its_claim_changes_nothing_in_the_run(store: Store) -> None:
    lost, daemon = await process(store), await process(store)
    number = await submitted(store)
    assert await store.queue.claim(daemon, NOW) == number
    before = await store.queue.listed(NOW)
    claim = Claim(number, lost)
    await store.queue.requeue(claim, NOW + 60, "why", fruitless=False)
    await store.queue.leave(claim)
    await store.queue.fail(claim, "why", owed=False)
    await store.queue.unclaim(claim)
    await store.runs.delivered(number, lost)
    await store.runs.end(number, lost, RunState.FAILED, "why")
    assert await store.queue.listed(NOW) == before


async def test_a_finished_run_is_not_requeued(store: Store) -> None:
    daemon = await process(store)
    number = await submitted(store)
    assert await store.queue.claim(daemon, NOW) == number
    await store.runs.cancel(number)
    await store.queue.requeue(Claim(number, daemon), NOW + 60, "why", fruitless=False)
    assert await store.queue.listed(NOW) == []


async def claimed_again(store: Store) -> Claim:
    """Kill the process that began the run before the snapshot was complete, so that a new run replaces it."""
    daemon, killed = await process(store, serves=True), await process(store)
    number = await submitted(store)
    assert await store.queue.claim(daemon, NOW) == number
    await store.runs.take(SPEC, killed, Claim(number, daemon))
    await store.runs.leave(killed)
    assert await store.queue.claim(daemon, NOW) == number
    return Claim(number, daemon)


async def test_a_claimed_run_cancelled_before_its_process_takes_it_makes_no_new_run(store: Store) -> None:
    claim = await claimed_again(store)
    await store.runs.cancel(claim.run_id)
    with pytest.raises(Busy, match=f"run {claim.run_id} of job 'job' is no longer claimed; it has left the queue"):
        await store.runs.take(SPEC, await process(store), claim)
    assert [run.id for run in await store.runs.newest(9)] == [claim.run_id]


async def test_a_claim_is_consumed_when_a_new_run_replaces_the_claimed_one(store: Store) -> None:
    claim = await claimed_again(store)
    new = await store.runs.take(SPEC, await process(store), claim)
    with pytest.raises(Busy, match="is no longer claimed"):
        await store.runs.take(SPEC, await process(store), claim)
    assert [run.id for run in await store.runs.newest(9)] == [new.id, claim.run_id]


async def test_progress_offsets_earlier_process_deaths(store: Store) -> None:
    daemon = await process(store)
    number = await submitted(store)
    tries = []
    for settles in (False, True, False, False):
        assert await store.queue.claim(daemon, NOW) == number
        tries.append((await store.queue.listed(NOW))[0].tries)
        if settles:
            run = await store.runs.take(Spec("job", "f", "s"), daemon, Claim(number, daemon))
            plan = await store.snapshots.ingest(run.id, run.job_id, 0, [[NewItem("i", "h", "{}", None)]])
            await store.runs.ingested(run.id, total=1, plan=plan, input_sha256="s")
            (part,) = await store.items.lease(run.id, daemon, 1)
            await store.items.settle([Settlement(part.items[0], Completed('"x"'), 0.1)])
        await store.queue.unclaim(Claim(number, daemon))
    assert tries == [1, 2, 1, 2]  # counted once


async def test_two_submissions_with_one_key_are_one_run_and_must_be_identical(store: Store) -> None:
    first = Submission("job", {}, ["e"], NOW, key="k", key_hash="1")
    number, is_new = await store.queue.submit(first)
    assert is_new
    assert await store.queue.submit(first) == (number, False)
    with pytest.raises(UsageError, match=f"key 'k' belongs to run {number}, which was submitted with another"):
        await store.queue.submit(Submission("job", {}, ["e"], NOW, key="k", key_hash="2"))
    assert await store.queue.submit(Submission("job", {}, ["e"], NOW, key="other", key_hash="1")) == (number + 1, True)


@pytest.mark.parametrize(
    ("ends", "is_listed"),
    [
        (RunState.STOPPED, True),
        (RunState.FAILED, True),  # until its fate is recorded
        (RunState.FINISHED, True),  # until it is delivered
        (RunState.CANCELLED, False),
    ],
)
async def test_a_run_leaves_the_queue_when_nothing_is_left_to_do(
    store: Store, ends: RunState, *, is_listed: bool
) -> None:
    daemon = await process(store)
    number = await submitted(store)
    assert await store.queue.claim(daemon, NOW) == number
    run = await store.runs.take(Spec("job", "f", "s"), daemon, Claim(number, daemon))
    await store.runs.ingested(run.id, total=0, plan=Plan(), input_sha256="s")
    await store.runs.end(number, daemon, ends)
    assert bool(await store.queue.listed(NOW)) == is_listed
    await store.runs.delivered(number, daemon)
    assert await store.queue.listed(NOW) == []


async def queued(store: Store, job: str, endpoint: str, *, due: float = NOW) -> int:
    return (await store.queue.submit(Submission(job, {}, [endpoint], due)))[0]


async def test_only_one_run_at_a_time_uses_an_endpoint_and_others_use_others(store: Store) -> None:
    daemon = await process(store)
    one, two, three = [await queued(store, job, endpoint) for job, endpoint in (("1", "e"), ("2", "e"), ("3", "f"))]
    assert [await store.queue.claim(daemon, NOW) for _ in range(3)] == [one, three, None]
    run = await store.runs.take(Spec("1", "f", "s"), daemon, Claim(one, daemon))
    await store.runs.ingested(run.id, total=0, plan=Plan(), input_sha256="s")
    assert await store.queue.claim(daemon, NOW) is None
    await store.runs.end(one, daemon, RunState.FINISHED)  # it only delivers
    assert await store.queue.claim(daemon, NOW) == two


@pytest.mark.parametrize(("late", "awake_first"), [(0.0, True), (2 * TURN_AFTER, False)])
async def test_a_run_whose_endpoint_is_awake_precedes_an_older_one_unless_that_is_overdue(
    store: Store, late: float, *, awake_first: bool
) -> None:
    daemon = await process(store)
    older, newer = await queued(store, "1", "e", due=NOW - late), await queued(store, "2", "f")
    for endpoint in "ef":
        window = await store.windows.enter(Terms(endpoint), daemon)
        assert window is not None
        if endpoint == "e":
            await store.windows.close(window, daemon, None, None, by="run", spent=Spent())
    assert await store.queue.claim(daemon, NOW) == (newer if awake_first else older)
