"""Rollouts: several requests for one item, each of them durable."""

from __future__ import annotations

import asyncio
import functools
import math
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from orchestrator import Policy, RequestFailed
from orchestrator.domain.errors import AskedToStop, FailureKind, NotAwake
from orchestrator.engine.stop import Stop
from tests.engine.rollouts.rollout_jobs import ask_rows, failures, rollout_job
from tests.engine.scripted import QUICK, Scripted, outputs, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator import Ask, Job
    from orchestrator.store import Store


async def three_steps(row: dict[str, str], ask: Ask) -> object:
    """Draft, three votes at once, and a repair."""
    draft = await ask(row["text"], "writer", step="draft")
    votes = [await vote for vote in [ask.soon(f"judge {draft} {number}", "judge") for number in range(3)]]
    return {"answer": await ask(f"repair {draft}", step="repair"), "votes": votes}


def two() -> dict[str, Scripted]:
    return {"writer": Scripted(name="w", model="large"), "judge": Scripted(name="j", model="small")}


async def run_until(happened: Callable[[], bool], job: Job, store: Store) -> None:
    """Run a job, and cut it short once something has happened."""
    stop = Stop()

    async def watch() -> None:
        while not happened():
            await anyio.sleep(0.001)
        stop.abort()

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        with pytest.raises(AskedToStop):
            await run(job, store, stop)


async def test_a_rollout_asks_several_endpoints_and_its_value_is_delivered(store: Store, tmp_path: Path) -> None:
    endpoints = two()
    job = rollout_job([f"text {number}" for number in range(40)], three_steps, endpoints, tmp_path)
    result = await run(job, store)
    assert result.counts.completed == 40
    assert outputs(job)["i7"] == {
        "answer": "REPAIR TEXT 7",
        "votes": ["JUDGE TEXT 7 0", "JUDGE TEXT 7 1", "JUDGE TEXT 7 2"],
    }
    assert list(outputs(job)) == [f"i{number}" for number in range(40)]
    assert (len(endpoints["writer"].texts), len(endpoints["judge"].texts)) == (80, 120)
    first = [row for row in await ask_rows(store) if row.item_id == "i0"]
    assert [(row.number, row.endpoint, row.step, row.answer) for row in first] == [
        (1, "writer", "draft", "TEXT 0"),
        (2, "judge", None, "JUDGE TEXT 0 0"),
        (3, "judge", None, "JUDGE TEXT 0 1"),
        (4, "judge", None, "JUDGE TEXT 0 2"),
        (5, "writer", "repair", "REPAIR TEXT 0"),
    ]


async def test_what_was_answered_before_a_stop_is_not_asked_again(store: Store, tmp_path: Path) -> None:
    endpoints = two()
    endpoints["judge"].delay = endpoints["writer"].delay = 0.01
    texts = [f"text {number}" for number in range(60)]
    job = rollout_job(texts, three_steps, endpoints, tmp_path, Policy(backoff=QUICK, concurrency=4))
    await run_until(lambda: sum(len(one.texts) for one in endpoints.values()) > 100, job, store)
    answered = len(await ask_rows(store))
    before = sum(len(one.texts) for one in endpoints.values())
    await run(job, store)
    assert 0 < answered < 300
    assert sum(len(one.texts) for one in endpoints.values()) == before + 300 - answered
    assert len(outputs(job)) == 60
    assert before - answered <= 4 + 4  # the requests that were in flight


async def test_equal_asks_of_one_item_get_answers_of_their_own_in_the_same_order_again(
    store: Store, tmp_path: Path
) -> None:
    endpoint = Scripted(name="e")

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        return [await one for one in [ask.soon({"inputs": row["text"]}) for _ in range(3)]]

    async def edited(row: dict[str, str], ask: Ask) -> object:
        return [await one for one in [ask.soon({"inputs": row["text"]}) for _ in range(4)]]

    await run(rollout_job(["a"], rollout, endpoint, tmp_path), store)
    assert endpoint.texts == ["a", "a", "a"]
    await run(rollout_job(["a"], edited, endpoint, tmp_path), store)
    assert endpoint.texts == ["a", "a", "a", "a"]
    assert [row.answer for row in await ask_rows(store)] == ["A"] * 4


async def test_editing_the_function_asks_only_what_differs(store: Store, tmp_path: Path) -> None:
    endpoints = two()

    async def edited(row: dict[str, str], ask: Ask) -> object:
        draft = await ask(row["text"], "writer", step="draft")
        return {"answer": await ask(f"improve {draft}"), "votes": [await ask(f"judge {draft} {2}", "judge")]}

    texts = ["one", "two", "three"]
    await run(rollout_job(texts, three_steps, endpoints, tmp_path), store)
    asked = {name: len(one.texts) for name, one in endpoints.items()}
    job = rollout_job(texts, edited, endpoints, tmp_path)
    result = await run(job, store)
    assert result.plan.edited == 3
    assert outputs(job)["i1"] == {"answer": "IMPROVE TWO", "votes": ["JUDGE TWO 2"]}
    assert {name: len(one.texts) - asked[name] for name, one in endpoints.items()} == {"writer": 3, "judge": 0}


async def test_another_model_is_asked_anew_and_the_other_endpoints_are_not(store: Store, tmp_path: Path) -> None:
    endpoints = two()
    await run(rollout_job(["one", "two"], three_steps, endpoints, tmp_path), store)
    endpoints["judge"] = Scripted(name="j", model="other")
    asked = len(endpoints["writer"].texts)
    await run(rollout_job(["one", "two"], three_steps, endpoints, tmp_path), store)
    assert len(endpoints["judge"].texts) == 6
    assert len(endpoints["writer"].texts) == asked


async def test_equal_asks_of_several_items_share_an_answer(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(name="e", tokens=7)

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        return [await ask("the same"), await ask({"inputs": "drawn", "temperature": 1}), await ask(row["text"])]

    texts = [f"text {number}" for number in range(30)]
    report = await run(rollout_job(texts, rollout, endpoint, tmp_path), store)
    assert endpoint.texts.count("the same") == 1
    assert endpoint.texts.count("drawn") == 30
    assert len(await ask_rows(store)) == 90
    (total,) = (await store.transcripts.totals([report.run.id]))[report.run.id]
    assert total.tokens_in == 7 * len(endpoint.texts) == 7 * 61  # a shared answer has cost none
    apart, policy = Scripted(name="e"), Policy(backoff=QUICK, dedupe=False)
    await run(rollout_job(texts, rollout, apart, tmp_path, policy, name="apart"), store)
    assert apart.texts.count("the same") == 30


async def test_equal_asks_of_several_items_share_an_answer_of_before_a_stop(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(name="e", delay=0.01)

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        same = [await ask("the same"), await ask({"temperature": 0, "inputs": "unsorted"})]
        return [await ask(row["text"]), *same]

    texts = [f"text {number}" for number in range(100)]
    job = rollout_job(texts, rollout, endpoint, tmp_path, Policy(backoff=QUICK, concurrency=2))
    await run_until(lambda: len(endpoint.texts) > 10, job, store)
    assert len(await ask_rows(store)) < 200  # rollouts that have not begun have not asked it
    await run(job, store)
    assert [endpoint.texts.count(text) for text in ("the same", "unsorted")] == [1, 1]
    assert len(await ask_rows(store)) == 300


async def test_a_rollout_may_return_before_the_known_answer_to_an_equal_ask_is_committed(
    store: Store, tmp_path: Path
) -> None:
    endpoint = Scripted(name="e")

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        await ask("the same")
        await ask(row["text"])
        ask.soon("the same", step="not awaited")
        return await ask("the same", step="awaited") if row["text"] == "text 0" else "done"

    texts = [f"text {number}" for number in range(20)]
    job = rollout_job(texts, rollout, endpoint, tmp_path)
    await run(job, store)
    assert len(outputs(job)) == 20


@pytest.mark.parametrize("gathers", [True, False])
async def test_concurrent_asks_of_tasks_replay_in_any_order(store: Store, tmp_path: Path, *, gathers: bool) -> None:
    endpoint = Scripted(name="e", delay=0.01)

    async def chain(ask: Ask, name: str) -> str:
        first = await ask(f"{name} first")
        return str(await ask(f"{first} second"))

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        names = [f"{row['text']} {number}" for number in range(5)]
        if gathers:
            return await asyncio.gather(*(chain(ask, name) for name in names))
        found = dict[str, str]()

        async def one(name: str) -> None:
            found[name] = await chain(ask, name)

        async with anyio.create_task_group() as group:
            for name in names:
                group.start_soon(one, name)
        return [found[name] for name in names]

    job = rollout_job(["a", "b", "c"], rollout, endpoint, tmp_path, Policy(backoff=QUICK, concurrency=4))
    await run_until(lambda: len(endpoint.asked) == 20, job, store)
    answered, before = len(await ask_rows(store)), len(endpoint.texts)
    await run(job, store)
    assert len(endpoint.texts) - before == 30 - answered
    assert outputs(job)["i1"] == [f"B {number} FIRST SECOND" for number in range(5)]


async def test_an_ask_that_fails_raises_in_the_function_which_may_catch_it(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(name="e")

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        try:
            return await ask(row["text"])
        except RequestFailed as failure:
            return f"{failure.kind} {failure.status} {failure}"

    job = rollout_job(["fine", "poison", "busy 1"], rollout, endpoint, tmp_path)
    await run(job, store)
    assert outputs(job) == {"i0": "FINE", "i1": "rejected 400 bad input", "i2": "BUSY 1"}
    attempts = {row.request: (row.outcome, row.attempts) for row in await ask_rows(store)}
    assert attempts == {"fine": ("completed", 1), "poison": ("discarded", 1), "busy 1": ("completed", 2)}


async def test_a_failure_that_was_caught_is_found_again_and_not_asked(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(name="e")

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        try:
            return await ask(row["text"])
        except RequestFailed:
            return await ask("instead")

    async def edited(row: dict[str, str], ask: Ask) -> object:
        try:
            return [await ask(row["text"])]
        except RequestFailed:
            return [await ask("instead")]

    await run(rollout_job(["poison"], rollout, endpoint, tmp_path), store)
    asked = list(endpoint.texts)
    job = rollout_job(["poison"], edited, endpoint, tmp_path)
    await run(job, store)
    assert endpoint.texts == asked == ["poison", "instead"]
    assert outputs(job) == {"i0": ["INSTEAD"]}


async def test_what_leaves_the_function_discards_the_item_with_reason_and_place(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(name="e")

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        answer = await ask(row["text"])
        if answer == "TWO":
            raise ValueError("two is no answer")
        if answer == "THREE":
            return object()
        if answer == "FOUR":
            return await ask(row["text"], "nobody")
        return answer

    job = rollout_job(["one", "two", "three", "four", "poison"], rollout, endpoint, tmp_path)
    result = await run(job, store)
    assert (result.counts.completed, result.counts.discarded) == (1, 4)
    found = failures(job)
    assert found["i1"]["kind"] == FailureKind.ROLLOUT
    assert found["i1"]["message"].startswith("ValueError: two is no answer (at test_rollouts.py:")
    assert "not JSON serializable" in found["i2"]["message"]
    assert "the job names no such endpoint; it has endpoint" in found["i3"]["message"]
    assert (found["i4"]["kind"], found["i4"]["status"]) == ("rejected", 400)
    assert "in rollout)" in found["i4"]["message"]


async def test_a_rollout_that_asks_without_end_is_discarded(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(name="e")

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        number = 0
        while row["text"] == "endless" and number < 50:
            number += 1
            try:
                await ask(f"again {number}")
            except RequestFailed:
                return "caught"
        return "done"

    job = rollout_job(["endless", "short"], rollout, endpoint, tmp_path, Policy(backoff=QUICK, max_asks=7))
    await run(job, store)
    assert outputs(job) == {"i1": "done"}
    assert failures(job)["i0"]["message"].startswith("it asks more than policy.max_asks=7 times (at test_rollouts.py:")
    assert len(endpoint.texts) == 7


async def test_an_ask_with_a_deadline_fails_when_it_is_over_and_fails_again_at_the_next_run(
    store: Store, tmp_path: Path
) -> None:
    endpoint = Scripted(name="e", stuck_over="slow")

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        try:
            return await ask(row["text"], deadline=5.0)
        except RequestFailed as failure:
            return str(failure)

    job = rollout_job(["slow", "fast"], rollout, endpoint, tmp_path, Policy(backoff=QUICK, timeout=20))
    with anyio.fail_after(60):
        await run(job, store)
    assert outputs(job) == {"i0": "it was not answered within its deadline of 5 s", "i1": "FAST"}
    (failed,) = await store.transcripts.of(1, "i0")
    assert failed["seconds"] == pytest.approx(5.0, abs=1.0)


async def test_a_rollout_that_takes_too_long_is_discarded(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(name="e")

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        answer = await ask(row["text"])
        await anyio.sleep(1.0 if row["text"] == "fast" else 100.0)
        return answer

    policy = Policy(backoff=QUICK, item_timeout=10.0)
    job = rollout_job(["slow", "fast"], rollout, endpoint, tmp_path, policy)
    await run(job, store)
    assert outputs(job) == {"i1": "FAST"}
    why = failures(job)["i0"]["message"]
    assert why.startswith("its rollout took longer than policy.item_timeout=10 s (at test_rollouts.py:")
    assert why.endswith(" in rollout)")


async def test_a_result_of_a_called_function_is_recorded_and_its_failure_is_not(store: Store, tmp_path: Path) -> None:
    endpoint, called = Scripted(name="e"), list[str]()

    async def look_up(word: str, *, times: int = 1) -> dict[str, object]:
        called.append(word)
        if len(called) == 1:
            raise OSError("not now")
        return {"word": word, "found": (1,) * times}

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        try:
            found = await ask.call(look_up, row["text"], times=2)
        except OSError:
            found = await ask.call(look_up, row["text"], times=2)
        return [found, await ask(str(found["found"]))]

    async def edited(row: dict[str, str], ask: Ask) -> object:
        await ask.call(look_up, row["text"], times=3)
        return await ask.call(look_up, row["text"], times=2)

    job = rollout_job(["a"], rollout, endpoint, tmp_path)
    await run(job, store)
    assert outputs(job) == {"i0": [{"word": "a", "found": [1, 1]}, "[1, 1]"]}
    assert called == ["a", "a"]
    job = rollout_job(["a"], edited, endpoint, tmp_path)
    await run(job, store)
    assert called == ["a"] * 4  # the failure was the first of its kind, and its place is asked again


async def test_an_endpoint_that_nobody_asks_is_paused_while_the_other_works(store: Store, tmp_path: Path) -> None:
    endpoints = {"writer": Scripted(name="w"), "judge": Scripted(name="j", model="small")}

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        await ask(row["text"], "writer")
        for number in range(400):
            await ask(f"{row['text']} {number}", "judge")
        assert endpoints["writer"].state == "paused"
        return await ask("last", "writer")

    endpoints["judge"].delay = 1.0
    job = rollout_job(["a"], rollout, endpoints, tmp_path)
    await run(job, store)
    assert outputs(job) == {"i0": "LAST"}
    assert endpoints["writer"].calls == ["resume", "pause", "resume", "pause"]
    assert endpoints["judge"].calls == ["resume", "pause"]


async def test_an_endpoint_is_woken_when_the_first_ask_for_it_comes(store: Store, tmp_path: Path) -> None:
    endpoints = two()

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        return await ask(row["text"], "writer")

    await run(rollout_job(["a", "b"], rollout, endpoints, tmp_path), store)
    assert endpoints["judge"].calls == []
    assert endpoints["writer"].calls == ["resume", "pause"]


async def test_an_ask_that_nobody_awaits_wakes_nothing(store: Store, tmp_path: Path) -> None:
    endpoints = two()

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        ask.soon(row["text"], "judge")
        return "done" if row["text"] == "a" else await ask(row["text"], "writer")

    await run(rollout_job(["a"], rollout, endpoints, tmp_path), store)
    assert endpoints["judge"].calls == []
    await run(rollout_job(["a", "b"], rollout, endpoints, tmp_path), store)
    assert [one.calls for one in endpoints.values()] == [["resume", "pause"]] * 2


async def test_a_run_whose_asks_are_all_in_the_ledger_wakes_nothing(store: Store, tmp_path: Path) -> None:
    endpoints = two()

    async def edited(row: dict[str, str], ask: Ask) -> object:
        return [await three_steps(row, ask)]

    texts = [f"text {number}" for number in range(200)]
    await run(rollout_job(texts, three_steps, endpoints, tmp_path), store)
    calls = [list(one.calls) for one in endpoints.values()]
    job = rollout_job(texts, edited, endpoints, tmp_path)
    await run(job, store)
    assert [one.calls for one in endpoints.values()] == calls
    assert len(outputs(job)) == 200


async def test_without_the_only_endpoint_of_a_name_the_run_fails_and_keeps_its_answers(
    store: Store, tmp_path: Path
) -> None:
    endpoints = two()
    endpoints["judge"].wakes = False
    endpoints["judge"].startup_timeout = 1.0
    job = rollout_job(["a", "b"], three_steps, endpoints, tmp_path)
    with pytest.raises(NotAwake, match="endpoint j "):
        await run(job, store)
    assert [row.answer for row in await ask_rows(store)] == ["A", "B"]
    endpoints["judge"].wakes = True
    await run(job, store)
    assert endpoints["writer"].texts.count("a") == 1
    assert len(outputs(job)) == 2


async def test_a_function_that_swallows_its_cancellation_settles_nothing(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(name="e", slow_after=1)

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        try:
            return await ask(row["text"])
        except BaseException:  # noqa: BLE001 - as users write it
            return "wrong"

    job = rollout_job(["a", "b", "c"], rollout, endpoint, tmp_path)
    await run_until(lambda: len(endpoint.asked) >= 2, job, store)
    endpoint.slow_after = None
    await run(job, store)
    assert outputs(job) == {"i0": "A", "i1": "B", "i2": "C"}


@pytest.mark.untraced
async def test_no_more_rollouts_are_open_than_keep_the_endpoint_busy(store: Store, tmp_path: Path) -> None:
    endpoint, open_now, most = Scripted(name="e", delay=0.01), 0, 0

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        for number in range(3):
            await ask(f"{row['text']} {number}")
        open_now -= 1
        return "done"

    texts = [f"text {number}" for number in range(300)]
    policy = Policy(backoff=QUICK, concurrency=8)
    job = rollout_job(texts, rollout, endpoint, tmp_path, policy)
    await run(job, store)
    assert len(outputs(job)) == 300
    assert endpoint.most_in_flight == 8
    assert most <= 64


async def test_wrong_arguments_of_an_ask_discard_its_item_only_and_say_why(store: Store, tmp_path: Path) -> None:
    def no_coroutine(word: str) -> str:
        return word

    def words(ask: Any) -> dict[str, Callable[[], object]]:
        return {
            "nan": lambda: ask("a", deadline=math.nan),
            "text": lambda: ask("a", deadline="5"),
            "step": lambda: ask("a", step={"name": "draft"}),
            "sync": lambda: ask.call(no_coroutine, "a"),
            "lambda": lambda: ask.call(lambda: ask("a")),
            "tools": lambda: ask.conversation(tools=["look_up"]),
            "right": lambda: ask("a"),
        }

    async def rollout(row: dict[str, str], ask: Any) -> object:
        if row["text"] == "set":
            return {"a"}
        if row["text"] == "votes":
            return [ask.soon("a")]
        if row["text"] == "prompt":
            return await ask(f"is this right? {ask.soon('a')}")
        return await words(ask)[row["text"]]()  # type: ignore[misc]  # the conversation is refused before

    job = rollout_job(
        ["nan", "text", "step", "sync", "lambda", "tools", "set", "votes", "prompt", "right"], rollout, two(), tmp_path
    )
    await run(job, store)
    assert list(outputs(job)) == ["i9"]
    found = [failure["message"].partition(" (at ")[0] for failure in failures(job).values()]
    unwritten = "TypeError: the rollout returned a value without a JSON form: Type is not JSON serializable:"
    assert found == [
        "TypeError: ask(deadline=nan) is not a number of seconds",
        "TypeError: ask(deadline='5') is not a number of seconds",
        "TypeError: ask(step={'name': 'draft'}) is not a text",
        f"TypeError: ask.call() needs an async function, and {no_coroutine.__qualname__} is none: write `async def`",
        "TypeError: ask.call() finds a recorded result by the function's name, and a lambda has none: use `def`",
        "TypeError: tools= has 'look_up', which is not an async function with a name",
        f"{unwritten} set",
        f"{unwritten} Pending, which has to be awaited",
        "TypeError: the answer is not awaited: write `await` before what `ask.soon` returned",
    ]


async def test_calls_of_partials_are_told_apart_by_function_and_arguments(store: Store, tmp_path: Path) -> None:
    called = list[tuple[str, int]]()

    async def find(function: str, times: int) -> str:
        called.append((function, times))
        return function * times

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        return await ask.call(functools.partial(find, row["text"], times=2))

    async def edited(row: dict[str, str], ask: Ask) -> object:
        return [
            await ask.call(functools.partial(find, function=row["text"]), times=1),
            await ask.call(find, row["text"], times=2),
        ]

    await run(rollout_job(["a"], rollout, Scripted(name="e"), tmp_path), store)
    job = rollout_job(["a"], edited, Scripted(name="e"), tmp_path)
    await run(job, store)
    assert called == [("a", 2), ("a", 1)]
    assert outputs(job)["i0"] == ["a", "aa"]
