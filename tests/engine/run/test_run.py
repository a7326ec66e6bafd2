from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import pytest

from orchestrator import Job, Policy
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import (
    EndpointLost,
    EndpointRefused,
    LedgerError,
    PauseUnconfirmed,
    RunStopped,
    UsageError,
)
from orchestrator.domain.events import Phase
from orchestrator.domain.item import ItemState
from orchestrator.domain.readings import asked
from orchestrator.domain.run import RunState, Tokens
from orchestrator.endpoints import HttpEndpoint
from orchestrator.engine.asking import breaker, concurrency, fanout
from orchestrator.engine.awake import pausing
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from orchestrator.engine.tasks import task_group
from orchestrator.sources import JsonlSource
from orchestrator.store import Store
from orchestrator.wires import OpenAIChatWire
from tests.engine.scripted import QUICK, Scripted, job_of, outputs, run
from tests.unguarded import UNGUARDED
from tests.wires.dialects import OPENAI, TEXT_IN, TEXT_OUT, served

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.engine.run.run_result import RunResult
    from orchestrator.store.views import ItemView


async def items_of(store: Store) -> dict[str, ItemView]:
    latest = await store.runs.find(None)
    return {item.id: item async for page in store.views.pages(latest.id) for item in page}


async def test_every_item_is_asked_once_and_delivered_in_order(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted()
    job = job_of([f"text {number}" for number in range(1200)], endpoint, tmp_path)
    report = await run(job, store)
    assert list(outputs(job)) == [f"i{number}" for number in range(1200)]
    assert len(endpoint.texts) == len(set(endpoint.texts)) == report.counts.completed == 1200
    assert endpoint.calls == ["resume", "pause"]


async def test_with_nothing_to_do_nothing_is_woken(store: Store, tmp_path: Path) -> None:
    first, second = Scripted(), Scripted()
    await run(job_of(["a", "b"], first, tmp_path), store)
    report = await run(job_of(["b", "a"], second, tmp_path), store)  # ids moved: both texts count as edited
    assert report.plan.edited == 2
    third = Scripted()
    await run(job_of(["b", "a"], third, tmp_path), store)
    assert third.calls == []


async def test_the_report_says_how_many_tokens_the_answers_took(store: Store, tmp_path: Path) -> None:
    async with served(OPENAI) as server:
        job = job_of(["a", "b", "c"], Scripted(), tmp_path)
        job = replace(job, endpoint=HttpEndpoint(server.url, wire=OpenAIChatWire("m")))
        assert (await run(job, store)).tokens == Tokens(3 * TEXT_IN, 3 * TEXT_OUT)
        assert (await run(job, store)).tokens == Tokens(3 * TEXT_IN, 3 * TEXT_OUT)  # the answers are the same
        assert len(server.asked) == 3


async def test_a_shared_answer_counts_its_tokens_once(store: Store, tmp_path: Path) -> None:
    async with served(OPENAI) as server:
        endpoint = HttpEndpoint(server.url, wire=OpenAIChatWire("m"))

        async def ask(texts: list[str]) -> RunResult:
            return await run(replace(job_of(texts, Scripted(), tmp_path), endpoint=endpoint), store)

        first, second = await ask(["a", "a", "b", "a"]), await ask(["a", "a", "b", "a", "a", "c"])
        assert len(server.asked) == 3
    for report, answers, new in ((first, 2, 2), (second, 3, 1)):
        tokens = (TEXT_IN * answers, TEXT_OUT * answers)
        assert report.tokens == await store.views.tokens(report.run.id) == Tokens(*tokens)
        whole = asked(await store.readings.of(report.run.id))
        assert (whole.tokens_in, whole.tokens_out) == (TEXT_IN * new, TEXT_OUT * new)


async def test_an_empty_source_is_a_finished_run(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted()
    report = await run(job_of([], endpoint, tmp_path), store)
    assert report.counts.total == 0
    assert endpoint.calls == []


async def test_a_refused_batch_is_split_until_the_bad_item_is_found(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(batch_size=16)
    texts = [f"text {number}" for number in range(16)]
    texts[5] = "poison five"
    job = job_of(texts, endpoint, tmp_path)
    report = await run(job, store)
    assert (report.counts.completed, report.counts.discarded) == (15, 1)
    assert "i5" not in outputs(job)
    assert len(endpoint.asked) <= 1 + 2 * 4, "log2 requests, not one each"


async def test_transient_failures_are_retried_and_counted(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(batch_size=4)
    policy = Policy(max_attempts=3, backoff=QUICK)
    job = job_of(["busy 2", "fine", "busy 9", "good"], endpoint, tmp_path, policy)
    await run(job, store)
    items = await items_of(store)
    assert {name: (item.state, item.attempts) for name, item in items.items()} == {
        "i0": (ItemState.COMPLETED, 3),
        "i1": (ItemState.COMPLETED, 1),
        "i2": (ItemState.DISCARDED, 3),
        "i3": (ItemState.COMPLETED, 1),
    }


async def test_the_item_that_crashes_the_endpoint_is_found_and_the_others_continue(
    store: Store, tmp_path: Path
) -> None:
    endpoint = Scripted(batch_size=8, max_in_flight=2)
    texts = [f"text {number}" for number in range(40)]
    texts[17] = "killer"
    job = job_of(texts, endpoint, tmp_path)
    report = await run(job, store)
    assert (report.counts.completed, report.counts.discarded) == (39, 1)
    killer = (await items_of(store))["i17"]
    assert (killer.state, killer.kind, killer.attempts) == (ItemState.DISCARDED, "crashed", 2)
    # at the start, after the batch, after each single attempt; not after the last if the others were done by then
    assert endpoint.calls.count("resume") in {3, 4}
    assert endpoint.state is EndpointState.PAUSED


async def test_an_endpoint_lost_repeatedly_stops_the_run_and_counts_no_attempt(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(fails=EndpointLost("cannot connect"))
    with pytest.raises(RunStopped, match="lost 3 times in a row"):
        await run(job_of(["a", "b"], endpoint, tmp_path), store)
    assert {item.attempts for item in (await items_of(store)).values()} == {0}
    assert {item.state for item in (await items_of(store)).values()} == {ItemState.AVAILABLE}
    assert endpoint.calls[-1] == "pause"


async def test_the_breaker_stops_early_and_releases_its_items(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted()
    policy = Policy(concurrency=2, breaker=5, backoff=QUICK)
    with pytest.raises(breaker.BreakerTripped, match="rejected 400: bad input"):
        await run(job_of([f"poison {number}" for number in range(200)], endpoint, tmp_path, policy), store)
    assert len(endpoint.asked) < 20
    items = (await items_of(store)).values()
    assert {(item.state, item.attempts) for item in items} == {(ItemState.AVAILABLE, 0)}  # no lease was released
    assert endpoint.state is EndpointState.PAUSED


async def test_answers_in_flight_when_the_ledger_is_removed_are_in_the_preserved_copy(tmp_path: Path) -> None:
    ledger, stop = tmp_path / "ledger.db", Stop()
    endpoint = Scripted(delay=0.05)
    job = job_of([f"text {n}" for n in range(100)], endpoint, tmp_path, Policy(concurrency=4, grace=30))

    async def remove() -> None:
        while len(endpoint.asked) < 8:  # some are committed by then
            await anyio.sleep(0.01)
        endpoint.gate = anyio.Event()
        while endpoint.in_flight < 4:
            await anyio.sleep(0.01)
        await anyio.Path(ledger).unlink()
        await stop.wait()
        endpoint.gate.set()

    async def run_all() -> None:
        async with Store.open(str(ledger)) as store, task_group() as group:
            group.start_soon(remove)
            await run(job, store, stop)

    with pytest.raises(LedgerError, match=r"was removed or replaced .*; all that was in it is in"):
        await run_all()
    assert len(endpoint.texts) < 100
    (kept,) = [path async for path in anyio.Path(tmp_path).glob("*.rescued-*")]
    async with Store.open(str(kept)) as store:
        assert (await store.views.counts(1, 100)).completed == len(endpoint.texts) > 0


async def test_a_stop_waits_for_answers_in_flight_and_asks_nothing_new(store: Store, tmp_path: Path) -> None:
    endpoint, stop = Scripted(), Stop()
    policy = Policy(concurrency=4)

    def parse(answer: object) -> object:
        stop.drain()
        return answer

    job = job_of([f"text {number}" for number in range(500)], endpoint, tmp_path, policy)
    job = type(job)(job.name, job.source, job.endpoint, job.sink, parse=parse, policy=policy)
    with pytest.raises(RunStopped, match="run the same command again"):
        await run(job, store, stop)
    items = (await items_of(store)).values()
    completed = [item for item in items if item.state is ItemState.COMPLETED]
    assert len(completed) == len(endpoint.texts) <= 8
    assert not any(item.state is ItemState.LEASED for item in items)


@pytest.mark.parametrize(
    ("endpoint", "error", "says"),
    [
        (Scripted(wakes=False, startup_timeout=0.01), RunStopped, "not awake within 0.01 s"),
        (Scripted(pauses=False), PauseUnconfirmed, "may still cost money"),
    ],
)
async def test_waking_and_pausing_have_deadlines(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: Scripted, error: type[Exception], says: str
) -> None:
    monkeypatch.setattr(pausing, "PAUSE_DEADLINE", 0.05)
    with pytest.raises(error, match=says):
        await run(job_of(["a"], endpoint, tmp_path), store)
    assert endpoint.calls == ["resume", "pause"]


async def test_the_endpoint_is_paused_whatever_parse_raises(store: Store, tmp_path: Path) -> None:
    def parse(answer: object) -> object:
        raise KeyError(answer)

    endpoint = Scripted()
    job = job_of(["a"], endpoint, tmp_path)
    report = await run(type(job)(job.name, job.source, job.endpoint, job.sink, parse=parse), store)
    assert report.counts.discarded == 1
    assert (await items_of(store))["i0"].message == "KeyError: 'A'"
    assert endpoint.state is EndpointState.PAUSED


async def test_a_refusing_endpoint_fails_the_run_at_once_and_is_paused(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(fails=EndpointRefused("401: check the token"))
    texts: Sequence[str] = [f"text {number}" for number in range(1000)]
    with pytest.raises(EndpointRefused, match="check the token"):
        await run(job_of(texts, endpoint, tmp_path, Policy(concurrency=8)), store)
    assert len(endpoint.asked) <= 8
    assert endpoint.state is EndpointState.PAUSED
    assert {item.state for item in (await items_of(store)).values()} == {ItemState.AVAILABLE}


async def test_until_the_first_success_only_a_few_requests_are_in_flight(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(gate=anyio.Event())
    job = job_of([f"text {number}" for number in range(100)], endpoint, tmp_path, Policy(concurrency=32))
    async with anyio.create_task_group() as group:
        group.start_soon(run, job, store)
        while endpoint.in_flight < concurrency.UNPROVEN_LIMIT:
            await anyio.sleep(0.001)
        await anyio.wait_all_tasks_blocked()
        assert endpoint.most_in_flight == concurrency.UNPROVEN_LIMIT
        assert endpoint.gate is not None
        endpoint.gate.set()
    assert endpoint.most_in_flight > concurrency.UNPROVEN_LIMIT


async def test_without_a_success_only_a_few_requests_are_ever_in_flight(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted()
    job = job_of([f"poison {number}" for number in range(200)], endpoint, tmp_path, Policy(concurrency=32, breaker=20))
    with pytest.raises(breaker.BreakerTripped):
        await run(job, store)
    assert endpoint.most_in_flight <= concurrency.UNPROVEN_LIMIT
    assert len(endpoint.asked) <= 20 + concurrency.UNPROVEN_LIMIT


async def test_a_rate_limit_delays_all_requests_once_and_uses_no_other_budget(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(rate_limited=6)
    job = job_of([f"text {number}" for number in range(50)], endpoint, tmp_path, Policy(max_attempts=1, backoff=QUICK))
    report = await run(job, store)
    assert report.counts.completed == 50
    assert len(endpoint.asked) == 56


async def test_a_server_that_accepts_shorter_lists_gets_them_from_then_on(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(batch_size=32, most=5)
    report = await run(job_of([f"text {number}" for number in range(100)], endpoint, tmp_path), store)
    assert report.counts.completed == 100
    assert max(len(batch) for batch in endpoint.asked[-10:]) <= 5
    assert len(endpoint.asked) <= 100 / 5 + 2 * concurrency.UNPROVEN_LIMIT


async def test_too_many_discarded_items_stop_the_run(store: Store, tmp_path: Path) -> None:
    texts = [f"{'poison' if number % 3 else 'benign'} {number}" for number in range(1000)]
    job = job_of(texts, Scripted(), tmp_path, Policy(concurrency=4, max_error_rate=0.5))
    with pytest.raises(RunStopped, match=r"more than policy.max_error_rate=0\.5"):
        await run(job, store)
    assert (await run(replace(job, policy=Policy(max_error_rate=1.0)), store)).counts.unfinished == 0


async def test_a_request_that_crashes_a_healthy_endpoint_is_found(store: Store, tmp_path: Path) -> None:
    huge = "x" * fanout.LARGE
    endpoint = Scripted(lost_over=huge)
    report = await run(job_of(["a", "b", huge, "c"], endpoint, tmp_path), store)
    assert (report.counts.completed, report.counts.discarded) == (3, 1)
    assert endpoint.calls == ["resume", "pause"]


async def test_a_held_run_pauses_its_endpoint_and_continues_when_released(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(delay=0.02)
    job = job_of([f"text {number}" for number in range(1000)], endpoint, tmp_path, Policy(concurrency=4))
    progress = Progress()
    async with anyio.create_task_group() as group:
        group.start_soon(run_job, RunRequest(job), store, progress, Stop(), UNGUARDED)
        while not endpoint.asked:
            await anyio.sleep(0.001)
        await store.runs.order(1, {"held": 1})
        while endpoint.calls != ["resume", "pause"]:
            await anyio.sleep(0.001)
        while progress.phase is not Phase.HELD:
            await anyio.sleep(0.001)
        asked = len(endpoint.asked)
        assert asked < 1000
        await store.runs.order(1, {"held": 0, "concurrency": 64})
    assert endpoint.calls == ["resume", "pause"] * 2
    assert len(outputs(job)) == len(endpoint.asked) == 1000


async def test_a_live_run_can_be_tuned(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(delay=0.01)
    job = job_of([f"text {number}" for number in range(2000)], endpoint, tmp_path, Policy(concurrency=2))
    async with anyio.create_task_group() as group:
        group.start_soon(run, job, store)
        while not endpoint.asked:
            await anyio.sleep(0.001)
        await store.runs.order(1, {"concurrency": 20})
        while endpoint.most_in_flight < 20:
            await anyio.sleep(0.001)
        await store.runs.order(1, {"concurrency": 3})
        while endpoint.in_flight > 3:
            await anyio.sleep(0.001)
        await store.runs.order(1, {"concurrency": 64})
    assert endpoint.most_in_flight <= 64
    assert len(outputs(job)) == 2000


async def test_automatic_concurrency_grows_and_is_remembered(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(delay=0.02)
    await run(job_of([f"text {number}" for number in range(3000)], endpoint, tmp_path), store)
    assert endpoint.most_in_flight > 16  # it answers any number of requests at once
    async with store.database.read() as connection:
        ((remembered,),) = await connection.execute("SELECT concurrency FROM tuning")
    assert remembered > 16


async def test_a_server_that_says_its_cache_is_full_gets_fewer_requests(store: Store, tmp_path: Path) -> None:
    full = "vllm:num_requests_running 8\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 0.99\n"
    endpoint = Scripted(delay=1.0, metrics=full)
    await run(job_of([f"text {number}" for number in range(300)], endpoint, tmp_path), store)
    assert endpoint.most_in_flight <= 16


async def test_a_request_quota_is_obeyed_and_does_not_delay_a_stop(store: Store, tmp_path: Path) -> None:
    endpoint, stop = Scripted(), Stop()
    policy = Policy(concurrency=8, requests_per_minute=1.0)
    async with anyio.create_task_group() as group:
        group.start_soon(swallowing_stop, job_of(["a", "b", "c"], endpoint, tmp_path, policy), store, stop)
        while not endpoint.asked:
            await anyio.sleep(0.001)
        await anyio.wait_all_tasks_blocked()
        stop.drain()
    assert len(endpoint.asked) == 1


async def test_a_token_quota_is_obeyed_and_does_not_delay_a_stop(store: Store, tmp_path: Path) -> None:
    endpoint, stop, progress = Scripted(tokens=50), Stop(), Progress()
    job = job_of(["a", "b", "c"], endpoint, tmp_path, Policy(concurrency=1, tokens_per_minute=50.0))
    async with anyio.create_task_group() as group:

        async def run_until_stopped() -> None:
            with pytest.raises(RunStopped):
                await run_job(RunRequest(job), store, progress, stop, UNGUARDED)

        group.start_soon(run_until_stopped)
        while not progress.completed:
            await anyio.sleep(0.001)
        await anyio.wait_all_tasks_blocked()
        stop.drain()
    assert (endpoint.texts, progress.tokens_in) == (["a"], 50)


async def swallowing_stop(job: Job, store: Store, stop: Stop) -> None:
    with pytest.raises(RunStopped):
        await run(job, store, stop)


@pytest.mark.parametrize("mistake", [ZeroDivisionError("1/0"), RecursionError(), KeyError("x"), ValueError("odd")])
async def test_an_unexpected_error_in_an_answer_fails_the_item_and_is_logged_once(
    store: Store, tmp_path: Path, mistake: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    policy = Policy(concurrency=2, breaker=100, max_error_rate=1.0, backoff=QUICK)
    report = await run(job_of(["a", "b", "c"], Scripted(fails=mistake), tmp_path, policy), store)
    assert (report.counts.discarded, report.counts.unfinished) == (3, 0)
    assert type(mistake).__name__ in str((await items_of(store))["i0"].message)
    assert [record.exc_info is not None for record in caplog.records] == [True]


async def test_an_internal_error_is_recorded_as_the_end_of_the_run(store: Store, tmp_path: Path) -> None:
    async def fail() -> None:
        raise ZeroDivisionError("division by zero")

    with pytest.raises(ZeroDivisionError):
        await run(job_of(["a"], Scripted(before_resume=fail), tmp_path), store)
    ended = await store.runs.find(None)
    assert (ended.state, ended.error) == (RunState.FAILED, "ZeroDivisionError: division by zero")


async def test_a_run_refused_for_its_arguments_does_not_count_as_begun(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.jsonl").write_text('{"id": 1, "text": "a"}')
    async with served(OPENAI) as server:
        endpoint = HttpEndpoint(server.url, wire=OpenAIChatWire("m"), token_env="MY_TOKEN")
        job = job_of([], Scripted(), tmp_path)
        job = replace(job, endpoint=endpoint, source=JsonlSource(tmp_path / "in.jsonl", id="id"))
        monkeypatch.delenv("MY_TOKEN", raising=False)
        with pytest.raises(UsageError, match="MY_TOKEN"):
            await run(job, store)
        assert (await store.runs.find("1")).started_at is None
        now = time.time()
        monkeypatch.setenv("MY_TOKEN", "hf_x")
        await run(job, store)
    assert ((await store.runs.find("1")).started_at or 0.0) >= now
