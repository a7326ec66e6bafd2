from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import orjson
import pytest

from orchestrator import Job, Policy
from orchestrator.domain.errors import NoFiles, UsageError
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.ingest import plan
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.run.snapshot import Snapshot
from orchestrator.engine.stop import Stop
from orchestrator.sinks import JsonlSink
from orchestrator.sources import FilesSource, IterableSource, JsonlSource
from orchestrator.store.prune import prune
from tests.engine.scripted import QUICK, Scripted, run
from tests.ledgers import forgive
from tests.unguarded import UNGUARDED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from orchestrator.engine.run.run_result import RunResult
    from orchestrator.store import Store

Night = dict[str, str]


def job_over(folder: Path, endpoint: Scripted, *, pattern: str = "in/*.jsonl", **changes: object) -> Job:
    source = JsonlSource(folder / pattern, id="id")
    sink = JsonlSink(folder / "out" / "{job}-{run}.jsonl")
    job = Job("nightly", source, endpoint, sink, policy=Policy(backoff=QUICK), incremental=True)
    return replace(job, **changes)  # type: ignore[arg-type]


def arrives(folder: Path, file: str, night: Night) -> None:
    path = folder / "in" / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(orjson.dumps({"id": name, "text": text}) + b"\n" for name, text in night.items()))


def delivered(folder: Path) -> dict[str, dict[str, object]]:
    """Return the contents of each output file, by name."""
    return {
        path.stem: {record["id"]: record["output"] for record in map(orjson.loads, path.read_bytes().splitlines())}
        for path in sorted((folder / "out").glob("*.jsonl"))
        if not path.stem.endswith(".failures")
    }


async def planned(job: Job, store: Store) -> str:
    return str(await plan(Snapshot(job, job.identity(), None), store, Progress()))


@pytest.fixture
def endpoint() -> Scripted:
    return Scripted()


async def test_each_run_takes_new_rows_and_writes_its_own_file(
    store: Store, tmp_path: Path, endpoint: Scripted
) -> None:
    job = job_over(tmp_path, endpoint)
    arrives(tmp_path, "1.jsonl", {"i1": "one", "i2": "two"})
    await run(job, store)
    arrives(tmp_path, "2.jsonl", {"i3": "three"})
    assert await planned(job, store) == "1 new, 0 edited, 0 reused, 0 to retry, 2 left out"
    report = await run(job, store)
    assert (report.plan.new, report.plan.left_out, report.counts.total) == (1, 2, 1)
    assert delivered(tmp_path) == {"nightly-1": {"i1": "ONE", "i2": "TWO"}, "nightly-2": {"i3": "THREE"}}
    assert endpoint.texts == ["one", "two", "three"] or sorted(endpoint.texts) == ["one", "three", "two"]
    manifest = orjson.loads((tmp_path / "out" / "nightly-2.manifest.json").read_bytes())
    assert (manifest["run"], manifest["counts"]["inputs"]) == (2, 1)
    assert list(manifest["files"]) == ["nightly-2.jsonl"]


async def test_items_are_recognized_in_any_file(store: Store, tmp_path: Path, endpoint: Scripted) -> None:
    job = job_over(tmp_path, endpoint)
    arrives(tmp_path, "monday.jsonl", {"i1": "one", "i2": "two"})
    await run(job, store)
    (tmp_path / "in" / "monday.jsonl").unlink()
    arrives(tmp_path, "tuesday.jsonl", {"i2": "two", "i3": "three"})
    arrives(tmp_path, "wednesday.jsonl", {"i3": "three", "i1": "one"})  # a row in both nights is taken once
    report = await run(job, store)
    assert (report.plan.new, report.plan.left_out) == (1, 3)
    assert delivered(tmp_path)["nightly-2"] == {"i3": "THREE"}


async def test_the_same_id_with_a_different_request_is_a_new_item(
    store: Store, tmp_path: Path, endpoint: Scripted
) -> None:
    job = job_over(tmp_path, endpoint)
    arrives(tmp_path, "1.jsonl", {"i1": "one", "i2": "two"})
    await run(job, store)
    arrives(tmp_path, "2.jsonl", {"i2": "two, corrected"})
    assert await planned(job, store) == "0 new, 1 edited, 0 reused, 0 to retry, 2 left out"
    await run(job, store)
    assert delivered(tmp_path)["nightly-2"] == {"i2": "TWO, CORRECTED"}


async def test_two_new_rows_with_the_same_id_and_different_content_are_refused(
    store: Store, tmp_path: Path, endpoint: Scripted
) -> None:
    arrives(tmp_path, "1.jsonl", {"i1": "one"})
    arrives(tmp_path, "2.jsonl", {"i1": "not one"})
    with pytest.raises(UsageError, match="id 'i1' is in two new rows that differ"):
        await run(job_over(tmp_path, endpoint), store)


async def test_without_new_rows_nothing_is_woken_or_written(store: Store, tmp_path: Path, endpoint: Scripted) -> None:
    job = job_over(tmp_path, endpoint)
    arrives(tmp_path, "1.jsonl", {"i1": "one"})
    await run(job, store)
    (tmp_path / "out" / "nightly-1.jsonl").unlink()  # as if the user had moved it away to work on it
    calls = list(endpoint.calls)
    report = await run(job, store)
    assert (report.run.id, report.run.state, report.counts.total, report.plan.left_out) == (2, "finished", 0, 1)
    assert (endpoint.calls, report.manifest, report.run.output) == (calls, {}, None)
    assert delivered(tmp_path) == {}


async def test_a_source_that_became_empty_is_no_error_because_it_replaces_nothing(
    store: Store, tmp_path: Path, endpoint: Scripted
) -> None:
    arrives(tmp_path, "a.jsonl", {"x": "one"})
    first = await run(job_over(tmp_path, endpoint, sink=JsonlSink(tmp_path / "{run}.jsonl")), store)
    (tmp_path / "2.jsonl").write_bytes(b"")  # something is there already
    arrives(tmp_path, "a.jsonl", {})
    empty = await run(job_over(tmp_path, endpoint, sink=JsonlSink(tmp_path / "{run}.jsonl", overwrite=True)), store)
    assert (first.counts.total, empty.counts.total) == (1, 0)


async def test_a_pattern_without_files_has_no_new_rows_and_is_refused_for_other_jobs(
    store: Store, tmp_path: Path, endpoint: Scripted
) -> None:
    job = job_over(tmp_path, endpoint)
    assert await planned(job, store) == "0 new, 0 edited, 0 reused, 0 to retry"
    assert (await run(job, store)).counts.total == 0
    pictures = replace(job, name="pictures", source=FilesSource(tmp_path / "in" / "*.png"), request={"f": "{file}"})
    assert (await run(pictures, store)).counts.total == 0
    with pytest.raises(NoFiles, match=r"in/\*\.jsonl matches no file: check the pattern"):
        await run(replace(job, incremental=False), store)
    with pytest.raises(UsageError, match="does not exist"):  # this file was named explicitly
        await run(job_over(tmp_path, endpoint, pattern="in/one.jsonl"), store)


async def test_results_of_a_stopped_run_are_delivered_by_the_next_without_asking_again(
    store: Store, tmp_path: Path
) -> None:
    endpoint, stop = Scripted(slow_after=2), Stop()
    arrives(tmp_path, "1.jsonl", {f"i{number}": f"text {number}" for number in range(6)})
    job = job_over(tmp_path, endpoint, policy=Policy(concurrency=1, backoff=QUICK, max_attempts=1))

    async with anyio.create_task_group() as group:
        group.start_soon(run_job, RunRequest(job), store, Progress(), stop, UNGUARDED)
        while len(endpoint.asked) < 3:
            await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    assert delivered(tmp_path) == {}
    arrives(tmp_path, "2.jsonl", {"i9": "nine"})
    endpoint.slow_after = None
    report = await run(job, store)
    assert (report.plan.reused, report.plan.new, report.plan.left_out) == (2, 5, 0)
    assert len(endpoint.asked) == 3 + 5
    assert sorted(delivered(tmp_path)["nightly-2"]) == ["i0", "i1", "i2", "i3", "i4", "i5", "i9"]


async def test_a_settled_run_that_was_not_delivered_is_delivered_first(
    store: Store, tmp_path: Path, endpoint: Scripted
) -> None:
    job = job_over(tmp_path, endpoint)
    arrives(tmp_path, "1.jsonl", {"i1": "one"})
    (tmp_path / "out").write_text("in the way of the folder")
    with pytest.raises(UsageError):
        await run(job, store)
    (tmp_path / "out").unlink()
    assert (await run(job, store)).run.id == 1
    assert delivered(tmp_path) == {"nightly-1": {"i1": "ONE"}}


@pytest.mark.parametrize("more", [{}, {"i3": "three"}])
async def test_discarded_items_are_left_out_until_they_are_forgiven(
    store: Store, tmp_path: Path, endpoint: Scripted, more: Night
) -> None:
    job = job_over(tmp_path, endpoint)
    arrives(tmp_path, "1.jsonl", {"i1": "one", "i2": "poison"})
    assert (await run(job, store)).counts.discarded == 1
    assert (await run(job, store)).plan.left_out == 2
    await forgive(store, 1)
    arrives(tmp_path, "2.jsonl", more)
    report = await run(replace(job, request="{text}"), store)
    assert report.plan.retry == 1
    assert report.counts.discarded == 1
    assert endpoint.texts.count("poison") == 2


async def test_the_items_of_pruned_runs_stay_known(store: Store, tmp_path: Path, endpoint: Scripted) -> None:
    job = job_over(tmp_path, endpoint)
    arrives(tmp_path, "1.jsonl", {f"i{number}": f"text {number}" for number in range(5)})
    await run(job, store)
    arrives(tmp_path, "2.jsonl", {"i9": "nine"})
    await run(job, store)
    await prune(store, time.time() + 1)
    arrives(tmp_path, "3.jsonl", {"i10": "ten"})
    report = await run(job, store)
    assert (report.plan.new, report.plan.left_out) == (1, 6)


async def test_a_job_that_becomes_incremental_skips_delivered_rows(
    store: Store, tmp_path: Path, endpoint: Scripted
) -> None:
    job = job_over(tmp_path, endpoint)
    arrives(tmp_path, "1.jsonl", {"i1": "one"})
    await run(replace(job, incremental=False), store)
    arrives(tmp_path, "2.jsonl", {"i2": "two"})
    report = await run(job, store)
    assert (report.plan.new, report.plan.left_out) == (1, 1)


async def test_new_rows_share_answers_with_each_other(store: Store, tmp_path: Path, endpoint: Scripted) -> None:
    job = job_over(tmp_path, endpoint)
    arrives(tmp_path, "1.jsonl", {"i1": "one", "i2": "two"})
    await run(job, store)
    arrives(tmp_path, "2.jsonl", {"i3": "same", "i4": "two", "i5": "same", "i6": "two"})
    report = await run(job, store)
    assert delivered(tmp_path)["nightly-2"] == {"i3": "SAME", "i4": "TWO", "i5": "SAME", "i6": "TWO"}
    assert (len(endpoint.asked), report.shared) == (4, 2)


async def test_a_query_source_works_incrementally(store: Store, tmp_path: Path, endpoint: Scripted) -> None:
    table = [{"id": 1, "text": "one"}, {"id": 2, "text": "two"}]
    job = job_over(tmp_path, endpoint, source=IterableSource(lambda: iter(table), id="id"))
    reports: list[RunResult] = [await run(job, store)]
    table.append({"id": 3, "text": "three"})
    reports += [await run(job, store), await run(job, store)]
    assert [(report.plan.new, report.plan.left_out) for report in reports] == [(2, 0), (1, 2), (0, 3)]


@pytest.mark.untraced
async def test_a_few_new_rows_among_many_stay_few(store: Store, tmp_path: Path, endpoint: Scripted) -> None:
    job = job_over(tmp_path, endpoint)
    rows = {f"i{number}": f"text {number}" for number in range(2000)}
    arrives(tmp_path, "1.jsonl", rows)
    await run(job, store)
    mixed: dict[str, str] = {}
    for number, (name, text) in enumerate(rows.items()):
        mixed |= {name: text} | ({f"new{number}": text} if number % 100 == 0 else {})
    arrives(tmp_path, "1.jsonl", mixed)
    report = await run(job, store)
    assert (report.plan.new, report.plan.left_out, report.counts.completed) == (20, 2000, 20)


@pytest.mark.parametrize("path", ["out.jsonl", "{job}.jsonl", "{job}-{date}.jsonl"])
def test_an_output_that_the_next_run_would_overwrite_is_refused_in_one_line(path: str) -> None:
    source: list[Mapping[str, object]] = []
    with pytest.raises(ValueError, match=r"^each run .* put \{run\} into the sink's path, as in .*-\{run\}\.jsonl$"):
        Job("nightly", IterableSource(source), Scripted(), JsonlSink(path), incremental=True)
