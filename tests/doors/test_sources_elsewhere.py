"""The sources of files over objects in a store and files on a web server."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tracemalloc
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator import Policy, exact_json
from orchestrator.domain.errors import FailureKind, NoFiles, RequestFailed, UsageError
from orchestrator.domain.item import File, Row
from orchestrator.domain.location import Location
from orchestrator.sinks import JsonlSink
from orchestrator.sources import CsvSource, FilesSource, JsonlSource, ParquetSource, QuerySource, TextSource
from orchestrator.testing import SourceConformance
from orchestrator.testing.sources import read
from orchestrator.wires.files import bytes_of, contents_in
from tests.doors.test_query_source import QUERY, every_database, in_duckdb, in_sqlite
from tests.doors.test_sources import as_csv, jsonl, parquet, text_lines
from tests.engine.scripted import QUICK, Scripted, job_of, run
from tests.web_service import web_service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from orchestrator import ports
    from orchestrator.store import Store
    from tests.s3_service import S3Service


class InS3(SourceConformance):
    @pytest.fixture(autouse=True)
    def service(self, s3: S3Service) -> None:
        self.s3 = s3

    def moved(self, source: Any, folder: Path) -> ports.Source:
        key = f"{folder.name}/in"
        self.s3.put(key, source.path.read_bytes())
        source.path.unlink()
        return replace(source, path=f"s3://data/{key}")  # type: ignore[no-any-return]


class TestJsonlSource(InS3):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        return self.moved(jsonl(folder / "in", texts), folder)


class TestCsvSource(InS3):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        return self.moved(as_csv(folder / "in", texts), folder)


class TestParquetSource(InS3):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        return self.moved(parquet(folder / "in", texts), folder)


class TestTextSource(InS3):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        return self.moved(text_lines(folder / "in", texts), folder)


class InDatabase(InS3):
    make: Callable[..., Path]

    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        path = type(self).make(folder / "in.db", rows=list(enumerate(texts)))
        self.s3.put(f"{folder.name}/in.db", path.read_bytes())
        return QuerySource(QUERY, f"s3://data/{folder.name}/in.db", id="id")


class TestQueryOfSqlite(InDatabase):
    make = in_sqlite


class TestQueryOfDuckDb(InDatabase):
    make = in_duckdb


class OnTheWeb(SourceConformance):
    @pytest.fixture(autouse=True)
    def service(self) -> Iterator[None]:
        with web_service() as self.web:
            yield

    def moved(self, source: Any, folder: Path) -> ports.Source:
        return replace(source, path=self.web.put(f"/{folder.name}/in", source.path.read_bytes()))  # type: ignore[no-any-return]


class TestJsonlSourceOnTheWeb(OnTheWeb):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        return self.moved(jsonl(folder / "in", texts), folder)


class TestParquetSourceOnTheWeb(OnTheWeb):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        return self.moved(parquet(folder / "in", texts), folder)


def lines(*texts: str) -> bytes:
    return b"".join(orjson.dumps({"id": text, "text": text}) + b"\n" for text in texts)


def texts_of(source: ports.Source) -> list[object]:
    return [row.columns["text"] for row in read(source)]


def test_a_pattern_reads_all_objects_in_order(s3: S3Service) -> None:
    s3.put("in/b.jsonl", lines("3"))
    s3.put("in/a.jsonl", lines("1", "2"))
    s3.put("in/c.txt", b"no JSON")
    assert texts_of(JsonlSource("s3://data/in/*.jsonl")) == ["1", "2", "3"]
    with pytest.raises(NoFiles, match=r"^s3://data/in/\*\.csv matches no object: check the pattern$"):
        read(CsvSource("s3://data/in/*.csv"))


def test_a_folder_stands_for_its_files_and_names_columns(s3: S3Service) -> None:
    for key in ("in/year=2023/a.jsonl", "in/year=2024/a.jsonl"):
        s3.put(key, lines(key))
    s3.put("in/_SUCCESS", b"")
    s3.put("in/_temporary/x.jsonl", lines("unfinished"))
    assert [row.columns["year"] for row in read(JsonlSource("s3://data/in/"))] == [2023, 2024]
    s3.put("in/_delta_log/00000000000000000000.json", b"{}")
    with pytest.raises(UsageError, match="s3://data/in/ is a Delta Lake table"):
        read(JsonlSource("s3://data/in/"))


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_compressed_objects_are_unpacked(s3: S3Service, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    s3.put(f"in{suffix}", pack(b"one\ntwo\n"))
    assert texts_of(TextSource(f"s3://data/in{suffix}")) == ["one", "two"]


def test_the_hash_is_the_stores_version_and_nothing_is_read(s3: S3Service) -> None:
    s3.put("in/a.jsonl", lines("1"))
    s3.put("in/b.jsonl", lines("2"))
    source = JsonlSource("s3://data/in/*.jsonl")
    before = source.sha256()
    assert source.sha256() == before
    assert s3.reads() == []
    s3.put("in/b.jsonl", lines("3"))
    assert source.sha256() != before


def test_parquet_is_read_by_range_and_only_the_columns_that_are_used(s3: S3Service, tmp_path: Path) -> None:
    rows = 20_000
    blob = [f"{number:010d}" * 40 for number in range(rows)]
    table = pa.table({"id": [str(number) for number in range(rows)], "text": ["t"] * rows, "blob": blob})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=5_000, compression="none", use_dictionary=False)
    content = (tmp_path / "in.parquet").read_bytes()
    s3.put("in.parquet", content)
    source = ParquetSource("s3://data/in.parquet", id="id").selecting(frozenset({"text"}))
    assert len(read(source)) == rows
    wanted = sum(asked.wanted for asked in s3.reads())
    assert wanted < len(content) / 10
    assert len(s3.reads()) <= 2 + 4 * 2, "the head, the end, and two columns in each of four row groups"
    s3.asked.clear()
    with source.rows() as opened:
        next(opened)
    assert sum(asked.wanted for asked in s3.reads()) < wanted, "later row groups are read when they are needed"


def test_a_column_that_is_not_in_the_file_is_missed_as_on_this_machine(s3: S3Service, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["1"], "text": ["a"]}), tmp_path / "in.parquet")
    s3.put("in.parquet", (tmp_path / "in.parquet").read_bytes())
    source = ParquetSource("s3://data/in.parquet", id="id").selecting(frozenset({"texts"}))
    assert read(source) == read(ParquetSource(tmp_path / "in.parquet", id="id"))


async def test_rows_that_were_answered_from_a_local_file_are_not_asked_again_from_a_store(
    s3: S3Service, store: Store, tmp_path: Path
) -> None:
    table = pa.table({"id": ["1", "2"], "text": ["a", "b"], "unused": [1.5, 2.5]})
    pq.write_table(table, tmp_path / "in.parquet")
    (tmp_path / "in.jsonl").write_bytes(lines("c", "d"))
    for name in ("in.parquet", "in.jsonl"):
        s3.put(name, (tmp_path / name).read_bytes())
    endpoint = Scripted()
    for kind, name, id_ in ((ParquetSource, "in.parquet", "id"), (JsonlSource, "in.jsonl", None)):
        job = replace(job_of([], endpoint, tmp_path, Policy(backoff=QUICK)), name=name.replace(".", "-"))
        job = replace(job, sink=JsonlSink(tmp_path / f"{name}.out.jsonl"))
        first = await run(replace(job, source=kind(tmp_path / name, id=id_)), store)
        second = await run(replace(job, source=kind(f"s3://data/{name}", id=id_)), store)
        assert (first.asked, second.asked, second.counts.completed) == (2, 0, 2)


async def test_an_unchanged_object_is_not_read_again(s3: S3Service, store: Store, tmp_path: Path) -> None:
    s3.put("in.jsonl", lines("a", "b"))
    job = replace(job_of([], Scripted(), tmp_path), source=JsonlSource("s3://data/in.jsonl", id="id"))
    await run(job, store)
    s3.asked.clear()
    await run(job, store)
    assert s3.reads() == []


@pytest.mark.untraced
def test_an_object_is_read_in_constant_memory(s3: S3Service) -> None:
    s3.put("in.txt", b"x" * 99 + b"\n" + (b"y" * 99 + b"\n") * 500_000)
    with TextSource("s3://data/in.txt").rows() as rows:
        next(rows)
        tracemalloc.start()
        assert sum(1 for _ in rows) == 500_000
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 120_000_000  # the service in this process holds the object, too


def test_a_missing_object_is_named(s3: S3Service) -> None:
    for source in (JsonlSource("s3://data/none.jsonl"), ParquetSource("s3://data/none.parquet")):
        with pytest.raises(UsageError, match=r"^s3://data/none\.\w+ does not exist: check the path$"):
            read(source)
        with pytest.raises(UsageError, match="does not exist"):
            source.sha256()


@pytest.mark.untraced
def test_an_object_that_is_replaced_while_it_is_read_is_refused(s3: S3Service, tmp_path: Path) -> None:
    def content(text: str) -> bytes:
        return b"".join(b'{"id": %d, "text": "%s"}\n' % (number, text.encode() * 90) for number in range(100_000))

    sources = [JsonlSource("s3://data/in.jsonl", id="id"), ParquetSource("s3://data/in.parquet", id="id")]
    for source, suffix in zip(sources, ("jsonl", "parquet"), strict=True):
        for text in "ab":
            (tmp_path / f"{text}.jsonl").write_bytes(content(text))
            pq.write_table(pa.table({"id": range(30_000), "text": [text] * 30_000}), tmp_path / f"{text}.parquet")
        s3.put(f"in.{suffix}", (tmp_path / f"a.{suffix}").read_bytes())
        with (  # noqa: PT012 - the rows are read within the source's block
            pytest.raises(UsageError, match=rf"^s3://data/in.{suffix} changed while it was read: run again"),
            source.rows() as rows,
        ):
            next(rows)
            s3.put(f"in.{suffix}", (tmp_path / f"b.{suffix}").read_bytes())
            for _ in rows:
                pass


def test_the_first_of_several_objects_may_change_once_its_rows_are_read(s3: S3Service) -> None:
    for name in ("1", "2"):
        s3.put(f"in/{name}.txt", b"one\ntwo\n")
    with TextSource("s3://data/in/*.txt").rows() as rows:
        read_ones = [next(rows), next(rows), next(rows)]
        s3.put("in/1.txt", b"changed")
        assert len([*read_ones, *rows]) == 4


def test_whole_files_are_rows_that_are_identified_as_on_this_machine(s3: S3Service, tmp_path: Path) -> None:
    for name in ("b.png", "2024/a.jpg", ".hidden.png"):
        s3.put(f"photos/{name}", name.encode())
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    source = FilesSource("s3://data/photos/", id="name")
    there, here = read(source), read(FilesSource(tmp_path, id="name"))
    assert [(row.id, row.columns["path"]) for row in there] == [
        ("a.jpg", "s3://data/photos/2024/a.jpg"),
        ("b.png", "s3://data/photos/b.png"),
    ]
    assert [_identified(row) for row in there] == [_identified(row) for row in here]
    assert [row.id for row in read(FilesSource("s3://data/photos/*.png", id="name"))] == ["b.png"]
    assert [row.id for row in read(FilesSource("s3://data/photos/b.png", id="name"))] == ["b.png"]
    out = [Location("s3://data/photos/out.jsonl"), Location("s3://data/out.jsonl")]
    assert source.reads_objects(out) == out[:1]
    with pytest.raises(NoFiles, match="matches no object: check the pattern"):
        read(FilesSource("s3://data/none/"))


def _identified(row: Row) -> tuple[str, str]:
    file = row.columns["file"]
    assert isinstance(file, File)
    return file.sha256, file.content_type


def test_the_hash_of_whole_files_is_the_stores_versions_and_none_is_read(s3: S3Service) -> None:
    s3.put("photos/a.png", b"one")
    source = FilesSource("s3://data/photos/")
    before = source.sha256()
    assert source.sha256() == before
    assert not [asked for asked in s3.asked if asked.range]
    s3.put("photos/a.png", b"two")
    assert source.sha256() != before


def test_whole_files_are_sent_by_value_and_refused_once_they_have_changed(s3: S3Service) -> None:
    s3.put("photos/a.png", b"one")
    (row,) = read(FilesSource("s3://data/photos/a.png"))
    file = row.columns["file"]
    assert isinstance(file, File)
    assert anyio.run(bytes_of, file.as_json()) == b"one"
    request = exact_json.dumps({"inputs": file.as_json()})
    sent = anyio.run(partial(contents_in, [request], elsewhere=False))
    assert sent == {file.sha256: "b25l"}
    s3.put("photos/a.png", b"two")
    with pytest.raises(RequestFailed, match="has changed since it was ingested"):
        anyio.run(bytes_of, file.as_json())
    s3.client.delete_object(Bucket="data", Key="photos/a.png")
    with pytest.raises(RequestFailed, match="does not exist") as failure:
        anyio.run(bytes_of, file.as_json())
    assert failure.value.kind is FailureKind.REJECTED


def test_it_says_which_locations_it_reads() -> None:
    folder = JsonlSource("s3://data/in/")
    assert folder.reads_objects([Location("s3://data/in/a.jsonl.gz"), Location("s3://data/in/b.parquet")]) == [
        "s3://data/in/a.jsonl.gz"
    ]
    source = JsonlSource("s3://data/in/*.jsonl")
    read_ones = [Location("s3://data/in/a.jsonl"), Location("s3://data/in/b.jsonl")]
    assert source.reads_objects([*read_ones, Location("s3://data/out.jsonl")]) == read_ones


@every_database
def test_a_database_in_a_store_is_copied_for_each_reading(
    make: Callable[..., Path], s3: S3Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "copies").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "copies"))
    for text in ("old", "new"):
        s3.put("in.db", make(tmp_path / f"{text}.db", rows=[(1, text)]).read_bytes())
        source = QuerySource(QUERY, "s3://data/in.db", id="id")
        assert texts_of(source) == [text]
    assert not list((tmp_path / "copies").iterdir())
    assert source.reads_objects([Location("s3://data/in.db"), Location("s3://data/out.jsonl")]) == ["s3://data/in.db"]
    with pytest.raises(UsageError, match=r"^s3://data/in.db cannot be queried \(.*\): correct the query$"):
        read(replace(source, query="SELECT nothing FROM texts"))
    with pytest.raises(UsageError, match=r"^s3://data/none.db does not exist"):
        read(replace(source, database="s3://data/none.db"))
