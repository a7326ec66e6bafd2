"""Which items share a request or an answer, and in which order they are asked."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import anyio
import pytest

from orchestrator import Job, Policy
from orchestrator.domain.attempt import Completed
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.domain.run import Spec, Tokens
from orchestrator.engine.asking.leased_items import LeasedItems
from orchestrator.engine.asking.work_queue import RunContext
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from orchestrator.sinks import JsonlSink
from orchestrator.sources import IterableSource
from orchestrator.store.items import Settlement
from orchestrator.store.row_classes import NewItem
from tests.engine.scripted import QUICK, Scripted, job_of, outputs, run
from tests.unguarded import UNGUARDED

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.store import Store


async def tuned(store: Store) -> list[tuple[object, ...]]:
    async with store.database.read() as connection:
        return [tuple(row) for row in await connection.execute("SELECT concurrency, batch_size FROM tuning")]


# -- size -------------------------------------------------------------------------------------------------------------


async def test_batches_grow_while_that_pays_and_the_size_is_remembered(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(batch_size=64, delay=0.02, each=0.0001)  # 64 items take little longer than 8
    policy = Policy(backoff=QUICK, concurrency=2, batch_size="auto")
    await run(job_of([f"text {number}" for number in range(6000)], endpoint, tmp_path, policy), store)
    assert len(endpoint.asked[0]) == 8
    ((_, size),) = await tuned(store)
    assert size == max(map(len, endpoint.asked)) == 64
    again = Scripted(batch_size=256)
    await run(job_of([f"another text {number}" for number in range(1000)], again, tmp_path, policy), store)
    assert len(again.asked[0]) == size


async def test_batches_stay_small_if_larger_ones_gain_nothing(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(batch_size=256, each=0.004)
    policy = Policy(backoff=QUICK, concurrency=2, batch_size="auto")
    await run(job_of([f"text {number}" for number in range(2500)], endpoint, tmp_path, policy), store)
    ((_, size),) = await tuned(store)
    assert isinstance(size, int)
    assert size <= 16


async def test_a_batch_size_that_the_server_refuses_is_not_tried_again(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(batch_size=16, chokes_over=8)
    policy = Policy(backoff=QUICK, concurrency=1, batch_size=16)
    report = await run(job_of([f"text {number}" for number in range(400)], endpoint, tmp_path, policy), store)
    assert (report.counts.completed, report.counts.discarded) == (400, 0)
    assert sum(len(batch) == 16 for batch in endpoint.asked) <= 3  # one shows whether the server is down


async def test_the_batch_limit_of_a_server_is_remembered(store: Store, tmp_path: Path) -> None:
    policy = Policy(backoff=QUICK, batch_size=16)
    await run(
        job_of([f"text {number}" for number in range(64)], Scripted(batch_size=16, most=4), tmp_path, policy), store
    )
    again = Scripted(batch_size=16, most=4)
    await run(job_of([f"other {number}" for number in range(64)], again, tmp_path, policy), store)
    assert max(map(len, again.asked)) == 4


@pytest.mark.parametrize(
    ("kind", "status", "tried"),
    [
        (FailureKind.UNAVAILABLE, 500, 5),
        (FailureKind.TIMEOUT, None, 5),
        (FailureKind.CONNECTION, None, 5),
        (FailureKind.GARBLED, None, 5),
        (FailureKind.RATE_LIMITED, 503, 8),
    ],
)
@pytest.mark.parametrize("count", [16, 64])
async def test_a_text_that_breaks_the_server_affects_no_other(
    store: Store, tmp_path: Path, kind: FailureKind, status: int | None, tried: int, count: int
) -> None:
    endpoint = Scripted(batch_size=16, breaks=RequestFailed(kind, "it broke", status=status))
    texts = ["broken" if number == count // 2 else f"text {number}" for number in range(count)]
    policy = Policy(backoff=QUICK, batch_size=16, concurrency=2)
    report = await run(job_of(texts, endpoint, tmp_path, policy), store)
    assert (report.counts.completed, report.counts.discarded) == (count - 1, 1)
    assert ["broken"] in endpoint.asked
    asked = sorted(map(endpoint.texts.count, (f"text {number}" for number in range(count))))
    assert asked[-3] <= 6  # the last items are asked again to see whether the endpoint is down
    assert endpoint.texts.count("broken") <= tried + 5  # and the parts of the batch that contained it


async def test_a_batch_with_a_transient_failure_is_repeated_whole_and_blames_no_item(
    store: Store, tmp_path: Path
) -> None:
    endpoint = Scripted(batch_size=16, trouble=1)
    policy = Policy(backoff=QUICK, batch_size=16, concurrency=1)
    report = await run(job_of([f"text {number}" for number in range(64)], endpoint, tmp_path, policy), store)
    assert (report.counts.completed, [len(batch) for batch in endpoint.asked]) == (64, [16] * 5)


@pytest.mark.parametrize("concurrency", [1, 8])
async def test_if_a_fifth_of_the_answers_is_garbled_few_requests_are_repeated(
    concurrency: int, store: Store, tmp_path: Path
) -> None:
    endpoint, draw = Scripted(batch_size=16), random.Random(1)
    garbled = RequestFailed(FailureKind.GARBLED, "no JSON")
    endpoint.fails_with = lambda _: garbled if draw.random() < 0.2 else None
    policy = Policy(backoff=QUICK, batch_size=16, concurrency=concurrency)
    report = await run(job_of([f"text {number}" for number in range(16 * 150)], endpoint, tmp_path, policy), store)
    assert report.counts.completed == 16 * 150
    assert len(endpoint.asked) <= 1.3 * 150  # 1.25 is the least


async def test_batches_with_an_item_that_is_always_garbled_are_soon_halved_at_once(
    store: Store, tmp_path: Path
) -> None:
    endpoint = Scripted(batch_size=16)
    garbled = RequestFailed(FailureKind.GARBLED, "no JSON")
    endpoint.fails_with = lambda texts: garbled if any("bad" in text for text in texts) else None
    texts = [f"{'bad' if number % 32 == 0 else 'text'} {number}" for number in range(16 * 20)]
    policy = Policy(backoff=QUICK, batch_size=16, concurrency=1, order="input", breaker=1000)
    report = await run(job_of(texts, endpoint, tmp_path, policy), store)
    assert (report.counts.completed, report.counts.discarded) == (16 * 20 - 10, 10)
    whole = [tuple(batch) for batch in endpoint.asked if len(batch) == 16 and "bad" in " ".join(batch)]
    assert max(map(whole.count, whole[6:])) == 1


async def test_the_parts_of_a_batch_are_asked_before_it_is_discarded(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(batch_size=16, breaks=RequestFailed(FailureKind.UNAVAILABLE, "it broke", status=500))
    policy = Policy(backoff=QUICK, batch_size=16, max_attempts=1)
    report = await run(job_of(["broken", *map(str, range(15))], endpoint, tmp_path, policy), store)
    assert (report.counts.completed, report.counts.discarded) == (15, 1)


# -- sharing ----------------------------------------------------------------------------------------------------------


async def test_identical_requests_are_asked_once_and_share_the_answer(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted()
    texts = [f"text {number % 7}" for number in range(2100)]  # across several chunks
    job = job_of(texts, endpoint, tmp_path)
    report = await run(job, store)
    assert sorted(endpoint.texts) == [f"text {number}" for number in range(7)]
    assert outputs(job) == {f"i{number}": text.upper() for number, text in enumerate(texts)}
    assert (report.counts.completed, report.shared, report.asked) == (2100, 2093, 7)


async def test_a_refusal_applies_to_all_items_with_the_same_request(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted()
    report = await run(job_of(["poison", "good", "poison", "poison"], endpoint, tmp_path), store)
    assert (report.counts.completed, report.counts.discarded) == (1, 3)
    assert endpoint.texts.count("poison") == 1


async def test_all_items_with_the_same_request_wait_for_its_retry(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted()
    report = await run(job_of(["busy 2"] * 5, endpoint, tmp_path), store)
    assert report.counts.completed == 5
    assert endpoint.texts == ["busy 2"] * 3


async def test_an_answer_that_arrives_while_its_twin_is_leased_counts_its_tokens_once(store: Store) -> None:
    me = await store.runs.register(host="h", pid=1, pid_started=0.0, lease=60)
    taken = await store.runs.take(Spec("job", "f", "s"), me)
    twins = [NewItem(name, name, '"text"', None) for name in ("a", "b")]
    plan = await store.snapshots.ingest(taken.id, taken.job_id, 0, [[twin] for twin in twins])
    await store.snapshots.mark_same(taken.id, [(1, 0)])
    await store.runs.ingested(taken.id, total=2, plan=plan, input_sha256="s")
    queue = LeasedItems(RunContext(store, taken.id, me, None, Policy(), Progress(), Stop()))
    first, second = await queue._leases.more(2)
    noted: list[list[Settlement]] = []
    await queue._take_in([first])
    async with anyio.create_task_group() as group:
        group.start_soon(queue.settle, [Settlement(first.items[0], Completed('"TEXT"', None, 3, 5), 0.1)], noted.append)
        await anyio.wait_all_tasks_blocked()  # it has been received, but not committed yet
        group.start_soon(queue._take_in, [second])
        await anyio.wait_all_tasks_blocked()
        group.start_soon(queue.commits.keep_committing)
        await queue.settle([])
        group.cancel_scope.cancel()
    assert (await store.views.counts(taken.id, 2)).completed == 2
    assert await store.views.tokens(taken.id) == Tokens(3, 5)


async def test_an_item_that_was_asked_twice_is_settled_once_and_its_chunk_stays_open(store: Store) -> None:
    me = await store.runs.register(host="h", pid=1, pid_started=0.0, lease=60)
    taken = await store.runs.take(Spec("job", "f", "s"), me)
    plan = await store.snapshots.ingest(
        taken.id, taken.job_id, 0, [[NewItem(name, name, '"text"', None) for name in "ab"]]
    )
    await store.runs.ingested(taken.id, total=2, plan=plan, input_sha256="s")
    queue = LeasedItems(RunContext(store, taken.id, me, None, Policy(), Progress(), Stop()))
    (leased,) = await queue._leases.more(1)
    await queue._take_in([leased])
    async with anyio.create_task_group() as group:
        group.start_soon(queue.commits.keep_committing)
        for answer in ('"ONE"', '"TWO"'):
            await queue.settle([Settlement(leased.items[0], Completed(answer, None, 3, 5), 0.1)])
        group.cancel_scope.cancel()
    assert (queue.work.progress.completed, bool(queue._leases)) == (1, True)
    await store.items.release(me)
    assert [item.id for part in await store.items.lease(taken.id, me, 1) for item in part.items] == ["b"]


async def test_answers_are_shared_after_a_stop(store: Store, tmp_path: Path) -> None:
    texts = [f"text {number % 600}" for number in range(1200)]
    first, stop = Scripted(slow_after=300), Stop()
    async with anyio.create_task_group() as group:
        job = job_of(texts, first, tmp_path, Policy(backoff=QUICK, concurrency=1))
        group.start_soon(run_job, RunRequest(job), store, Progress(), stop, UNGUARDED)
        while len(first.asked) <= 300:
            await anyio.sleep(0.001)
        group.cancel_scope.cancel()
    second = Scripted()
    job = job_of(texts, second, tmp_path, Policy(backoff=QUICK, concurrency=1))
    report = await run(job, store)
    assert report.counts.completed == 1200
    assert len(second.texts) == len(set(second.texts)) == 300
    assert outputs(job) == {f"i{number}": text.upper() for number, text in enumerate(texts)}


@pytest.mark.parametrize(
    ("request_", "policy"),
    [
        ({"inputs": "{text}", "parameters": {"temperature": 0.7}}, Policy(backoff=QUICK)),
        ({"inputs": "{text}", "do_sample": True}, Policy(backoff=QUICK)),
        ("{text}", Policy(backoff=QUICK, dedupe=False)),
    ],
)
async def test_sampled_answers_are_not_shared(store: Store, tmp_path: Path, request_: object, policy: Policy) -> None:
    endpoint = Scripted()
    source = IterableSource([{"id": f"i{number}", "text": "the same"} for number in range(3)], id="id")
    job = Job("scripted", source, endpoint, JsonlSink(tmp_path / "out.jsonl"), request=request_, policy=policy)
    await run(job, store)
    assert len(endpoint.asked) == 3


# -- order ------------------------------------------------------------------------------------------------------------


async def test_the_longest_requests_are_asked_first_and_equal_prefixes_together(store: Store, tmp_path: Path) -> None:
    texts = ["b: long text", "a: long", "b: x", "a: a longer text"]
    asked = {}
    for order in ("length", "prefix", "input"):
        endpoint = Scripted(name=order)
        policy = Policy(backoff=QUICK, concurrency=1, order=order)
        source = IterableSource([{"id": f"i{number}", "text": text} for number, text in enumerate(texts)], id="id")
        await run(Job(order, source, endpoint, JsonlSink(tmp_path / order / "out.jsonl"), policy=policy), store)
        asked[order] = [texts.index(text) for text in endpoint.texts]
    assert asked == {"length": [3, 0, 1, 2], "prefix": [3, 1, 0, 2], "input": [0, 1, 2, 3]}
