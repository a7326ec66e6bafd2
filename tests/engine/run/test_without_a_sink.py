"""A job without a sink: its answers stay in the ledger, with the columns that the job keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from orchestrator.domain.errors import UsageError
from orchestrator.endpoints import HttpEndpoint
from orchestrator.engine.results import results_of
from orchestrator.sinks import JsonlSink
from orchestrator.sources import IterableSource, JsonlSource
from orchestrator.spec import JobSpec
from tests.commands import rows
from tests.engine.scripted import Scripted, job_of, run

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator import Job
    from orchestrator.store import Store
    from tests.commands import Workplace


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return replace(job_of([f"text of {number}" for number in range(3)], Scripted(), tmp_path), sink=None, keep=["text"])


async def test_the_answers_and_the_kept_columns_stay_in_the_ledger_and_the_manifest_counts_them(
    job: Job, store: Store
) -> None:
    ended = await run(job, store)
    assert ended.run.output is None
    assert ended.manifest["counts"] == {"inputs": 3, "completed": 3, "discarded": 0, "skipped": 0}
    kept = [(row.id, row.kept, row.output is not None) async for row in results_of(ended.run.id, store)]
    assert kept == [(f"i{number}", {"text": f"text of {number}"}, True) for number in range(3)]


async def test_a_job_that_gets_a_sink_later_delivers_without_asking_again(
    job: Job, store: Store, tmp_path: Path
) -> None:
    first = await run(job, store)
    with_sink = replace(job, sink=JsonlSink(tmp_path / "out.jsonl", keep=["text"]), keep=())
    second = await run(with_sink, store)
    assert (first.asked, second.asked) == (3, 0)
    assert second.run.output == str(tmp_path / "out.jsonl")
    assert len((tmp_path / "out.jsonl").read_bytes().splitlines()) == 3
    assert (await run(job, store)).run.output is None


async def test_a_source_that_has_become_empty_replaces_nothing_and_is_no_error(job: Job, store: Store) -> None:
    await run(job, store)
    assert (await run(replace(job, source=IterableSource([], id="id")), store)).counts.total == 0


def test_a_job_without_a_sink_survives_a_round_trip_as_a_spec(job: Job) -> None:
    job = replace(job, source=JsonlSource("rows.jsonl", id="id"), endpoint=HttpEndpoint("http://127.0.0.1/"))
    form = JobSpec.of(job).as_json()
    assert "sink" not in form
    assert form["keep"] == ("text",)
    assert JobSpec.read(form, "spec").job().keep == ("text",)


def test_columns_to_keep_are_given_to_the_sink_if_there_is_one(job: Job, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give keep= to it, not to the job"):
        replace(job, sink=JsonlSink(tmp_path / "out.jsonl"))
    with pytest.raises(UsageError, match="'output' cannot be kept"):
        replace(job, keep=["output"])


def test_the_command_says_where_the_answers_are_and_exports_them_with_the_kept_columns(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(3)))
    job = workplace.job(sink="None, keep=['text']")
    ended = workplace.run("run", job)
    assert "output: in the ledger, as the job has no sink; `orchestrator export 1 -o FILE` writes it" in ended.err
    assert workplace.run("doctor", job).out.count("the answers stay in the ledger: the job has no sink") == 1
    assert workplace.run("export", "1", "-o", "out.jsonl").code == 0
    assert [row["text"] for row in workplace.outputs()] == ["text of 0", "text of 1", "text of 2"]
    assert workplace.run("run", "--json", job).json["output"] is None
