"""Jobs whose input and output are in a store."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import orjson
import pytest

from tests.commands import rows
from tests.s3_service import CUT, ENVIRONMENT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commands import Ended, Workplace
    from tests.s3_service import Asked, S3Service
    from tests.servers import InferenceServer


def lines(numbers: range, text: str = "text of {}") -> bytes:
    return b"".join(orjson.dumps(row) + b"\n" for row in rows(numbers, text))


def job_in(workplace: Workplace, **code: str) -> Path:
    source = "JsonlSource('s3://data/in/*.jsonl', id='id')"
    return workplace.job(**{"source": source, "sink": "JsonlSink('s3://data/out/out.jsonl', keep=['text'])"} | code)


def run(workplace: Workplace, s3: S3Service, *arguments: str | Path) -> Ended:
    return workplace.run(*arguments, env={**ENVIRONMENT, "AWS_ENDPOINT_URL": s3.url})


def outputs(s3: S3Service) -> list[str]:
    return [orjson.loads(line)["id"] for line in s3.get("out/out.jsonl").splitlines()]


def test_a_job_goes_from_objects_to_an_object_and_an_unchanged_one_reads_and_uploads_nothing(
    workplace: Workplace, server: InferenceServer, s3: S3Service
) -> None:
    s3.put("in/1.jsonl", lines(range(3)))
    s3.put("in/2.jsonl", lines(range(3, 5)))
    job = job_in(workplace)
    assert run(workplace, s3, "run", "--quiet", job).code == 0
    assert outputs(s3) == ["i0", "i1", "i2", "i3", "i4"]
    asked = server.stats().requests
    s3.asked.clear()
    assert run(workplace, s3, "run", "--quiet", job).code == 0
    assert server.stats().requests == asked
    assert s3.writes() == []
    assert {one.path for one in s3.reads()} <= {"/data/out/out.manifest.json"}
    for secret in (ENVIRONMENT["AWS_ACCESS_KEY_ID"], ENVIRONMENT["AWS_SECRET_ACCESS_KEY"]):
        assert not any(secret.encode() in file.read_bytes() for file in workplace.folder.rglob("*") if file.is_file())


def test_a_job_does_not_overwrite_the_objects_that_it_reads(workplace: Workplace, s3: S3Service) -> None:
    s3.put("in/1.jsonl", lines(range(3)))
    ended = run(workplace, s3, "run", "--quiet", job_in(workplace, sink="JsonlSink('s3://data/in/out.jsonl')"))
    assert (ended.code, "would overwrite s3://data/in/out.jsonl, which the source" in ended.line) == (2, True)


@pytest.mark.parametrize(
    "refusal", [CUT, (404, "NoSuchBucket"), (403, "AccessDenied")], ids=["cut", "bucket", "denied"]
)
def test_a_delivery_that_fails_loses_nothing_and_the_same_command_delivers(
    workplace: Workplace, server: InferenceServer, s3: S3Service, refusal: tuple[int, str]
) -> None:
    s3.put("in/1.jsonl", lines(range(3)))
    job = job_in(workplace)
    s3.fail = lambda asked: refusal if asked.method == "PUT" else None
    ended = run(workplace, s3, "run", "--quiet", job)
    assert ended.code == (4 if refusal == CUT else 2)
    assert "s3://data/out/" in ended.line
    assert s3.keys() == {"in/1.jsonl"}
    asked = server.stats().requests
    s3.fail = lambda asked: None
    assert run(workplace, s3, "run", "--quiet", job).code == 0
    assert outputs(s3) == ["i0", "i1", "i2"]
    assert server.stats().requests == asked


def test_a_delivery_needs_no_permission_to_delete(workplace: Workplace, s3: S3Service) -> None:
    s3.put("in/1.jsonl", lines(range(3)))
    s3.fail = lambda asked: (403, "AccessDenied") if asked.method == "DELETE" else None
    assert run(workplace, s3, "run", "--quiet", job_in(workplace)).code == 0
    assert outputs(s3) == ["i0", "i1", "i2"]


@pytest.mark.unmeasured
def test_a_run_that_is_killed_during_its_upload_is_delivered_by_the_same_command(
    workplace: Workplace, server: InferenceServer, s3: S3Service
) -> None:
    s3.put("in/1.jsonl", lines(range(400), "x" * 100_000 + "{}"))
    job = job_in(workplace)
    pids: list[int] = []

    def kill(asked: Asked) -> tuple[int, str] | None:
        if "partNumber=3" not in asked.query:
            return None
        os.kill(pids[0], signal.SIGKILL)
        return CUT

    s3.fail = kill
    with workplace.start("run", "--quiet", job, env={**ENVIRONMENT, "AWS_ENDPOINT_URL": s3.url}) as running:
        pids.append(running.pid)
        assert running.end().code == -signal.SIGKILL
    assert s3.keys() == {"in/1.jsonl", "out/.out.manifest.json.tmp"}
    assert len(s3.unfinished()) == 1
    asked = server.stats().requests
    s3.fail = lambda asked: None
    assert run(workplace, s3, "run", "--quiet", job).code == 0
    assert len(outputs(s3)) == 400
    assert server.stats().requests == asked
    assert s3.unfinished() == []
    assert s3.keys() == {"in/1.jsonl", "out/out.jsonl", "out/out.manifest.json"}


def test_results_are_exported_to_a_store(workplace: Workplace, s3: S3Service) -> None:
    s3.put("in/1.jsonl", lines(range(3)))
    job = job_in(workplace, sink="JsonlSink('here.jsonl')")
    assert run(workplace, s3, "run", "--quiet", job).code == 0
    ended = run(workplace, s3, "export", "talk", "-o", "s3://data/out/out.jsonl")
    assert (ended.code, ended.out) == (0, "s3://data/out/out.jsonl: 3 items: 3 completed, 0 discarded\n")
    assert outputs(s3) == ["i0", "i1", "i2"]
    ended = run(workplace, s3, "export", "talk", "-o", "s3://data/in/1.jsonl", "--overwrite")
    assert (ended.code, "which the source" in ended.line) == (2, True)
