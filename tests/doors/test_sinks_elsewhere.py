"""The sinks of files over objects in a store."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

import orjson
import pyarrow.parquet as pq
import pytest

from orchestrator.domain.errors import StorageSilent, UsageError
from orchestrator.domain.location import Location
from orchestrator.sinks import CsvSink, JsonlSink, ParquetSink
from orchestrator.sinks.suffix import sink_for
from orchestrator.sources import CsvSource
from orchestrator.testing import SinkConformance
from orchestrator.testing.assertions import assert_one_line
from orchestrator.testing.sinks import FAILURE, answers
from tests.s3_service import CUT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator import ports
    from tests.s3_service import Asked, S3Service

OUT = Location("s3://data/out/out.jsonl")


class InS3(SinkConformance):
    @pytest.fixture(autouse=True)
    def service(self, s3: S3Service) -> None:
        self.s3 = s3

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return cast("Path", Location(f"s3://data/out/{self.name}"))

    def sink(self, path: Path, keep: Sequence[str]) -> ports.Sink:
        return sink_for(path, keep)

    def content(self, path: Path) -> bytes:
        return self.s3.get(f"out/{path.name}")

    def names(self, path: Path) -> set[str]:
        keys = self.s3.keys()
        return {key.removeprefix("out/") for key in keys}

    def contents(self, path: Path) -> dict[str, bytes]:
        return {name: self.s3.get(f"out/{name}") for name in self.names(path)}


class TestJsonlSink(InS3):
    def read(self, path: Path) -> list[Mapping[str, object]]:
        return [orjson.loads(line) for line in self.content(path).splitlines()]


class TestCsvSink(InS3):
    name = "out.csv"

    def read(self, path: Path) -> list[Mapping[str, object]]:
        with CsvSource(str(path), id="id").rows() as rows:
            return [row.columns for row in rows]


class TestParquetSink(InS3):
    name = "out.parquet"

    def read(self, path: Path) -> list[Mapping[str, object]]:
        rows: list[Mapping[str, object]] = pq.read_table(io.BytesIO(self.content(path))).to_pylist()
        return rows


def deliver_as(sink: ports.Sink, job: str, *outputs: object, run: int = 1, **manifest: object) -> Mapping[str, object]:
    failures = cast("Sequence[Mapping[str, object]]", manifest.pop("failures", ()))
    with sink.open() as delivery:
        delivery.complete(answers(*outputs))
        delivery.discard(failures)
        about = {"job": job, "run": run, "finished": True, "delivered_at": time.monotonic(), **manifest}
        return delivery.seal(about)


def outputs(s3: S3Service, key: str = "out/out.jsonl") -> list[object]:
    return [orjson.loads(line)["output"] for line in s3.get(key).splitlines()]


def test_output_and_failures_are_written_before_the_manifest_and_each_is_whole(s3: S3Service) -> None:
    deliver_as(JsonlSink(OUT), "talk", "x" * 30_000_000, failures=[FAILURE])
    whole = [
        asked.path for asked in s3.asked if asked.method == "PUT" and not asked.query and not asked.path.endswith("/")
    ]
    finished = [asked.path for asked in s3.asked if asked.method == "POST" and "uploadId" in asked.query]
    assert finished == ["/data/out/out.jsonl"]
    assert whole == [
        "/data/out/.out.manifest.json.tmp",
        "/data/out/out.failures.jsonl",
        "/data/out/out.manifest.json",
    ]
    assert s3.keys() == {"out/out.jsonl", "out/out.failures.jsonl", "out/out.manifest.json"}
    assert s3.unfinished() == []


def test_an_unchanged_delivery_uploads_nothing_and_a_changed_one_only_what_changed(s3: S3Service) -> None:
    first = deliver_as(JsonlSink(OUT), "talk", "a", failures=[FAILURE])
    s3.asked.clear()
    assert deliver_as(JsonlSink(OUT), "talk", "a", failures=[FAILURE]) == first
    assert s3.writes() == []
    deliver_as(JsonlSink(OUT), "talk", "b", failures=[FAILURE])
    assert "/data/out/out.jsonl" in s3.writes()
    assert "/data/out/out.failures.jsonl" not in s3.writes()


def test_what_another_job_or_somebody_else_has_written_is_not_replaced(s3: S3Service) -> None:
    deliver_as(JsonlSink(OUT), "talk", "a")
    JsonlSink(OUT).check("talk")
    with pytest.raises(UsageError, match="is the manifest of job 'talk'"):
        JsonlSink(OUT).check("other")
    s3.put("out/out.jsonl", b"somebody's\n")
    with pytest.raises(UsageError, match="was changed since run 1 of job 'talk' wrote it"):
        JsonlSink(OUT).check("talk")
    JsonlSink(OUT, overwrite=True).check("talk")
    s3.client.delete_object(Bucket="data", Key="out/out.manifest.json")
    with pytest.raises(UsageError, match="is a file that no delivery of job 'talk' has written"):
        JsonlSink(OUT).check("talk")


def test_an_object_that_is_replaced_right_after_the_upload_is_not_taken_for_ours(s3: S3Service) -> None:
    def replace(asked: Asked) -> None:
        if asked.method == "HEAD" and any(path == "/data/out/out.jsonl" for path in s3.writes()):
            s3.put("out/out.jsonl", b"somebody's\n")

    s3.fail = replace
    deliver_as(JsonlSink(OUT), "talk", "a")
    s3.fail = lambda asked: None
    with pytest.raises(UsageError, match="was changed since run 1 of job 'talk' wrote it"):
        JsonlSink(OUT).check("talk")


def test_the_check_of_an_unchanged_output_does_not_read_it(s3: S3Service) -> None:
    deliver_as(JsonlSink(OUT), "talk", "a" * 1000)
    s3.asked.clear()
    JsonlSink(OUT).check("talk")
    assert {asked.path for asked in s3.reads()} == {"/data/out/out.manifest.json"}


def test_an_output_with_more_of_the_same_rows_is_kept(s3: S3Service) -> None:
    deliver_as(JsonlSink(OUT), "talk", "a", "b", input={"sha256": "s"})
    deliver_as(JsonlSink(OUT), "talk", "a", run=2, input={"sha256": "s"})
    assert outputs(s3) == ["a"]
    assert outputs(s3, "out/out.run-1.jsonl") == ["a", "b"]
    part = JsonlSink(OUT).for_part("talk", 1, {})
    assert part.path == "s3://data/out/out.first-1.jsonl"


def test_a_bucket_that_is_not_there_is_refused_before_anything_is_asked(s3: S3Service) -> None:
    with pytest.raises(UsageError, match="there is no bucket nowhere: create it, or check its name"):
        JsonlSink("s3://nowhere/out.jsonl").check("talk")


@pytest.mark.parametrize(
    "refusal",
    [CUT, (403, "AccessDenied"), (400, "ExpiredToken"), (404, "NoSuchBucket")],
    ids=lambda one: one[1] or "cut",
)
def test_a_delivery_that_fails_changes_nothing_and_a_later_one_succeeds(
    s3: S3Service, refusal: tuple[int, str]
) -> None:
    deliver_as(JsonlSink(OUT), "talk", "old")
    before = s3.get("out/out.manifest.json")
    s3.fail = lambda asked: refusal if asked.method == "PUT" and asked.path.endswith("out.jsonl") else None
    with pytest.raises(StorageSilent if refusal == CUT else UsageError) as failure:
        deliver_as(JsonlSink(OUT), "talk", "new")
    assert_one_line(failure, OUT)
    assert outputs(s3) == ["old"]
    assert s3.get("out/out.manifest.json") == before
    s3.fail = lambda asked: None
    JsonlSink(OUT).check("talk")
    deliver_as(JsonlSink(OUT), "talk", "new")
    assert outputs(s3) == ["new"]


_KILLED = """
import sys
from orchestrator.sinks import JsonlSink
with JsonlSink(sys.argv[1]).open() as delivery:
    for number in range(40):
        delivery.complete([{"id": str(number), "output": "x" * 1_000_000}])
    delivery.discard([])
    delivery.seal({"job": "talk", "run": 2, "finished": True})
"""


@pytest.mark.parametrize("after", ["part", "output"])
def test_a_delivery_killed_during_its_upload_leaves_nothing_partial_and_the_next_one_cleans_up(
    s3: S3Service, after: str
) -> None:
    deliver_as(JsonlSink(OUT), "talk", "old")
    s3.put("out/out.jsonl.other", b"")
    other = s3.client.create_multipart_upload(Bucket="data", Key="out/out.jsonl.other")["UploadId"]
    children: list[subprocess.Popen[bytes]] = []

    def kill(asked: object) -> tuple[int, str] | None:
        text = str(asked)
        if (after == "part" and "partNumber=3" in text) or (
            after == "output" and "/out.manifest.json'" in text and "PUT" in text
        ):
            os.kill(children[0].pid, signal.SIGKILL)
            return CUT
        return None

    s3.fail = kill
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", _KILLED, OUT], env=environment) as child:
        children.append(child)
        assert child.wait() == -signal.SIGKILL
    s3.fail = lambda asked: None
    assert len(outputs(s3)) == (1 if after == "part" else 40), "the output is the old one or the new one, whole"
    unfinished = [upload["UploadId"] for upload in s3.unfinished()]
    assert len(unfinished) == (2 if after == "part" else 1)
    JsonlSink(OUT).check("talk")
    deliver_as(JsonlSink(OUT), "talk", "new", run=3)
    assert outputs(s3) == ["new"]
    assert [upload["UploadId"] for upload in s3.unfinished()] == [other]
    assert s3.keys() == {"out/out.jsonl", "out/out.manifest.json", "out/out.jsonl.other"}


def test_a_full_disk_for_the_local_copy_is_one_line(s3: S3Service, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver_as(JsonlSink(OUT), "talk", "old")
    with JsonlSink(OUT).open() as delivery:
        delivery._output._file = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115
        delivery._output._stack.callback(delivery._output._file.close)
        with pytest.raises(UsageError) as failure:
            delivery.complete(answers("new"))
    assert_one_line(failure, OUT)
    assert "No space left on device" in str(failure.value)
    assert "TMPDIR" in str(failure.value)
    assert outputs(s3) == ["old"]


@pytest.mark.parametrize("kind", [JsonlSink, CsvSink, ParquetSink])
def test_a_web_server_and_a_pattern_are_refused(kind: type[JsonlSink]) -> None:
    with pytest.raises(UsageError, match=r"cannot be written \(https:// is only read\): give a path, or s3://"):
        kind("https://host/out")
    with pytest.raises(UsageError, match="is a pattern, and an output needs one name"):
        kind("s3://data/*.out")
    with pytest.raises(UsageError, match="which would be stored"):
        kind("s3://key:secret@data/out")
