"""The members of an endpoint: they start, join, fail and leave while the others continue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from orchestrator import Policy
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import BudgetSpent, EndpointLost, NotAwake, RunFailed
from orchestrator.domain.events import MemberRests, Phase
from orchestrator.domain.terms import Terms
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.members import START_AGAIN, rest_after
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from tests.engine.scripted import QUICK, Scripted, ScriptedGroup, job_of, outputs, run
from tests.engine.test_events import Recorder
from tests.unguarded import UNGUARDED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from orchestrator import Job
    from orchestrator.store import Store

TEXTS = [f"text {number}" for number in range(300)]
POLICY = Policy(backoff=QUICK, concurrency=4, max_attempts=1)


def pair(**first: object) -> tuple[Scripted, Scripted]:
    return Scripted(name="group 1", **first), Scripted(name="group 2")  # type: ignore[arg-type]  # fields of Scripted


def job(tmp_path: Path, group: ScriptedGroup, texts: list[str] = TEXTS, policy: Policy = POLICY) -> Job:
    return job_of(texts, group, tmp_path, policy)


async def test_members_share_the_work_and_the_concurrency_of_their_endpoint(store: Store, tmp_path: Path) -> None:
    one, other = pair(delay=0.002)
    other.delay = 0.002
    report = await run(job(tmp_path, ScriptedGroup([one, other]), policy=Policy(backoff=QUICK, concurrency=7)), store)
    assert (report.counts.completed, report.asked) == (300, 300)
    assert one.texts
    assert other.texts
    assert one.calls == other.calls == ["resume", "pause"]
    later = one.most_in_flight, other.most_in_flight  # the first one had all slots for a moment
    assert max(later) <= 7
    assert min(later) <= 4


def test_a_member_that_keeps_failing_rests_longer_each_time_up_to_a_limit() -> None:
    assert [rest_after(fruitless) for fruitless in (0, 1, 2, 3, 6, 7, 100)] == [30, 30, 60, 120, 960, 960, 960]


async def test_a_member_that_never_comes_up_is_started_again_less_and_less_often(store: Store, tmp_path: Path) -> None:
    seen = Recorder()
    broken, busy = pair(wakes=False)
    busy.gate = anyio.Event()
    group = ScriptedGroup([broken, busy])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_job, RunRequest(job(tmp_path, group)), store, Progress(), Stop(), UNGUARDED, [seen])
        with anyio.fail_after(10 * START_AGAIN):
            while seen.names.count("MemberRests") < 3:
                await anyio.sleep(0.1)
        busy.gate.set()
    rests = [event.again_in for event in seen.events if isinstance(event, MemberRests)]
    assert rests[:3] == [START_AGAIN, 2 * START_AGAIN, 4 * START_AGAIN]


async def test_a_run_starts_with_the_first_ready_member_and_ignores_one_that_is_never_ready(
    store: Store, tmp_path: Path
) -> None:
    never, ready = pair(wakes=False)
    third = Scripted(name="group 3")
    report = await run(job(tmp_path, ScriptedGroup([never, ready, third], startup_timeout=60.0)), store)
    assert report.counts.completed == 300
    assert never.asked == []
    assert never.calls == ["resume", "pause"]
    assert report.out == {}


async def test_a_lost_member_is_restarted_while_the_others_continue_and_no_item_loses_an_attempt(
    store: Store, tmp_path: Path
) -> None:
    progress, repaired = Progress(), anyio.Event()
    broken, other = pair()
    other.delay = 0.001

    def dies(_: Sequence[str]) -> Exception | None:
        if repaired.is_set():
            return None
        broken.state = EndpointState.PAUSED
        return EndpointLost("the connection was refused")

    async def waits_until_repaired() -> None:
        if broken.calls.count("resume") > 1:
            await repaired.wait()

    broken.fails_with, broken.before_resume = dies, waits_until_repaired
    group = ScriptedGroup([broken, other], startup_timeout=60.0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_job, RunRequest(job(tmp_path, group)), store, progress, Stop(), UNGUARDED)
        with anyio.fail_after(20):
            while broken.calls.count("resume") < 2:
                await anyio.sleep(0.001)
            asked = len(other.asked)
            while len(other.asked) < asked + 20:
                await anyio.sleep(0.001)
            other.gate = anyio.Event()  # so that some items are left
            repaired.set()
            while not broken.texts[4:]:
                await anyio.sleep(0.001)
        other.gate.set()
    assert (progress.completed, progress.discarded, progress.retried) == (300, 0, 0)


async def test_members_that_had_nothing_left_to_do_take_over_what_the_last_one_cannot_answer(
    store: Store, tmp_path: Path
) -> None:
    one, other = pair(delay=0.05, max_in_flight=1)
    other.delay, other.max_in_flight = 0.05, 1
    asked_at_first = list[Scripted]()

    def lost_at(member: Scripted) -> Callable[[Sequence[str]], Exception | None]:
        def fails(_texts: Sequence[str]) -> Exception | None:
            asked_at_first.append(member)
            return EndpointLost("503 behind a healthy proxy") if asked_at_first[0] is member else None

        return fails

    one.fails_with, other.fails_with = lost_at(one), lost_at(other)
    report = await run(job(tmp_path, ScriptedGroup([one, other]), ["text"]), store)
    assert report.counts.completed == 1
    assert asked_at_first[0] is not asked_at_first[-1]
    assert one.state is other.state is EndpointState.PAUSED


async def test_an_endpoint_whose_members_are_all_lost_for_good_fails(store: Store, tmp_path: Path) -> None:
    one, other = pair(fails=EndpointLost("nobody answers"))
    other.fails = EndpointLost("nobody answers there, either")
    with pytest.raises(NotAwake, match=r"endpoint group [12] was lost 3 times in a row with nothing done"):
        await run(job(tmp_path, ScriptedGroup([one, other])), store)
    assert one.calls[-1] == other.calls[-1] == "pause"


async def test_a_member_that_did_not_come_up_is_restarted_after_a_delay(store: Store, tmp_path: Path) -> None:
    progress = Progress()
    late, busy = pair(wakes=False)
    busy.gate = anyio.Event()
    group = ScriptedGroup([late, busy])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_job, RunRequest(job(tmp_path, group)), store, progress, Stop(), UNGUARDED)
        with anyio.fail_after(4 * START_AGAIN):
            while late.calls.count("resume") < 2:
                await anyio.sleep(0.1)
            late.wakes = True  # from the next start
            while not late.texts:
                await anyio.sleep(0.1)
        busy.gate.set()
    assert progress.completed == 300
    assert [trouble for trouble in progress.troubles if "group 1 was not awake within 5 s" in trouble]


async def test_a_member_that_fails_every_request_is_excluded_and_its_items_go_to_the_others(
    store: Store, tmp_path: Path
) -> None:
    progress = Progress()
    bad, good = pair(poisons=True)
    good.gate = anyio.Event()
    policy = Policy(backoff=QUICK, concurrency=4, breaker=5)
    async with anyio.create_task_group() as tasks:
        group = ScriptedGroup([bad, good])
        tasks.start_soon(run_job, RunRequest(job(tmp_path, group, policy=policy)), store, progress, Stop(), UNGUARDED)
        with anyio.fail_after(20):
            while "pause" not in bad.calls:
                await anyio.sleep(0.001)
        assert good.calls == ["resume"]
        good.gate.set()
    assert (progress.completed, progress.discarded) == (300, 0)
    good.poisons = True
    others = job_of([f"other {number}" for number in range(200)], ScriptedGroup([bad, good]), tmp_path, POLICY)
    with pytest.raises(RunFailed, match="requests in a row failed for the same cause"):
        await run(others, store)


async def test_members_can_join_and_leave_during_a_run_and_their_leased_items_are_released(
    store: Store, tmp_path: Path
) -> None:
    progress = Progress()
    leaving, joining = pair(gate=anyio.Event())
    joining.gate = anyio.Event()
    group = ScriptedGroup([], changed=anyio.Event(), startup_timeout=60.0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_job, RunRequest(job(tmp_path, group)), store, progress, Stop(), UNGUARDED)
        with anyio.fail_after(20):
            while not progress.present:  # the endpoint is in use and has no member yet
                await anyio.sleep(0.001)
            group.join(leaving)
            while leaving.in_flight < 4:
                await anyio.sleep(0.001)
            group.join(joining)
            while not joining.in_flight:
                await anyio.sleep(0.001)
            assert sorted(one.name for one in progress.servers) == ["group 1", "group 2"]
            group.leave(leaving)
            while leaving.calls != ["resume", "pause"]:
                await anyio.sleep(0.001)
        assert leaving.in_flight == 0
        joining.gate.set()
    assert (progress.completed, progress.discarded, progress.retried) == (300, 0, 0)
    assert len(joining.texts) == 300
    assert progress.phase is Phase.DONE


async def test_an_endpoint_without_members_is_waited_for_up_to_the_startup_timeout(
    store: Store, tmp_path: Path
) -> None:
    group = ScriptedGroup([], changed=anyio.Event(), startup_timeout=0.05)
    with pytest.raises(NotAwake, match=r"endpoint group had no member for 0\.05 s"):
        await run(job(tmp_path, group), store)
    fallback = Scripted(name="other")
    both = job_of(TEXTS, [ScriptedGroup([], changed=anyio.Event(), startup_timeout=60.0), fallback], tmp_path, POLICY)
    report = await run(both, store)
    assert (report.counts.completed, report.out) == (300, {})
    assert len(outputs(both)) == 300


async def test_members_of_a_billed_endpoint_share_its_debt_window_and_budget(store: Store, tmp_path: Path) -> None:
    one, other = pair(slow_after=4)
    other.slow_after = 4
    group = ScriptedGroup([one, other], terms=Terms("group", {"kind": "scripted"}, price_per_hour=3600.0))
    owed = list[bool]()

    async def look() -> None:
        owed.extend(window.billed_from is not None for window in await store.receipts.since())

    one.before_resume = other.before_resume = look
    policy = Policy(backoff=QUICK, concurrency=2, max_cost=0.5, grace=0.0)
    with pytest.raises(BudgetSpent, match="the budget is spent"):
        await run(job(tmp_path, group, policy=policy), store)
    assert set(owed) == {True}  # recorded before the first member was resumed
    assert one.state is other.state is EndpointState.PAUSED
    assert len(await store.receipts.since()) == 1
    assert await store.windows.debts() == []


async def test_a_stop_ends_members_and_waiting_for_them(store: Store, tmp_path: Path) -> None:
    progress, stop = Progress(), Stop()
    one = Scripted(name="group 1", gate=anyio.Event())
    group = ScriptedGroup([one], changed=anyio.Event(), startup_timeout=60.0)
    stopped = list[BaseException]()

    async def stop_it() -> None:
        try:
            await run_job(RunRequest(job(tmp_path, group)), store, progress, stop, UNGUARDED)
        except Exception as error:  # noqa: BLE001 - looked at below
            stopped.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stop_it)
        with anyio.fail_after(20):
            while not one.in_flight:
                await anyio.sleep(0.001)
        stop.drain()
        assert one.gate is not None
        one.gate.set()
    assert "stopped as asked" in str(stopped[0])
    assert one.calls == ["resume", "pause"]


async def test_an_endpoint_whose_members_all_fail_names_their_reason_and_waits_for_no_others(
    store: Store, tmp_path: Path
) -> None:
    group = ScriptedGroup([Scripted(name="group 1", poisons=True)], startup_timeout=600.0, changed=anyio.Event())
    with anyio.fail_after(60), pytest.raises(RunFailed, match="5 requests in a row failed for the same cause"):
        await run(job(tmp_path, group, policy=Policy(backoff=QUICK, breaker=5)), store)
