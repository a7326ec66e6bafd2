"""Batches that a real daemon executes and that is killed: the same batch goes on, and nothing is asked twice."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from orchestrator.domain.batch import BatchStatus
from tests.commands import until
from tests.faults.batch_scene import BatchScene, line, right

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commands import Workplace
    from tests.servers import InferenceServer

pytestmark = pytest.mark.unmeasured
TEXTS = [f"text {number}" for number in range(30)]
CONCURRENCY = 4


@pytest.fixture
def scene(workplace: Workplace) -> BatchScene:
    return BatchScene(workplace)


def test_a_batch_is_validated_executed_and_written_in_input_order(scene: BatchScene, server: InferenceServer) -> None:
    batch = scene.create(TEXTS, priority="3", budget="5")
    with scene.serving():
        ended = scene.ended(batch)
    assert (ended.status, ended.total, ended.completed, ended.failed) == (BatchStatus.COMPLETED, 30, 30, 0)
    assert ended.batch.error_file_id is None
    lines = scene.lines(ended.batch.output_file_id)
    assert [line["custom_id"] for line in lines] == [f"c{number}" for number in range(30)]
    assert scene.answers(ended) == right(TEXTS)
    tokens = sum(map(len, TEXTS))
    assert ended.usage is not None
    assert (ended.usage.input_tokens, ended.usage.output_tokens) == (tokens, tokens)
    assert server.stats().duplicates == 0
    moments = [ended.batch.created_at, ended.batch.in_progress_at, ended.batch.finalizing_at, ended.batch.ended_at]
    assert moments == sorted(moments, key=lambda at: at or 0.0)
    assert scene.workplace.query("SELECT key, priority FROM run") == [(batch.id, 3)]


def test_refused_requests_are_in_the_error_file_and_the_batch_is_completed(scene: BatchScene) -> None:
    batch = scene.create(["poison 1", "fine", "poison 2"])
    with scene.serving():
        ended = scene.ended(batch)
    assert (ended.status, ended.completed, ended.failed) == (BatchStatus.COMPLETED, 1, 2)
    found = scene.lines(ended.batch.error_file_id)
    assert [(line["custom_id"], line["response"]["status_code"]) for line in found] == [("c0", 400), ("c2", 400)]
    all_bad = scene.create(["poison 3", "poison 4"])
    with scene.serving():
        ended = scene.ended(all_bad)
    assert (ended.status, ended.batch.output_file_id) == (BatchStatus.COMPLETED, None)
    assert len(scene.lines(ended.batch.error_file_id)) == 2


def test_a_batch_with_bad_lines_or_without_a_file_fails_and_nothing_is_asked(
    scene: BatchScene, server: InferenceServer
) -> None:
    bad = scene.create_from(line("a", "one") + b"no json\n" + line("a", "two") + line("b", "three", method="GET"))
    gone = scene.create(TEXTS)
    scene.workplace.change("UPDATE batch SET input_sha256 = NULL WHERE id = ?", [gone.id])
    with scene.serving():
        ended, missing = scene.ended(bad), scene.ended(gone)
    assert (ended.status, ended.total) == (BatchStatus.FAILED, 0)
    assert [(error.code, error.line) for error in ended.batch.errors] == [
        ("invalid_json_line", 2),
        ("duplicate_custom_id", 3),
        ("invalid_value", 4),
    ]
    assert [(error.code, error.param) for error in missing.batch.errors] == [("invalid_request", "file_id")]
    assert server.stats().requests == 0
    assert scene.workplace.count("run") == 0


def test_cancelling_keeps_what_is_answered(scene: BatchScene, server: InferenceServer) -> None:
    server.behave(hold_after=10)
    batch = scene.create(TEXTS)
    with scene.serving():
        until(lambda: scene.workplace.count("result") == 10)
        scene.cancel(batch)
        ended = scene.ended(batch)
    assert (ended.status, ended.completed, ended.failed) == (BatchStatus.CANCELLED, 10, 0)
    answers = scene.answers(ended)
    assert len(answers) == 10
    assert answers.items() <= right(TEXTS).items()
    errors = scene.lines(ended.batch.error_file_id)
    assert {line["error"]["code"] for line in errors} == {"batch_cancelled"}
    assert len(errors) == 20


def test_a_batch_that_is_cancelled_before_it_is_validated_is_never_executed(scene: BatchScene) -> None:
    batch = scene.create(TEXTS)
    scene.cancel(batch)
    with scene.serving():
        assert scene.ended(batch).status is BatchStatus.CANCELLED
    assert scene.workplace.count("run") == 0


def test_a_batch_ends_with_its_window_and_keeps_what_is_answered(scene: BatchScene, server: InferenceServer) -> None:
    server.behave(hold_after=10)
    batch = scene.create(TEXTS, "1m")
    with scene.serving():
        until(lambda: scene.workplace.count("result") == 10)
        scene.workplace.change("UPDATE batch SET expires_at = created_at")
        ended = scene.ended(batch)
    assert (ended.status, ended.completed, len(scene.answers(ended))) == (BatchStatus.EXPIRED, 10, 10)
    assert {line["error"]["code"] for line in scene.lines(ended.batch.error_file_id)} == {"batch_expired"}
    late = scene.create(TEXTS[1:])
    scene.workplace.change("UPDATE batch SET expires_at = created_at")
    with scene.serving():
        assert scene.ended(late).status is BatchStatus.EXPIRED
    assert scene.workplace.count("run") == 1


def test_two_batches_with_one_job_name_share_their_answers(scene: BatchScene, server: InferenceServer) -> None:
    first = scene.create(TEXTS[:20], job="news")
    with scene.serving():
        scene.ended(first)
        second = scene.create(TEXTS, job="news")
        ended = scene.ended(second)
    assert scene.answers(ended) == right(TEXTS)
    assert server.stats().requests == 30
    assert scene.workplace.query("SELECT name FROM job") == [("batch.ann.news",)]


@pytest.mark.slow
@pytest.mark.parametrize("action", ["begin batch", "end batch", "submit", "claim", "take", "lease", "send", "commit"])
def test_a_batch_goes_on_after_a_kill_at_any_point(
    scene: BatchScene, server: InferenceServer, tmp_path: Path, action: str
) -> None:
    folder = tmp_path / "points"
    folder.mkdir()
    batch = scene.create(TEXTS)
    for when in ("before", "after"):
        (folder / f"{when} {action}").touch()
        with scene.serving(ORCHESTRATOR_FAILPOINTS=str(folder)):
            until(lambda: not list(folder.iterdir()))
            assert scene.now(batch).batch.id == batch.id
    with scene.serving():
        ended = scene.ended(batch)
    assert (ended.status, ended.completed, ended.failed) == (BatchStatus.COMPLETED, 30, 0)
    assert scene.answers(ended) == right(TEXTS)
    assert scene.workplace.count("batch") == 1
    assert scene.workplace.count("run", "state <> 'superseded'") == 1
    in_flight = 2 * 32 if action in {"send", "commit", "lease"} else 0
    assert server.stats().duplicates <= in_flight
    assert sorted(
        {batch.input_sha256, *(sha256 for (sha256,) in scene.workplace.query("SELECT sha256 FROM file"))}
    ) == [name for name in scene.contents() if not name.endswith(".tmp")]


@pytest.mark.slow
def test_a_batch_goes_on_however_often_all_processes_are_killed(scene: BatchScene, server: InferenceServer) -> None:
    texts = [f"text {number}" for number in range(120)]
    server.behave(latency=0.02)
    batch = scene.create(texts)
    moments = ["in_progress_at IS NOT NULL", *(f"(SELECT count(*) FROM result) >= {n}" for n in (1, 30, 60, 90, 120))]
    for moment in moments:
        with scene.serving():
            until(partial(scene.workplace.count, "batch", moment))
            for process in scene.workplace.processes():
                process.kill()
        assert scene.now(batch).batch.id == batch.id
    with scene.serving():
        ended = scene.ended(batch)
    assert (ended.status, ended.completed) == (BatchStatus.COMPLETED, 120)
    assert scene.answers(ended) == right(texts)
    assert server.stats().duplicates <= len(moments) * server.stats().peak


@pytest.mark.slow
def test_a_batch_created_by_a_killed_process_is_there_once_or_not_at_all(scene: BatchScene, tmp_path: Path) -> None:
    folder = tmp_path / "points"
    folder.mkdir()
    for when, batches in (("before", 0), ("after", 1)):
        (folder / f"{when} create batch").touch()
        script = scene.workplace.folder / "create.py"
        script.write_text(_CREATE)
        env = {"ORCHESTRATOR_FAILPOINTS": str(folder)}
        ended = scene.python(script, env)
        assert ended == -9
        assert scene.workplace.count("batch") == batches


_CREATE = """
import sys
import anyio
from orchestrator.app import open_app
from orchestrator.config import Settings
from orchestrator.domain.batch import NewBatch
from orchestrator.engine.batches.creation import create_batch

async def main():
    async with open_app(Settings(db=sys.argv[1])) as app:
        await create_batch(NewBatch("ann", "/v1/chat/completions", "file-x"), app.store)

anyio.run(main)
"""
