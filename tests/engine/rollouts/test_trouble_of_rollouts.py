"""Rollouts in trouble: failures that are held back, routes that rest, asks nobody awaits, functions without end."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import anyio
import pytest

from orchestrator import Policy, RequestFailed
from orchestrator.domain.errors import AskedToStop, FailureKind, RunStopped, Snoozed
from orchestrator.domain.queue import Claim, Submission
from orchestrator.domain.terms import Terms
from orchestrator.engine.awake.reaper import registered
from orchestrator.engine.progress import Progress
from orchestrator.engine.rollouts import ask_queue, deadlines, rollouts
from orchestrator.engine.rollouts.open_rollout import OpenRollout
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from tests.engine.rollouts.rollout_jobs import failures, rollout_job
from tests.engine.scripted import QUICK, Scripted, outputs, run
from tests.unguarded import UNGUARDED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator import Ask
    from orchestrator.store import Store


def two() -> dict[str, Scripted]:
    return {"writer": Scripted(name="w", model="large"), "judge": Scripted(name="j", model="small")}


async def test_failures_that_two_routes_hold_back_at_the_same_time_are_settled(store: Store, tmp_path: Path) -> None:
    endpoints = two()

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        return await ask(f"poison {row['text']}", row["text"])

    job = rollout_job(["writer", "judge"], rollout, endpoints, tmp_path)
    with anyio.fail_after(60):
        await run(job, store)
    assert {failure["status"] for failure in failures(job).values()} == {400}
    assert [one.calls for one in endpoints.values()] == [["resume", "pause"]] * 2


async def test_a_failure_is_not_held_back_while_a_rollout_does_something_else(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(name="e")
    caught = anyio.Event()

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        if row["text"] == "waits":
            await caught.wait()
            return "waited"
        try:
            return await ask(row["text"])
        except RequestFailed:
            caught.set()
            return await ask("instead")

    job = rollout_job(["waits", "poison"], rollout, endpoint, tmp_path)
    with anyio.fail_after(600):
        await run(job, store)
    assert outputs(job) == {"i0": "waited", "i1": "INSTEAD"}


async def test_a_rollout_may_end_without_awaiting_an_ask_whose_answer_is_known(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(name="e")

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        if row["text"] == "first":
            await ask("the same")
            for number in range(10):
                await ask(f"{number}")
            return "first"
        for number in range(3):
            await ask(f"other {number}")
        ask.soon("the same")
        raise ValueError("no")

    job = rollout_job(["first", "second"], rollout, endpoint, tmp_path)
    with anyio.fail_after(60):
        await run(job, store)
    assert outputs(job) == {"i0": "first"}


async def test_a_failure_in_a_task_group_discards_the_item_with_its_own_reason(store: Store, tmp_path: Path) -> None:
    async def rollout(row: dict[str, str], ask: Ask) -> object:
        async with anyio.create_task_group() as group:
            group.start_soon(ask, row["text"])
            group.start_soon(ask, "fine")
        return "done"

    job = rollout_job(["poison"], rollout, Scripted(), tmp_path)
    await run(job, store)
    found = failures(job)["i0"]
    assert (found["kind"], found["status"]) == ("rejected", 400)
    assert found["message"].startswith("bad input")


async def test_a_rollout_that_asks_again_until_it_is_answered_is_cancelled(store: Store, tmp_path: Path) -> None:
    endpoint, tries = Scripted(name="e"), 0

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        nonlocal tries
        while tries < 100:  # without end, as users write it
            tries += row["text"] == "poison"
            try:
                return await ask(row["text"])
            except RequestFailed:
                continue
        return "not reached"

    job = rollout_job(["poison", "fine"], rollout, endpoint, tmp_path, Policy(backoff=QUICK, max_asks=5))
    with anyio.fail_after(60):
        await run(job, store)
    assert outputs(job) == {"i1": "FINE"}
    assert failures(job)["i0"]["message"].startswith("it asks more than policy.max_asks=5 times (at ")
    assert tries == 6


async def test_an_ask_whose_deadline_is_over_frees_its_place(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(name="e", stuck_over="slow")

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        try:
            return await ask(row["text"], deadline=5.0 if row["text"] == "slow" else None)
        except RequestFailed:
            return "over"

    policy = Policy(backoff=QUICK, timeout=2000, concurrency=1)
    job = rollout_job(["slow", "fast", "fast 2"], rollout, endpoint, tmp_path, policy)
    with anyio.fail_after(600):
        await run(job, store)
    assert outputs(job) == {"i0": "over", "i1": "FAST", "i2": "FAST 2"}


async def test_a_queued_run_is_requeued_while_one_route_rests_and_no_other_has_anything_to_do(
    store: Store, tmp_path: Path
) -> None:
    endpoints = two()
    endpoints["judge"].refuses = {"*": 3600.0}
    endpoints["writer"].delay = 1.0

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        if row["text"] == "other":
            return [await ask(f"{number}", "writer") for number in range(100)]
        return await ask(row["text"], "judge")

    job = rollout_job(["judged", "other"], rollout, endpoints, tmp_path)
    begun = time.time()
    number, _ = await store.queue.submit(Submission(job.name, {}, ["w", "j"], begun))
    async with registered(store) as daemon:
        assert await store.queue.claim(daemon, time.time()) == number
        with pytest.raises(Snoozed):
            await run_job(RunRequest(job, claim=Claim(number, daemon)), store, Progress(), Stop(), UNGUARDED)
    assert time.time() - begun < 600
    (queued,) = await store.queue.listed(begun)
    assert queued.due_at == pytest.approx(begun + 3600, abs=60)
    assert [one.calls for one in endpoints.values()] == [["resume", "pause"]] * 2


async def test_deadlines_of_asks_that_were_answered_are_forgotten(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive, most = WeakSet[OpenRollout](), 0

    class Counted(OpenRollout):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            alive.add(self)

    monkeypatch.setattr(deadlines, "_SPARE", 10)
    monkeypatch.setattr(rollouts, "OpenRollout", Counted)

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        nonlocal most
        await ask(row["text"], deadline=100_000)
        if row["text"] == "text 299":
            most = len(alive)
        return "done"

    await run(rollout_job([f"text {number}" for number in range(300)], rollout, Scripted(), tmp_path), store)
    assert 0 < most < 250


async def test_short_answers_that_are_kept_for_equal_asks_count_for_the_memory_that_they_take(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask_queue, "_RECENT", 5000)
    endpoint = Scripted(name="e")

    asked = anyio.Event()

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        if row["text"] == "later":
            await asked.wait()
            return await ask("first")
        answers = [await ask(text) for text in ["first", *map(str, range(100))]]
        asked.set()
        return answers

    await run(rollout_job(["later", "sooner"], rollout, endpoint, tmp_path), store)
    assert endpoint.texts.count("first") == 2


async def test_a_rollout_that_neither_asks_nor_returns_is_named_and_keeps_no_endpoint_awake(
    store: Store, tmp_path: Path
) -> None:
    endpoint, progress = Scripted(name="e"), Progress()
    said: list[list[str]] = []

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        if row["text"] == "sleeps":
            await ask("before")
            await anyio.sleep(600)
            said.append([*progress.reasons, endpoint.state])
        return await ask(row["text"])

    job = rollout_job(["other", "sleeps"], rollout, endpoint, tmp_path)
    await run_job(RunRequest(job), store, progress, Stop(), UNGUARDED)
    assert said == [["a rollout neither asks nor returns: that of item i1", "paused"]]
    assert progress.reasons == []
    assert outputs(job) == {"i0": "OTHER", "i1": "SLEEPS"}


@pytest.mark.parametrize("waits", [True, False])
async def test_a_rollout_that_catches_everything_is_left_behind_and_the_run_ends(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture, *, waits: bool
) -> None:
    endpoint = Scripted(name="e")

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        while row["text"] == "stubborn":
            try:
                await ask("again")
                if waits:
                    await anyio.sleep_forever()
            except BaseException:  # noqa: S110, BLE001 - as users write it
                pass
        return await ask(row["text"])

    policy = Policy(backoff=QUICK, max_asks=5, item_timeout=0.5 if waits else None)
    job = rollout_job(["stubborn", "fine"], rollout, endpoint, tmp_path, policy)
    with anyio.fail_after(60):
        await run(job, store)
    assert outputs(job) == {"i1": "FINE"}
    assert failures(job)["i0"]["message"].startswith("its rollout took longer" if waits else "it asks more than")
    assert endpoint.calls == ["resume", "pause"]
    assert "the rollout of item i0 goes on although it was cancelled" in caplog.text


async def test_a_rollout_that_catches_everything_is_left_behind_when_the_run_is_stopped(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint, stop, asked = Scripted(name="e"), Stop(), anyio.Event()

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        await ask(row["text"])
        asked.set()
        while True:
            with suppress(BaseException):  # `except: pass` in the words of users
                await anyio.sleep_forever()

    async def stop_then() -> None:
        await asked.wait()
        stop.drain(1.0)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(stop_then)
            with pytest.raises(AskedToStop):
                await run(rollout_job(["stubborn"], rollout, endpoint, tmp_path), store, stop)
    assert endpoint.calls == ["resume", "pause"]
    assert "the rollout of item i0 goes on although it was cancelled" in caplog.text


@pytest.mark.parametrize("awaits", ["a shield", "a task"])
async def test_a_rollout_that_its_cancellation_does_not_reach_is_left_behind(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture, awaits: str
) -> None:
    endpoint, ended = Scripted(name="e"), False

    async def child() -> None:
        while not ended:
            with suppress(asyncio.CancelledError):
                await anyio.sleep(1.0)

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        answer = await ask(row["text"])
        if row["text"] == "fine":
            return answer
        if awaits == "a task":
            await asyncio.create_task(child())
        with anyio.CancelScope(shield=True):
            await asyncio.shield(child())
        return "not reached"

    job = rollout_job(["stuck", "fine"], rollout, endpoint, tmp_path, Policy(backoff=QUICK, item_timeout=5.0))
    try:
        with anyio.fail_after(600):
            await run(job, store)
    finally:
        ended = True
    assert outputs(job) == {"i1": "FINE"}
    assert failures(job)["i0"]["message"].startswith("its rollout took longer than policy.item_timeout=5 s")
    assert endpoint.calls == ["resume", "pause"]
    assert ("the rollout of item i0 goes on although it was cancelled" in caplog.text) is (awaits == "a task")


async def test_rollouts_that_do_something_else_first_keep_no_others_from_beginning(
    store: Store, tmp_path: Path
) -> None:
    endpoint, begun, all_begun = Scripted(name="e"), 0, anyio.Event()

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        nonlocal begun
        begun += 1
        if begun == 100:
            all_begun.set()
        answer = await ask("first") if begun == 1 else None
        await all_begun.wait()
        return answer or await ask(row["text"])

    job = rollout_job([f"{number}" for number in range(100)], rollout, endpoint, tmp_path, Policy(concurrency=16))
    with anyio.fail_after(60):
        await run(job, store)
    assert len(outputs(job)) == 100


async def test_no_rollout_begins_while_a_failed_run_ends(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begun = 0

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        nonlocal begun
        begun += 1
        if begun > 100:
            await ask(row["text"])
            await anyio.sleep_forever()
        raise ValueError("no")

    texts = [f"{number}" for number in range(1000)]
    with anyio.fail_after(60), pytest.raises(RunStopped, match="were discarded"):
        await run(rollout_job(texts, rollout, Scripted(name="e"), tmp_path, Policy(concurrency=4)), store)
    assert begun <= 100 + 64
    assert "left behind" not in caplog.text


async def test_a_spent_budget_says_how_many_asks_are_left(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(terms=Terms("scripted", {"kind": "scripted"}))
    endpoint.slow_after = 10

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        return [await ask(f"{row['text']} {number}") for number in range(3)]

    policy = Policy(concurrency=1, grace=0.0, max_awake=0.2)
    with pytest.raises(RunStopped, match=r"the budget is spent \(.* \d+ asks of \w+ left"):
        await run(rollout_job([f"{number}" for number in range(20)], rollout, endpoint, tmp_path, policy), store)
    assert endpoint.calls == ["resume", "pause"]


async def test_time_in_which_an_endpoint_is_woken_counts_for_no_deadline(store: Store, tmp_path: Path) -> None:
    endpoints = two()
    for one in endpoints.values():
        one.before_resume, one.startup_timeout = partial(anyio.sleep, 60.0), 100.0

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        draft = await ask(row["text"], deadline=5.0)
        verdict = await ask(draft, "judge", deadline=5.0)
        await anyio.sleep(1.0 if row["text"] == "fast" else 20.0)
        return verdict

    job = rollout_job(["fast", "slow"], rollout, endpoints, tmp_path, Policy(backoff=QUICK, item_timeout=10.0))
    with anyio.fail_after(600):
        await run(job, store)
    assert outputs(job) == {"i0": "FAST"}
    assert failures(job)["i1"]["message"].startswith("its rollout took longer than policy.item_timeout=10 s")


async def test_an_ask_that_waits_for_its_retry_lets_no_endpoint_rest_that_others_ask_soon(
    store: Store, tmp_path: Path
) -> None:
    endpoints, failed = two(), 0

    def fails(texts: Sequence[str]) -> Exception | None:
        nonlocal failed
        if texts == ["bad"] and not failed:
            failed = 1
            return RequestFailed(FailureKind.BAD_ANSWER, "not now", retry_after=150.0)
        return None

    endpoints["judge"].fails_with = fails

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        answer = await ask(row["text"], "judge")
        for number in range(4 if row["text"] == "works" else 0):
            await anyio.sleep(60.0)
            answer = await ask(f"{number}", "judge")
        return answer

    job = rollout_job(["bad", "works"], rollout, endpoints, tmp_path, Policy(backoff=QUICK, max_attempts=3))
    with anyio.fail_after(1000):
        await run(job, store)
    assert outputs(job) == {"i0": "BAD", "i1": "3"}
    assert endpoints["judge"].calls.count("resume") == 1


async def test_an_endpoint_that_has_everybody_wait_long_rests_although_others_would_ask_it(
    store: Store, tmp_path: Path
) -> None:
    endpoints, begun = two(), time.monotonic()

    def fails(_texts: Sequence[str]) -> Exception | None:
        left = begun + 900.0 - time.monotonic()
        return RequestFailed(FailureKind.RATE_LIMITED, "later", retry_after=left) if left > 0 else None

    endpoints["judge"].fails_with = fails
    resting = list[bool]()

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        if row["text"] == "works":
            await anyio.sleep(60.0)
            resting.append("pause" in endpoints["judge"].calls)
        return await ask(row["text"], "judge")

    job = rollout_job([*"abcdefgh", "works"], rollout, endpoints, tmp_path, Policy(backoff=QUICK, max_attempts=3))
    with anyio.fail_after(5000):
        await run(job, store)
    assert len(outputs(job)) == 9
    assert resting[0]
    assert endpoints["judge"].calls.count("resume") == 2
