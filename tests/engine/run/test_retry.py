"""Retry: whichever run is retried, every row ends in the output or the failures, and finished runs stay complete."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import orjson
import pytest

from orchestrator import Job, Policy
from orchestrator.domain.answer import Note
from orchestrator.domain.errors import Busy, RunStopped, UsageError
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.deliver import deliver
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from orchestrator.sinks import JsonlSink
from orchestrator.sources import JsonlSource
from tests.engine.scripted import QUICK, Scripted, outputs
from tests.unguarded import UNGUARDED

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.engine.run.run_result import RunResult
    from orchestrator.store import Store

ROWS = {"a": "busy 1", "b": "two", "c": "three", "d": "four"}  # the first is refused once and answered afterwards
ANSWERS = {name: text.upper() for name, text in ROWS.items()}


@pytest.fixture
def endpoint() -> Scripted:
    return Scripted()


def job_over(folder: Path, rows: dict[str, str], endpoint: Scripted, **more: Any) -> Job:
    written = write(folder / "rows.jsonl", rows)
    source = JsonlSource(written, id="id")
    given = {"policy": Policy(backoff=QUICK, max_attempts=1)} | more
    return Job("talk", source, endpoint, JsonlSink(folder / "out.jsonl"), **given)


def write(path: Path, rows: dict[str, str]) -> Path:
    path.write_bytes(b"\n".join(orjson.dumps({"id": name, "text": text}) for name, text in rows.items()))
    return path


async def run(job: Job, store: Store, **more: Any) -> RunResult:
    return await run_job(RunRequest(job, **more), store, Progress(), Stop(), UNGUARDED)


async def is_whole(store: Store, number: int, folder: Path, **counts: int) -> None:
    """Check that the run has settled everything, by its counters and by what it would deliver."""
    found = await store.runs.find(str(number))
    counted = await store.views.counts(number, found.total)
    written = (await deliver(found, store, JsonlSink(folder / "exported.jsonl")))["counts"]
    assert written == {"inputs": found.total, "skipped": 0} | counts
    assert {"completed": counted.completed, "discarded": counted.discarded} == counts


async def test_an_older_run_is_retried_by_the_newer_run_with_its_rows(
    store: Store, tmp_path: Path, endpoint: Scripted
) -> None:
    assert (await run(job_over(tmp_path, ROWS, endpoint), store)).counts.discarded == 1
    newer = job_over(tmp_path, ROWS | {"b": "edited"}, endpoint)
    assert (await run(newer, store)).counts.discarded == 1
    report = await run(newer, store, retry=1)
    assert (report.run.id, report.plan.retry, report.asked) == (2, 1, 1)
    assert outputs(newer) == ANSWERS | {"b": "EDITED"}
    for number in (1, 2):
        await is_whole(store, number, tmp_path, completed=4, discarded=0)


async def test_an_aborted_retry_leaves_every_finished_run_intact(
    store: Store, tmp_path: Path, endpoint: Scripted
) -> None:
    await run(job_over(tmp_path, ROWS, endpoint), store)
    newer = job_over(tmp_path, ROWS | {"b": "edited"}, endpoint)
    await run(newer, store)
    endpoint.slow_after = len(endpoint.asked)
    async with anyio.create_task_group() as group:
        group.start_soon(partial(run, newer, store, retry=1))
        while len(endpoint.asked) == endpoint.slow_after:
            await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    await is_whole(store, 1, tmp_path, completed=3, discarded=1)
    endpoint.slow_after = None
    gone = job_over(tmp_path, {name: text for name, text in ROWS.items() if name != "a"}, endpoint)
    assert (await run(gone, store)).counts.completed == 3  # no run asks for the row any more
    await is_whole(store, 1, tmp_path, completed=3, discarded=1)
    again = job_over(tmp_path, ROWS, endpoint)
    assert (await run(again, store)).plan.retry == 1
    await is_whole(store, 1, tmp_path, completed=4, discarded=0)


async def test_a_row_discarded_again_is_in_the_failures_of_every_run(
    store: Store, tmp_path: Path, endpoint: Scripted
) -> None:
    job = job_over(tmp_path, ROWS | {"a": "poison"}, endpoint)
    await run(job, store)
    newer = job_over(tmp_path, {"a": "poison", "e": "five"}, endpoint)
    await run(newer, store)
    assert (await run(newer, store, retry=1)).counts.discarded == 1
    assert endpoint.texts.count("poison") == 2
    await is_whole(store, 1, tmp_path, completed=3, discarded=1)
    await is_whole(store, 2, tmp_path, completed=1, discarded=1)


async def test_a_limited_run_is_retried_by_the_full_run(store: Store, tmp_path: Path, endpoint: Scripted) -> None:
    job = job_over(tmp_path, ROWS, endpoint)
    assert (await run(job, store, limit=2)).counts.discarded == 1
    await run(job, store)
    limited = await store.runs.find("1")
    assert (await store.runs.retried_by(limited)).id == 2
    assert (await run(job, store, retry=1)).run.id == 2
    assert outputs(job) == ANSWERS
    await is_whole(store, 1, tmp_path, completed=2, discarded=0)


async def test_a_limited_run_continues_itself_if_there_is_no_full_run(
    store: Store, tmp_path: Path, endpoint: Scripted
) -> None:
    job = job_over(tmp_path, ROWS, endpoint)
    await run(job, store, limit=2)
    limited = await store.runs.find("1")
    assert (await store.runs.retried_by(limited)).id == 1
    assert (await run(job, store, limit=2, retry=1)).run.id == 1
    assert outputs(job) == {"a": "BUSY 1", "b": "TWO"}


async def test_a_cancelled_run_is_retried_by_a_new_one(store: Store, tmp_path: Path, endpoint: Scripted) -> None:
    job = job_over(tmp_path, ROWS, endpoint)
    endpoint.slow_after = 2
    async with anyio.create_task_group() as group:
        group.start_soon(run, job, store)
        while len(endpoint.asked) <= endpoint.slow_after:
            await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    await store.runs.cancel(1)
    endpoint.slow_after = None
    assert (await run(job, store, retry=1)).run.id == 2
    assert outputs(job) == ANSWERS


async def test_an_incremental_run_is_retried_into_its_own_output_without_its_source(
    store: Store, tmp_path: Path, endpoint: Scripted
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    job = Job(
        "talk",
        JsonlSource(source / "*.jsonl", id="id"),
        endpoint,
        JsonlSink(tmp_path / "{run}.jsonl"),
        policy=Policy(backoff=QUICK, max_attempts=1),
        incremental=True,
    )
    for night, rows in enumerate(({"a": "busy 1", "b": "two"}, {"c": "three"}), start=1):
        write(source / f"{night}.jsonl", rows)
        await run(job, store)
    (source / "1.jsonl").unlink()
    assert (await run(job, store, retry=1)).run.id == 1
    assert len((tmp_path / "1.jsonl").read_bytes().splitlines()) == 2
    assert (await run(job, store)).counts.total == 0  # all of it is known again


async def test_outputs_parsed_again_are_counted_again_in_every_run(
    store: Store, tmp_path: Path, endpoint: Scripted
) -> None:
    def picky(answer: object) -> object:
        if answer == "TWO":
            raise ValueError("no two")
        return answer

    job = job_over(tmp_path, {"b": "two", "c": "three"}, endpoint)
    await run(job, store)
    assert (await run(replace(job, parse=picky), store)).counts.discarded == 1
    await is_whole(store, 1, tmp_path, completed=1, discarded=1)
    assert (await run(job, store)).counts.completed == 2
    for number in (1, 2, 3):
        await is_whole(store, number, tmp_path, completed=2, discarded=0)
    assert len(endpoint.asked) == 2


async def test_an_answer_that_parse_refused_is_kept_until_a_retry_replaces_it(
    store: Store, tmp_path: Path, endpoint: Scripted
) -> None:
    def refusing(answer: object) -> object:
        raise ValueError(f"not {answer}")

    job = job_over(tmp_path, {"b": "two"}, endpoint)
    await run(replace(job, parse=refusing), store)
    endpoint.fails = RunStopped("away")
    with pytest.raises(RunStopped):
        await run(replace(job, parse=refusing), store, retry=1)
    endpoint.fails = None
    assert (await run(job, store)).plan.reused == 1
    assert outputs(job) == {"b": "TWO"}
    assert len(endpoint.asked) == 2


async def test_the_notes_of_an_answer_are_recorded_once_parse_accepts_it(
    store: Store, tmp_path: Path, endpoint: Scripted
) -> None:
    def refusing(answer: object) -> object:
        raise ValueError(f"not {answer}")

    job = job_over(tmp_path, {"a": "  ", "b": "two"}, endpoint)
    assert (await run(replace(job, parse=refusing), store)).noted == {}
    assert (await run(job, store)).noted == {Note.EMPTY: 1}
    assert (await run(replace(job, parse=refusing), store)).noted == {}
    assert len(endpoint.asked) == 2


async def test_items_are_not_forgiven_while_another_run_of_the_job_is_executing(
    store: Store, tmp_path: Path, endpoint: Scripted
) -> None:
    job = job_over(tmp_path, ROWS, endpoint)
    await run(job, store)
    endpoint.gate = anyio.Event()
    longer = job_over(tmp_path, ROWS | {"e": "five"}, endpoint)
    async with anyio.create_task_group() as group:
        group.start_soon(run, longer, store)
        while not endpoint.in_flight:
            await anyio.sleep(0.01)
        with pytest.raises(Busy, match="run 2 of job 'talk' is being executed"):
            await run(job, store, retry=1)
        endpoint.gate.set()
    assert endpoint.texts.count("busy 1") == 1
    await is_whole(store, 2, tmp_path, completed=4, discarded=1)


async def test_a_run_is_not_retried_by_a_job_of_another_name(store: Store, tmp_path: Path, endpoint: Scripted) -> None:
    job = job_over(tmp_path, ROWS, endpoint)
    await run(job, store)
    with pytest.raises(UsageError, match="run 1 is of job 'talk', but its job file now declares 'chat'"):
        await run(replace(job, name="chat", sink=JsonlSink(tmp_path / "chat.jsonl")), store, retry=1)
