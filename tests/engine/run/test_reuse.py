"""Reuse: answers of another job are taken over once, at no cost, and `plan` says that it is possible."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from orchestrator import Policy
from orchestrator.domain.errors import UsageError
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.ingest import plan
from orchestrator.engine.run.reuse import Elsewhere
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.run.snapshot import Snapshot
from orchestrator.engine.stop import Stop
from orchestrator.sinks import JsonlSink
from tests.engine.scripted import QUICK, Scripted, job_of, outputs
from tests.unguarded import UNGUARDED

if TYPE_CHECKING:
    from orchestrator import Job
    from orchestrator.engine.run.run_result import RunResult
    from orchestrator.store import Store

TEXTS = [f"text {number}" for number in range(5)]


def renamed(job: Job, name: str = "renamed", **more: Any) -> Job:
    return replace(job, name=name, sink=JsonlSink(Path(str(job.output)).with_name(f"{name}.jsonl")), **more)


async def run(job: Job, store: Store, *reuse: str) -> RunResult:
    return await run_job(RunRequest(job, reuse=reuse), store, Progress(), Stop(), UNGUARDED)


async def planned(job: Job, store: Store, *reuse: str) -> tuple[str, dict[str, int]]:
    others = await store.reuse.named(reuse, job.name)
    alike = await store.reuse.asked_alike(job.name, job.identity())
    jobs = {number: name for number, name in alike.items() if number not in others}
    elsewhere = Elsewhere(store, await store.runs.job_id(job.name), jobs)
    found = await plan(Snapshot(job, job.identity(), None, reuse=others), store, Progress(), elsewhere.look)
    return str(found), elsewhere.answered_by


async def test_a_renamed_job_is_offered_the_answers_of_its_old_name_and_reuses_them(
    store: Store, tmp_path: Path
) -> None:
    endpoint = Scripted()
    old = job_of(TEXTS, endpoint, tmp_path)
    await run(old, store)
    new = renamed(job_of([*TEXTS, "one more"], endpoint, tmp_path))
    assert await planned(new, store) == ("6 new, 0 edited, 0 reused, 0 to retry", {"scripted": 5})
    assert await planned(new, store, "scripted") == ("1 new, 0 edited, 5 reused, 0 to retry", {})
    report = await run(new, store, "scripted")
    assert (report.plan.new, report.plan.reused, report.asked, report.settled) == (1, 5, 1, 1)
    assert outputs(new) == {f"i{number}": text.upper() for number, text in enumerate([*TEXTS, "one more"])}
    assert await planned(new, store) == ("0 new, 0 edited, 6 reused, 0 to retry", {})
    assert (await run(new, store)).asked == 0


async def test_answers_of_another_model_or_another_request_are_not_offered(store: Store, tmp_path: Path) -> None:
    await run(job_of(TEXTS, Scripted(), tmp_path), store)
    other_model = renamed(job_of(TEXTS, Scripted(model="other"), tmp_path))
    assert (await planned(other_model, store))[1] == {}
    other_text = renamed(job_of([text + "!" for text in TEXTS], Scripted(), tmp_path))
    assert (await planned(other_text, store))[1] == {}


async def test_a_run_that_has_begun_to_ask_can_reuse_answers_for_the_rest(store: Store, tmp_path: Path) -> None:
    await run(job_of(TEXTS, Scripted(), tmp_path), store)
    slow = Scripted(slow_after=2)
    job = renamed(job_of(TEXTS, slow, tmp_path, Policy(concurrency=1, backoff=QUICK)))
    async with anyio.create_task_group() as group:
        group.start_soon(run, job, store)
        while len(slow.asked) < 3:
            await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    report = await run(job, store, "scripted")
    assert (report.counts.completed, report.asked) == (5, 0)


async def test_reused_answers_are_parsed_by_the_parse_of_the_new_job(store: Store, tmp_path: Path) -> None:
    def lower(answer: object) -> str:
        return str(answer).lower()

    def picky(answer: object) -> object:
        if answer == "TEXT 3":
            raise ValueError("not this one")
        return answer

    await run(replace(job_of(TEXTS, Scripted(), tmp_path), parse=lower), store)
    new = renamed(job_of(TEXTS, Scripted(), tmp_path), parse=picky)
    report = await run(new, store, "scripted")
    assert (report.counts.completed, report.counts.discarded, report.asked) == (4, 1, 0)
    assert "not this one" in report.causes[0].message
    assert outputs(new) == {f"i{number}": text.upper() for number, text in enumerate(TEXTS) if number != 3}
    assert (await run(replace(new, parse=None), store)).counts.completed == 5


async def test_items_that_the_other_job_discarded_are_asked_and_the_first_of_several_jobs_counts(
    store: Store, tmp_path: Path
) -> None:
    endpoint = Scripted()
    quick = Policy(backoff=QUICK, max_attempts=1)
    await run(job_of(["busy 1", "two"], endpoint, tmp_path, quick), store)
    await run(renamed(job_of(["one", "two", "three"], endpoint, tmp_path), "second"), store)
    new = renamed(job_of(["busy 1", "two", "three"], endpoint, tmp_path))
    assert (await planned(new, store))[1] == {"second": 2, "scripted": 1}
    report = await run(new, store, "scripted", "second")
    assert (report.asked, report.counts.completed) == (1, 3)


@pytest.mark.parametrize(("name", "said"), [("nobody", "is not in the ledger"), ("scripted", "is this job itself")])
async def test_a_missing_job_to_reuse_is_refused_before_anything_is_asked(
    store: Store, tmp_path: Path, name: str, said: str
) -> None:
    endpoint = Scripted()
    with pytest.raises(UsageError, match=said):
        await run(job_of(TEXTS, endpoint, tmp_path), store, name)
    assert endpoint.calls == []


async def test_an_incremental_job_skips_what_it_reused(store: Store, tmp_path: Path) -> None:
    await run(job_of(TEXTS, Scripted(), tmp_path), store)
    new = replace(
        job_of(TEXTS, Scripted(), tmp_path), name="renamed", sink=JsonlSink(tmp_path / "{run}.jsonl"), incremental=True
    )
    assert (await run(new, store, "scripted")).counts.completed == 5
    assert (await run(new, store)).plan.left_out == 5
