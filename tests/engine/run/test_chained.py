"""A job whose source is another job: which run it reads, when it reads again, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import orjson
import pytest

from orchestrator import Job, Policy
from orchestrator.domain.errors import RunStopped, UsageError
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.chained import LedgerResults
from orchestrator.engine.run.plan import forecast
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from orchestrator.sinks import JsonlSink
from orchestrator.sources import JsonlSource, RunSource
from orchestrator.store.prune import prune
from tests.engine.scripted import QUICK, Scripted, run
from tests.unguarded import UNGUARDED

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.engine.run.run_result import RunResult
    from orchestrator.store import Store

FOREVER = 2e10  # seconds since 1970: a moment that comes after every run


class Chain:
    """Two jobs: `first` reads a file, `second` reads the results of `first`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.texts = folder / "texts.jsonl"
        self.asked = Scripted()
        policy = Policy(backoff=QUICK, max_error_rate=1.0, max_attempts=1)
        source, sink = JsonlSource(self.texts, id="key"), JsonlSink(folder / "first.jsonl", keep=["text"])
        self.first = Job("first", source, Scripted(name="one"), sink, policy=policy)
        sink = JsonlSink(folder / "second.jsonl", keep=["text"])
        self.second = Job("second", RunSource("first"), self.asked, sink, request="{output}!", policy=policy)

    def write(self, *texts: str) -> None:
        self.texts.write_text("".join(f'{{"key": {n}, "text": "{text}"}}\n' for n, text in enumerate(texts)))

    def delivered(self) -> list[tuple[object, object, object]]:
        return [(record["id"], record["text"], record["output"]) for record in self.records()]

    def records(self) -> list[dict[str, object]]:
        return list(map(orjson.loads, (self.folder / "second.jsonl").read_bytes().splitlines()))


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    chain = Chain(tmp_path)
    chain.write("a", "b", "c")
    return chain


async def limited(job: Job, store: Store, limit: int) -> RunResult:
    return await run_job(RunRequest(job, limit), store, Progress(), Stop(), UNGUARDED)


async def planned(job: Job, store: Store) -> tuple[str, list[str]]:
    found = await forecast(RunRequest(job), store)
    return str(found.counts), list(found.hints)


async def test_the_rows_are_the_completed_items_with_kept_columns_in_input_order(chain: Chain, store: Store) -> None:
    await run(chain.first, store)
    assert await planned(chain.second, store) == (
        "3 new, 0 edited, 0 reused, 0 to retry",
        ["the rows are the results of run 1 of first"],
    )
    done = await run(chain.second, store)
    assert chain.delivered() == [(0, "a", "A!"), (1, "b", "B!"), (2, "c", "C!")]
    assert done.manifest is not None
    assert done.manifest["input"]["source"] == "results of run 1 of first"  # type: ignore[index]


async def test_unchanged_results_continue_the_run_and_changed_ones_ask_only_what_changed(
    chain: Chain, store: Store
) -> None:
    await run(chain.first, store)
    assert (await run(chain.second, store)).run.id == (await run(chain.second, store)).run.id
    chain.write("a", "B2", "c", "d")
    await run(chain.first, store)
    assert (await planned(chain.second, store))[0] == "1 new, 1 edited, 2 reused, 0 to retry"
    await run(chain.second, store)
    assert chain.delivered() == [(0, "a", "A!"), (1, "B2", "B2!"), (2, "c", "C!"), (3, "d", "D!")]
    assert sorted(chain.asked.texts) == ["A!", "B!", "B2!", "C!", "D!"]


async def test_discarded_items_can_be_read_with_their_errors(chain: Chain, store: Store) -> None:
    await run(replace(chain.first, parse=lambda answer: {"A": 1}[answer]), store)
    job = replace(chain.second, source=RunSource("first", discarded=True), request="{text} {error[kind]} {attempts}")
    await run(job, store)
    assert chain.delivered() == [(1, "b", "B PARSE 1"), (2, "c", "C PARSE 1")]


async def test_the_output_is_kept_beside_the_new_one_under_another_name(chain: Chain, store: Store) -> None:
    await run(chain.first, store)
    sink = JsonlSink(chain.folder / "second.jsonl", keep=["label"])
    await run(replace(chain.second, source=RunSource("first", output="label"), sink=sink, request="{label}!"), store)
    assert chain.records()[0] == {"id": 0, "label": "A", "output": "A!"}
    with pytest.raises(UsageError, match="results of run 1 of first have a column 'text' already: choose another"):
        await run(replace(chain.second, source=RunSource("first", output="text"), request="{text}!"), store)


async def test_retried_items_appear_in_the_next_run(chain: Chain, store: Store) -> None:
    chain.write("a", "busy 1", "c")
    await run(chain.first, store)
    await run(chain.second, store)
    assert [text for _, text, _ in chain.delivered()] == ["a", "c"]
    await run_job(RunRequest(chain.first, retry=1), store, Progress(), Stop(), UNGUARDED)
    await run(chain.second, store)
    assert [text for _, text, _ in chain.delivered()] == ["a", "busy 1", "c"]
    assert sorted(chain.asked.texts) == ["A!", "BUSY 1!", "C!"]


async def test_a_part_counts_only_if_there_is_no_whole(chain: Chain, store: Store) -> None:
    await limited(chain.first, store, 1)
    assert (await planned(chain.second, store))[0].startswith("1 new")
    await run(chain.first, store)
    await limited(chain.first, store, 2)
    assert (await planned(chain.second, store))[1] == ["the rows are the results of run 2 of first"]


async def test_all_runs_of_an_incremental_job_are_read(chain: Chain, store: Store) -> None:
    first = replace(chain.first, incremental=True, sink=JsonlSink(chain.folder / "first-{run}.jsonl", keep=["text"]))
    await run(first, store)
    chain.write("a", "b", "c", "d")
    await run(first, store)
    assert await planned(chain.second, store) == (
        "4 new, 0 edited, 0 reused, 0 to retry",
        ["the rows are the results of runs 1 to 2 of first"],
    )
    chain.write("a", "B2", "c", "d", "e")
    await run(first, store)
    await run(chain.second, store)
    assert chain.delivered() == [(0, "a", "A!"), (2, "c", "C!"), (3, "d", "D!"), (1, "B2", "B2!"), (4, "e", "E!")]


async def test_an_unfinished_run_is_not_read_and_named(chain: Chain, store: Store) -> None:
    with pytest.raises(UsageError, match=r"^job 'first' has no run in this ledger: run it first"):
        await run(chain.second, store)
    stop = Stop()
    stop.drain()
    with pytest.raises(RunStopped):
        await run(chain.first, store, stop)
    with pytest.raises(UsageError, match=r"no finished run: run 1 stopped; run that job again to continue it$"):
        await run(chain.second, store)
    await run(chain.first, store)
    chain.write("a", "b", "c", "d")
    with pytest.raises(RunStopped):
        await run(chain.first, store, stop)
    assert (await planned(chain.second, store))[1] == [
        "the rows are the results of run 1 of first (run 2 has not finished)"
    ]


async def test_a_job_cannot_read_itself_or_in_a_circle(chain: Chain, store: Store) -> None:
    with pytest.raises(ValueError, match="job 'second' cannot read its own results"):
        replace(chain.second, source=RunSource("second"))
    await run(chain.first, store)
    await run(chain.second, store)
    with pytest.raises(UsageError, match=r"in a circle \(first <- second <- first\): change one source"):
        await run(replace(chain.first, source=RunSource("second")), store)


async def test_results_that_are_deleted_while_they_are_read_are_not_taken_for_fewer_rows(
    chain: Chain, store: Store
) -> None:
    chain.write(*(f"text {number}" for number in range(1_100)))
    await run(chain.first, store)
    results = LedgerResults(store, await store.finished_runs.of("first"))
    pages = results.pages()
    assert len(await anyio.to_thread.run_sync(next, pages)) == 1_000
    await prune(store, FOREVER)
    with pytest.raises(UsageError, match=r"^run 1 of first was changed or deleted while it was read: run again$"):
        await anyio.to_thread.run_sync(next, pages)
