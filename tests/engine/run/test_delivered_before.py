"""A run with nothing new leaves its output as it is if it is still what was delivered, and writes it again if not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import orjson
import pytest

from orchestrator import Job, Policy
from orchestrator.domain.errors import StorageSilent
from orchestrator.domain.terms import Terms
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from orchestrator.sinks import CsvSink, JsonlSink
from orchestrator.sources import JsonlSource
from tests.engine.scripted import QUICK, Scripted, outputs
from tests.unguarded import UNGUARDED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from orchestrator.engine.run.run_result import RunResult
    from orchestrator.ports import Sink
    from orchestrator.store import Store

NAMES = ("out.jsonl", "out.failures.jsonl", "out.manifest.json")


def job_to(
    sink: Sink, folder: Path, texts: tuple[str, ...] = ("one", "poison"), endpoint: Scripted | None = None
) -> Job:
    rows = [{"id": f"{number}", "text": text} for number, text in enumerate(texts)]
    (folder / "rows.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    policy = Policy(backoff=QUICK, max_attempts=1)
    return Job("talk", JsonlSource(folder / "rows.jsonl", id="id"), endpoint or Scripted(), sink, policy=policy)


async def run(job: Job, store: Store, *, retry: int | None = None) -> RunResult:
    return await run_job(RunRequest(job, retry=retry), store, Progress(), Stop(), UNGUARDED)


def states(folder: Path) -> list[tuple[int, int, bytes]]:
    """Which files there are, and what is in them: a file that is written again is another one."""
    files = [folder / name for name in NAMES]
    return [(file.stat().st_ino, file.stat().st_mtime_ns, file.read_bytes()) for file in files]


async def test_a_run_with_nothing_new_writes_nothing(store: Store, tmp_path: Path) -> None:
    job = job_to(JsonlSink(tmp_path / "out.jsonl"), tmp_path)
    first = await run(job, store)
    written = states(tmp_path)
    for _ in range(2):
        again = await run(job, store)
        assert again.manifest == first.manifest == orjson.loads((tmp_path / "out.manifest.json").read_bytes())
        assert states(tmp_path) == written


def edited(file: Path) -> None:
    file.write_bytes(file.read_bytes()[::-1])  # with the same size


def copied(file: Path) -> None:
    content, times = file.read_bytes(), file.stat()
    file.unlink()
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", [lambda file: file.unlink(), copied, lambda file: file.touch()])
async def test_what_was_removed_or_touched_is_written_again(
    store: Store, tmp_path: Path, name: str, change: Callable[[Path], None]
) -> None:
    job = job_to(JsonlSink(tmp_path / "out.jsonl"), tmp_path)
    await run(job, store)
    before = states(tmp_path)
    if name == "out.manifest.json":  # without it, the files are not known as the job's
        job = job_to(JsonlSink(tmp_path / "out.jsonl", overwrite=True), tmp_path)
    change(tmp_path / name)
    await run(job, store)
    after = states(tmp_path)
    assert [content for _, _, content in after[:2]] == [content for _, _, content in before[:2]]
    assert all(file[:2] != earlier[:2] for file, earlier in zip(after, before, strict=True))


async def test_an_edited_file_is_written_again_only_with_overwrite(store: Store, tmp_path: Path) -> None:
    await run(job_to(JsonlSink(tmp_path / "out.jsonl"), tmp_path), store)
    edited(tmp_path / "out.jsonl")
    await run(job_to(JsonlSink(tmp_path / "out.jsonl", overwrite=True), tmp_path), store)
    assert outputs(job_to(JsonlSink(tmp_path / "out.jsonl"), tmp_path)) == {"0": "ONE"}


async def test_another_setting_of_the_sink_is_followed(store: Store, tmp_path: Path) -> None:
    await run(job_to(CsvSink(tmp_path / "out.csv"), tmp_path, ("=1",)), store)
    assert "'=1" not in (tmp_path / "out.csv").read_text()
    await run(job_to(CsvSink(tmp_path / "out.csv", escape_formulas=True), tmp_path, ("=1",)), store)
    assert "'=1" in (tmp_path / "out.csv").read_text()


async def test_what_a_retry_settles_is_delivered(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted()
    job = job_to(JsonlSink(tmp_path / "out.jsonl"), tmp_path, ("busy 1", "two"), endpoint)
    await run(job, store)
    assert outputs(job) == {"1": "TWO"}
    await run(job, store, retry=1)
    assert outputs(job) == {"0": "BUSY 1", "1": "TWO"}
    assert not (tmp_path / "out.failures.jsonl").exists()


async def test_what_a_later_run_of_the_job_settled_is_delivered(store: Store, tmp_path: Path) -> None:
    """Even though this run itself was not opened again."""
    endpoint = Scripted()
    job = job_to(JsonlSink(tmp_path / "out.jsonl"), tmp_path, ("busy 1", "two"), endpoint)
    await run(job, store)
    elsewhere = job_to(JsonlSink(tmp_path / "else.jsonl"), tmp_path, ("busy 1",), endpoint)
    await run(elsewhere, store)
    await run(elsewhere, store, retry=2)
    await run(job_to(JsonlSink(tmp_path / "out.jsonl"), tmp_path, ("busy 1", "two"), endpoint), store)
    assert outputs(job) == {"0": "BUSY 1", "1": "TWO"}


class Mine(JsonlSink):
    """A sink of another package, whose code may have changed."""

    __slots__ = ()


async def test_a_sink_of_another_package_delivers_each_time(store: Store, tmp_path: Path) -> None:
    job = job_to(Mine(tmp_path / "out.jsonl"), tmp_path)
    await run(job, store)
    before = states(tmp_path)
    await run(job, store)
    assert states(tmp_path) != before


class OutOfReach(JsonlSink):
    """A sink whose target can be written, and then not be looked at."""

    __slots__ = ()

    def standing(self) -> tuple[str, Mapping[str, object]] | None:
        raise StorageSilent("the store does not answer")


async def test_a_delivery_that_cannot_be_looked_at_afterwards_is_a_delivery(store: Store, tmp_path: Path) -> None:
    job = job_to(OutOfReach(tmp_path / "out.jsonl"), tmp_path)
    for _ in range(2):
        await run(job, store)
        assert outputs(job) == {"0": "ONE"}
    assert (await store.runs.find("1")).delivered_at is not None


async def test_what_the_provider_bills_after_the_delivery_is_in_the_manifest(store: Store, tmp_path: Path) -> None:
    terms = Terms("scripted", {"kind": "scripted"}, price_per_hour=3600.0)
    job = job_to(JsonlSink(tmp_path / "out.jsonl"), tmp_path, endpoint=Scripted(terms=terms))
    await run(job, store)
    async with store.database.write() as connection:
        await connection.execute("UPDATE awake_window SET billed_dollars = 7.5")
    cost = (await run(job, store)).manifest["cost"]
    assert isinstance(cost, dict)
    assert cost["dollars"] == 7.5
    written = states(tmp_path)
    await run(job, store)
    assert states(tmp_path) == written
