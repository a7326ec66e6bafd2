"""Several endpoints in one run, a fallback, and racing requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from orchestrator import Policy, Weighted
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointLost, EndpointRefused, PauseUnconfirmed, RunFailed
from orchestrator.domain.terms import Terms
from orchestrator.engine.awake import pausing
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from tests.engine.scripted import QUICK, Scripted, job_of, outputs, run
from tests.unguarded import UNGUARDED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator.store import Store

TEXTS = [f"text {number}" for number in range(1200)]
POLICY = Policy(backoff=QUICK, concurrency=4)


def pair(**first: Any) -> tuple[Scripted, Scripted]:
    return Scripted(name="first", **first), Scripted(name="second")


async def test_each_endpoint_takes_as_many_items_as_it_has_slots_and_nothing_is_asked_twice(
    store: Store, tmp_path: Path
) -> None:
    slow, quick = Scripted(name="slow", delay=0.02), Scripted(name="quick", delay=0.002)
    job = job_of(TEXTS, [slow, quick], tmp_path, POLICY)
    report = await run(job, store)
    assert list(outputs(job)) == [f"i{number}" for number in range(1200)]
    assert len(slow.texts) + len(quick.texts) == len({*slow.texts, *quick.texts}) == report.counts.completed == 1200
    assert 0 < len(slow.texts) < len(quick.texts)
    assert slow.calls == quick.calls == ["resume", "pause"]


async def test_a_weight_is_a_share_of_the_concurrency(store: Store, tmp_path: Path) -> None:
    large, small = Scripted(name="large", delay=0.005), Scripted(name="small", delay=0.005)
    await run(job_of(TEXTS, [Weighted(large, 2), Weighted(small, 0.5)], tmp_path, POLICY), store)
    assert (large.most_in_flight, small.most_in_flight) == (8, 2)


async def test_other_endpoints_may_join_and_leave_and_nothing_is_asked_again(store: Store, tmp_path: Path) -> None:
    first = Scripted(name="first", model="a")
    await run(job_of(TEXTS[:40], first, tmp_path, POLICY), store)
    other = Scripted(name="other", model="b")
    report = await run(job_of(TEXTS[:60], [Scripted(name="first", model="a"), other], tmp_path, POLICY), store)
    assert (report.plan.reused, report.plan.new) == (40, 20)
    alone = Scripted(name="other", model="b")
    report = await run(job_of(TEXTS[:60], alone, tmp_path, POLICY), store)
    assert report.plan.edited == 60


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: job_of([], [], folder), "a job needs an endpoint"),
        (lambda folder: job_of([], [Scripted(), Scripted()], folder), "need different names"),
        (lambda folder: job_of([], Scripted(), folder, fallback=Scripted()), "need different names"),
        (lambda folder: job_of([], Scripted(), folder, Policy(fallback_below=5)), "needs a fallback= endpoint"),
        (lambda _: Weighted(Scripted(), 0), "weight must be above 0"),
    ],
)
def test_invalid_combinations_of_endpoints_are_refused(
    make: Callable[[Path], object], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=says):
        make(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"order": "random"}, "policy.order must be one of length, prefix, input"),
        ({"batch_size": "some"}, "policy.batch_size must be a whole number"),
        ({"batch_tokens": 0}, "policy.batch_tokens must be a whole number"),
        ({"fallback_below": -1}, "policy.fallback_below must be a number of at least 0"),
    ],
)
def test_an_invalid_policy_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Policy(**wrong)


@pytest.mark.parametrize("how", ["does not come up", "refuses", "is lost for good", "fails everything alike"])
async def test_a_failing_endpoint_is_removed_and_its_items_go_to_the_others(
    store: Store, tmp_path: Path, how: str
) -> None:
    bad, good = pair()
    match how:
        case "does not come up":
            bad.wakes, bad.startup_timeout = False, 0.05
        case "refuses":
            bad.fails = EndpointRefused("the token is wrong")
        case "is lost for good":
            bad.fails = EndpointLost("nobody answers")
        case _:
            bad.poisons = True
    job = job_of(TEXTS, [bad, good], tmp_path, POLICY)
    good.delay = 0.01  # so that something is left for the bad endpoint
    report = await run(job, store)
    assert (report.counts.completed, report.counts.discarded) == (1200, 0)
    assert list(report.out) == ["first"]
    assert bad.calls[-1] == good.calls[-1] == "pause"


async def test_if_all_endpoints_fail_the_run_fails_with_the_reason_of_each(store: Store, tmp_path: Path) -> None:
    one, other = pair(fails=EndpointRefused("the token is wrong"))
    other.fails = EndpointRefused("no such model")
    with pytest.raises(RunFailed) as failed:
        await run(job_of(TEXTS, [one, other], tmp_path, POLICY), store)
    said = str(failed.value) + "".join(failed.value.__notes__)
    assert "the token is wrong" in said
    assert "no such model" in said


async def test_an_idle_endpoint_is_paused_while_the_others_continue(store: Store, tmp_path: Path) -> None:
    busy, idle = pair(gate=anyio.Event())
    assert busy.gate is not None
    async with anyio.create_task_group() as group:
        group.start_soon(run, job_of(TEXTS, [busy, idle], tmp_path, POLICY), store)
        while "pause" not in idle.calls:
            await anyio.sleep(0.001)
        assert busy.in_flight > 0
        assert busy.calls == ["resume"]
        busy.gate.set()
    assert len({*busy.texts, *idle.texts}) == len(busy.texts) + len(idle.texts) == 1200


async def test_an_endpoint_still_waking_when_all_is_done_is_not_waited_for(store: Store, tmp_path: Path) -> None:
    waking, ready = pair(wakes=False)
    waking.startup_timeout = 60.0
    report = await run(job_of(TEXTS, [waking, ready], tmp_path, POLICY), store)
    assert report.counts.completed == 1200
    assert waking.calls == ["resume", "pause"]
    assert waking.asked == []
    assert report.out == {}


async def test_a_failed_pause_is_reported_even_if_the_others_succeed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pausing, "PAUSE_DEADLINE", 0.05)
    bad, good = pair(pauses=False)
    with pytest.raises(PauseUnconfirmed, match="could not confirm that endpoint first is paused"):
        await run(job_of(TEXTS[:40], [bad, good], tmp_path, POLICY), store)
    assert good.state is EndpointState.PAUSED


async def test_the_report_has_the_cost_of_each_endpoint(store: Store, tmp_path: Path) -> None:
    one, other = (
        Scripted(name=name, delay=0.005, terms=Terms(name, {"kind": "scripted"}, price_per_hour=price))
        for name, price in (("one", 3600.0), ("other", 7200.0))
    )
    report = await run(job_of(TEXTS, [one, other], tmp_path, POLICY), store)
    assert {stay.endpoint: stay.price_per_hour for stay in report.session_costs} == {"one": 3600.0, "other": 7200.0}
    assert all(
        (stay.proof or "").startswith(f"endpoint {stay.endpoint} read as paused") for stay in report.session_costs
    )


# -- fallback ---------------------------------------------------------------------------------------------------------


async def test_a_fallback_takes_everything_if_the_endpoint_cannot_start(store: Store, tmp_path: Path) -> None:
    bad, spare = pair(wakes=False, startup_timeout=0.05)
    report = await run(job_of(TEXTS, bad, tmp_path, POLICY, fallback=spare), store)
    assert report.counts.completed == len(spare.texts) == 1200
    assert list(report.out) == ["first"]
    assert bad.calls == ["resume", "pause"]


async def test_a_few_items_go_to_the_fallback_and_the_endpoint_is_not_woken(store: Store, tmp_path: Path) -> None:
    endpoint, spare = pair()
    policy = Policy(backoff=QUICK, fallback_below=50)
    await run(job_of(TEXTS[:49], endpoint, tmp_path, policy, fallback=spare), store)
    assert endpoint.calls == []
    assert len(spare.texts) == 49


async def test_the_last_items_go_to_the_fallback_and_the_endpoint_is_paused(store: Store, tmp_path: Path) -> None:
    endpoint, spare = pair(delay=0.001)
    policy = Policy(backoff=QUICK, concurrency=4, fallback_below=50)
    await run(job_of(TEXTS, endpoint, tmp_path, policy, fallback=spare), store)
    assert endpoint.calls == ["resume", "pause"]
    assert 0 < len(spare.texts) < 50
    assert len({*endpoint.texts, *spare.texts}) == len(endpoint.texts) + len(spare.texts) == 1200


async def test_a_fallback_that_fails_leaves_the_rest_to_the_endpoint(store: Store, tmp_path: Path) -> None:
    endpoint, spare = pair()
    spare.fails = EndpointRefused("not for you")
    policy = Policy(backoff=QUICK, fallback_below=50)
    report = await run(job_of(TEXTS[:40], endpoint, tmp_path, policy, fallback=spare), store)
    assert report.counts.completed == len(endpoint.texts) == 40
    assert list(report.out) == ["second"]


# -- hedging ----------------------------------------------------------------------------------------------------------


async def test_at_the_end_a_straggler_is_asked_twice_and_the_first_answer_counts(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(delay=0.005, stuck_over="text 3")
    policy = Policy(backoff=QUICK, concurrency=4, hedge=True)
    with anyio.fail_after(30):
        report = await run(job_of(TEXTS[:40], endpoint, tmp_path, policy), store)
    assert (report.counts.completed, report.counts.discarded) == (40, 0)
    assert endpoint.texts.count("text 3") == 2
    assert endpoint.in_flight == 0


async def test_a_straggler_is_raced_at_another_endpoint(store: Store, tmp_path: Path) -> None:
    stuck, quick = pair(gate=anyio.Event())
    policy = Policy(backoff=QUICK, concurrency=2, hedge=True)
    with anyio.fail_after(30):
        report = await run(job_of(TEXTS[:40], [stuck, quick], tmp_path, policy), store)
    assert report.counts.completed == len(quick.texts) == 40
    assert stuck.calls == quick.calls == ["resume", "pause"]


async def test_losing_a_race_by_a_failure_counts_no_attempt(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(delay=0.005, stuck_over="text 3", fails_again=True)
    policy = Policy(backoff=QUICK, concurrency=4, hedge=True, max_attempts=1)
    progress, job = Progress(), job_of(TEXTS[:10], endpoint, tmp_path, policy)
    async with anyio.create_task_group() as group:
        group.start_soon(run_job, RunRequest(job), store, progress, Stop(), UNGUARDED)
        while endpoint.texts.count("text 3") < 2:
            await anyio.sleep(0.001)
        await anyio.wait_all_tasks_blocked()
        assert progress.discarded == 0
        group.cancel_scope.cancel()
    assert endpoint.calls[-1] == "pause"
