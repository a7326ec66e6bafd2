"""Files that a job may not write are refused before anything is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import orjson
import pytest
from anyio import Path as AsyncPath
from anyio import to_thread

from orchestrator import Job
from orchestrator.app.export import export
from orchestrator.domain.errors import UsageError
from orchestrator.domain.queue import Submission
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.deliver import deliver
from orchestrator.engine.run.files import check_files
from orchestrator.engine.run.ingest import plan
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.run.snapshot import Snapshot
from orchestrator.engine.stop import Stop
from orchestrator.sinks import CsvSink, JsonlSink
from orchestrator.sources import FilesSource, IterableSource, JsonlSource, QuerySource
from orchestrator.store import Store
from tests.engine.scripted import Scripted, run
from tests.unguarded import UNGUARDED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def endpoint() -> Scripted:
    return Scripted()


@pytest.fixture
def job(tmp_path: Path, endpoint: Scripted) -> Job:
    write(tmp_path / "data" / "in.jsonl", "one", "two")
    return Job(
        "talk", JsonlSource(tmp_path / "data" / "in.jsonl", id="id"), endpoint, JsonlSink(tmp_path / "out.jsonl")
    )


def write(path: Path, *texts: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(orjson.dumps({"id": text, "text": text}) + b"\n" for text in texts))


def outputs(path: Path) -> list[object]:
    return [orjson.loads(line)["output"] for line in path.read_bytes().splitlines()]


def delivered(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("out.*")}


@pytest.mark.parametrize(
    ("pattern", "output"),
    [
        ("data/in.jsonl", "data/in.jsonl"),
        ("data/*.jsonl", "data/out.jsonl"),
        ("data/*.failures.jsonl", "data/out.csv"),
        ("data/*.json", "data/out.csv"),
        ("data/*", "data/{job}-{run}.jsonl"),
        ("data/talk-[0-9]*.jsonl", "data/{job}-{run}.jsonl"),
        ("data/20*.jsonl", "data/{date}.jsonl"),
        ("data/.*", "data/out.jsonl"),
        ("data/*-*.jsonl", "data/out.jsonl"),
        ("**/*.jsonl", "data/new/folder/out.jsonl"),
    ],
)
def test_files_that_the_source_reads_now_or_later_are_not_overwritten(
    job: Job, tmp_path: Path, pattern: str, output: str
) -> None:
    kind = CsvSink if output.endswith("csv") else JsonlSink
    for source in (JsonlSource(tmp_path / pattern), FilesSource(tmp_path / pattern)):
        bad = replace(job, source=source, sink=kind(tmp_path / output, overwrite=True))
        with pytest.raises(UsageError, match=r"would overwrite .*, which the source .* reads: choose another path"):
            check_files(bad, tmp_path / "ledger.db", None)


@pytest.mark.parametrize(
    ("pattern", "output"),
    [
        ("data/*.jsonl", "out/{date}-{run}.jsonl"),
        ("data/in-*.jsonl", "data/out.jsonl"),
        ("data/*.csv", "data/out.jsonl"),
        ("data/*", "data/deeper/out.jsonl"),
        ("data/other-*.jsonl", "data/{job}-{run}.jsonl"),
    ],
)
def test_files_that_the_source_does_not_read_may_be_written(
    job: Job, tmp_path: Path, pattern: str, output: str
) -> None:
    good = replace(job, source=JsonlSource(tmp_path / pattern), sink=JsonlSink(tmp_path / output))
    check_files(good, tmp_path / "ledger.db", str(tmp_path / "job.py"))


@pytest.mark.parametrize("needed", ["ledger.db", "ledger.db-wal", "job.py"])
def test_neither_the_ledger_nor_the_job_file_is_overwritten(job: Job, tmp_path: Path, needed: str) -> None:
    (tmp_path / "job.py").touch()
    (tmp_path / "link").symlink_to(tmp_path / needed)
    for path in (tmp_path / needed, tmp_path / "link"):
        bad = replace(job, sink=JsonlSink(path, overwrite=True))
        with pytest.raises(UsageError, match=r"would overwrite the (ledger|job file): choose another path"):
            check_files(bad, tmp_path / "ledger.db", str(tmp_path / "job.py"))


@pytest.mark.parametrize("name", ["helpers.py", "config.toml"])
def test_neither_modules_nor_settings_are_replaced_even_with_overwrite(job: Job, tmp_path: Path, name: str) -> None:
    bad = replace(job, sink=JsonlSink(tmp_path / name, overwrite=True))
    with pytest.raises(UsageError, match=r"is named like a program or a settings file: call it \w+\.jsonl"):
        check_files(bad, tmp_path / "ledger.db", None)


async def test_a_changed_output_is_refused_before_anything_is_asked(
    job: Job, store: Store, tmp_path: Path, endpoint: Scripted
) -> None:
    await run(job, store)
    (tmp_path / "out.jsonl").write_text("mended by hand")
    write(tmp_path / "data" / "in.jsonl", "one", "two", "three")
    with pytest.raises(UsageError, match=r"out\.jsonl was changed since run 1 of job 'talk' wrote it: .*`--overwrite`"):
        await run(job, store)
    assert (tmp_path / "out.jsonl").read_text() == "mended by hand"
    assert len(endpoint.texts) == 2
    await run(replace(job, sink=JsonlSink(tmp_path / "out.jsonl", overwrite=True)), store)
    assert outputs(tmp_path / "out.jsonl") == ["ONE", "TWO", "THREE"]


async def test_a_run_that_completes_fewer_of_the_same_rows_keeps_the_earlier_output(
    job: Job, store: Store, tmp_path: Path
) -> None:
    await run(job, store)
    texts = {"one": "poison", "two": "another"}
    report = await run(replace(job, request=lambda row: texts[str(row["text"])]), store)
    assert (report.counts.completed, report.counts.discarded) == (1, 1)
    assert outputs(tmp_path / "out.jsonl") == ["ANOTHER"]
    assert outputs(tmp_path / "out.run-1.jsonl") == ["ONE", "TWO"]
    earlier = report.manifest["earlier"]
    assert isinstance(earlier, dict)
    assert (earlier["run"], earlier["file"], earlier["records"]) == (1, "out.run-1.jsonl", 2)


async def test_a_run_that_may_not_write_asks_nothing_and_leaves_no_run_behind(
    job: Job, store: Store, tmp_path: Path, endpoint: Scripted
) -> None:
    (tmp_path / "out.jsonl").write_text("somebody's")
    with pytest.raises(UsageError, match=r"out\.jsonl is a file that no delivery of job 'talk' has written"):
        await run(job, store)
    assert (tmp_path / "out.jsonl").read_text() == "somebody's"
    assert endpoint.calls == []
    assert await store.runs.newest(1) == []


async def test_the_path_with_the_run_number_is_checked_before_anything_is_asked(
    job: Job, store: Store, tmp_path: Path, endpoint: Scripted
) -> None:
    job = replace(job, sink=JsonlSink(tmp_path / "out-{run}.jsonl"))
    (tmp_path / "out-1.jsonl").write_text("somebody's")
    with pytest.raises(UsageError, match=r"out-1\.jsonl is a file"):
        await run(job, store)
    assert endpoint.calls == []
    assert (await run(job, store)).counts.completed == 2
    assert outputs(tmp_path / "out-2.jsonl") == ["ONE", "TWO"]


async def test_a_new_ledger_does_not_overwrite_outputs_numbered_by_an_older_one(
    job: Job, store: Store, tmp_path: Path, endpoint: Scripted
) -> None:
    job = replace(job, sink=JsonlSink(tmp_path / "out-{run}.jsonl"))
    await run(job, store)
    await run(job, store)  # continues the same run, and may write its files again
    async with Store.open(str(tmp_path / "another.db")) as another:
        with pytest.raises(
            UsageError, match=r"out-1\.jsonl belongs to an earlier run with the same number in another ledger"
        ):
            await run(job, another)
        assert len(endpoint.texts) == 2
        assert (await run(job, another)).run.id == 2


async def test_a_file_that_appears_during_the_run_is_kept_and_so_are_the_answers(
    job: Job, store: Store, tmp_path: Path, endpoint: Scripted
) -> None:
    path = tmp_path / "out.jsonl"

    def request(row: object) -> object:  # the last moment at which nothing has been asked
        path.write_text("somebody's")
        return row["text"]  # type: ignore[index]

    with pytest.raises(UsageError) as failure:
        await run(replace(job, request=request), store)
    assert str(failure.value).endswith(
        "; all answers are kept, and `orchestrator export 1 -o FILE` writes them elsewhere"
    )
    assert await AsyncPath(path).read_text() == "somebody's"
    assert len(endpoint.texts) == 2
    await AsyncPath(path).unlink()
    report = await run(job, store)
    assert (report.counts.completed, len(endpoint.texts)) == (2, 2)


async def test_the_output_of_another_job_is_not_replaced(
    job: Job, store: Store, tmp_path: Path, endpoint: Scripted
) -> None:
    await run(job, store)
    asked = len(endpoint.texts)
    with pytest.raises(UsageError, match=r"out\.manifest\.json is the manifest of job 'talk'"):
        await run(replace(job, name="other"), store)
    assert len(endpoint.texts) == asked
    await run(replace(job, name="other", sink=JsonlSink(tmp_path / "out.jsonl", overwrite=True)), store)


async def test_a_source_that_became_empty_is_refused_unless_that_is_allowed(
    job: Job, store: Store, tmp_path: Path
) -> None:
    await run(job, store)
    write(tmp_path / "data" / "in.jsonl")
    with pytest.raises(UsageError, match=r"in\.jsonl has no rows, but had 2 in run 1, .*--set allow_empty=True"):
        await plan(Snapshot(job, {}, None), store, Progress())
    for _ in range(2):  # the refused run does not count as one without rows
        with pytest.raises(UsageError, match="has no rows"):
            await run(job, store)
    assert outputs(tmp_path / "out.jsonl") == ["ONE", "TWO"]
    dated = replace(job, sink=JsonlSink(tmp_path / "out-{run}.jsonl"))  # replaces nothing
    assert (await plan(Snapshot(dated, {}, None), store, Progress())).total == 0
    assert (await run(dated, store)).counts.total == 0
    report = await run(replace(job, allow_empty=True), store)
    assert report.counts.total == 0
    assert outputs(tmp_path / "out.jsonl") == []


async def test_a_job_that_never_had_rows_may_be_empty(job: Job, store: Store, tmp_path: Path) -> None:
    write(tmp_path / "data" / "in.jsonl")
    assert (await run(job, store)).counts.total == 0
    write(tmp_path / "data" / "in.jsonl", "one")
    assert (await run(job, store)).counts.completed == 1


WRONG_FILE = "no row can be read: check that it is the right file"


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (b"garbage\n", WRONG_FILE),
        (b"1\n2\n" * 600, WRONG_FILE),
        (b'{"id": null}\n{"id": ""}\n', "has no id in column 'id'; correct `id`"),
    ],
)
async def test_a_source_without_a_readable_row_is_refused_and_nothing_is_written(
    job: Job, store: Store, tmp_path: Path, endpoint: Scripted, content: bytes, remedy: str
) -> None:
    await run(job, store)
    before = delivered(tmp_path)
    (tmp_path / "data" / "in.jsonl").write_bytes(content)
    with pytest.raises(UsageError, match=rf"in\.jsonl: line 1 .*{remedy}"):
        await run(job, store)
    assert delivered(tmp_path) == before
    assert len(endpoint.texts) == 2


Rows = list[dict[str, object]]
SPARSE: Rows = [{"text": "like the others"} for _ in range(700)]
SPARSE.append({"text": "last", "note": "here"})


@pytest.mark.parametrize("limit", [None, 2])
async def test_a_kept_column_that_no_row_has_is_refused(
    store: Store, tmp_path: Path, endpoint: Scripted, limit: int | None
) -> None:
    def job(keep: list[str], rows: Callable[[], Rows]) -> Job:
        return Job("talk", IterableSource(rows), endpoint, JsonlSink(tmp_path / "out.jsonl", keep=keep))

    wrong = job(["text", "typo"], lambda: SPARSE)
    with pytest.raises(UsageError, match=r"column 'typo' of `keep` is not among the rows' columns \(text\); correct"):
        await plan(Snapshot(wrong, {}, limit), store, Progress())
    with pytest.raises(UsageError, match="typo"):
        await run(wrong, store)
    assert endpoint.calls == []
    odd = job(["typo"], lambda: [{"text": "a", 5: "a number as a name"}])  # type: ignore[dict-item]
    with pytest.raises(UsageError, match=r"columns \(text, 5\)"):
        await plan(Snapshot(odd, {}, limit), store, Progress())
    found = await plan(Snapshot(job(["note", "id"], lambda: SPARSE), {}, limit), store, Progress())
    assert found.total == (limit or len(SPARSE))
    assert (await plan(Snapshot(job(["note"], list), {}, limit), store, Progress())).total == 0


async def test_the_source_hash_is_that_of_the_delivered_rows(job: Job, store: Store) -> None:
    report = await run(job, store)
    source = report.manifest["input"]
    assert isinstance(source, dict)
    assert source["sha256"] == await to_thread.run_sync(job.source.sha256)


async def test_a_source_that_reads_the_ledger_is_refused(store: Store, tmp_path: Path, endpoint: Scripted) -> None:
    for source in (QuerySource("SELECT * FROM item", tmp_path / "ledger.db"), FilesSource(tmp_path / "*")):
        job = Job("talk", source, endpoint, JsonlSink(tmp_path / "out" / "out.jsonl"))
        with pytest.raises(UsageError, match=r"reads the ledger .*ledger\.db: narrow its path, or read another"):
            await run(job, store)


async def test_the_export_of_a_run_that_has_not_begun_is_refused_and_replaces_nothing(job: Job, store: Store) -> None:
    output = AsyncPath((await run(job, store)).run.output or "")
    before = await output.read_bytes()
    await store.queue.submit(Submission(job.name, {}, ["scripted"], due_at=0.0))
    queued = await store.runs.find(job.name)
    with pytest.raises(UsageError, match=r"^run 2 of talk has not read its source, so it has no results: name another"):
        await export(queued, store, str(output.with_name("other.jsonl")), overwrite=False)
    with pytest.raises(UsageError, match=r"is the finished output of run 1, and this one is not finished"):
        await deliver(queued, store, JsonlSink(str(output)))
    assert await output.read_bytes() == before


async def test_an_export_does_not_replace_more_rows_of_another_run_unless_told(job: Job, store: Store) -> None:
    output = AsyncPath((await run(job, store)).run.output or "")
    before = await output.read_bytes()
    part = (await run_job(RunRequest(job, limit=1), store, Progress(), Stop(), UNGUARDED)).run
    with pytest.raises(
        UsageError, match=r"out\.jsonl has 2 rows of run 1, and run 2 has only 1: name that run, choose"
    ):
        await export(part, store, str(output), overwrite=False)
    assert await output.read_bytes() == before
    await export(await store.runs.find("1"), store, str(output), overwrite=False)
    await export(part, store, str(output), overwrite=True)
    assert len((await output.read_bytes()).splitlines()) == 1
