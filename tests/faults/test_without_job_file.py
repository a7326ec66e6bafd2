"""Any process can execute a run from the spec in the ledger once its job file is gone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from orchestrator.app import open_app
from orchestrator.config import Settings
from orchestrator.domain.errors import UsageError
from orchestrator.endpoints import HttpEndpoint
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.job import Job
from orchestrator.sinks import JsonlSink
from orchestrator.sources import IterableSource, JsonlSource
from orchestrator.spec import JobSpec
from tests.commands import rows, until
from tests.faults.daemons import answers, children, finished, job, serving, state
from tests.faults.scene import ANSWERED, ITEMS
from tests.hf_rules import answer_to

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commands import Workplace
    from tests.faults.scene import Scene
    from tests.servers import InferenceServer

ANSWERS = [[answer_to(str(row["text"]))] for row in rows(range(ITEMS))]


def submit(scene: Scene, *arguments: str | Path) -> int:
    ended = scene.workplace.run("submit", *arguments, "--json", env=scene.env)
    assert ended.code == 0, ended.err
    run: int = ended.json["run"]
    return run


def error_of(scene: Scene, run: int) -> str:
    return str(dict(scene.workplace.query("SELECT id, error FROM run"))[run])


def test_a_queued_run_without_its_job_file_is_executed_as_submitted_and_continues_after_a_kill(
    scene: Scene,
) -> None:
    scene.service.behave(hold_after=ANSWERED)
    path = job(scene, "nightly", request="{'inputs': '{text}'}")
    run = submit(scene, path, "--set", "policy.concurrency=4")
    path.unlink()
    settings = scene.workplace.folder / "config.toml"
    settings.write_text('[serve]\non_failure = ["true"]\n')  # notified of failures of this job, and not part of it
    with serving(scene, env={"ORCHESTRATOR_CONFIG": str(settings)}) as daemon:
        until(lambda: scene.service.endpoint("batch").in_flight == 4)  # the overrides are in the spec
        until(lambda: scene.workplace.count("result") == ANSWERED)
        (child,) = children(daemon)
        os.kill(child.pid, signal.SIGKILL)
        scene.service.behave()
        finished(scene, run)
    assert answers(scene.workplace, "nightly") == ANSWERS
    assert scene.workplace.count("run") == 1
    assert scene.left_paused


def test_a_run_whose_job_has_functions_needs_its_file_and_is_refused_in_one_line(scene: Scene) -> None:
    scene.service.behave()
    best = "def best(answer):\n    return answer[0]"
    kept, gone = (job(scene, name, prelude=best, parse="best") for name in ("kept", "gone"))
    runs = submit(scene, kept), submit(scene, gone)
    gone.unlink()
    with serving(scene):
        finished(scene, runs[0])
        until(lambda: state(scene, runs[1]) == "failed")
    assert answers(scene.workplace, "kept") == [answer for (answer,) in ANSWERS]
    assert error_of(scene, runs[1]) == f"run {runs[1]}: parse is best in {gone}, and there is no such file: restore it"


def test_a_job_with_a_key_in_its_url_is_not_stored_and_needs_its_file(scene: Scene) -> None:
    path = job(scene, "secret")
    path.write_text(
        path.read_text().replace("HuggingFaceEndpoint('acme/batch', )", "HttpEndpoint('http://h:9/?sig=abcd')")
    )
    run = submit(scene, path)
    path.unlink()
    with serving(scene):
        until(lambda: state(scene, run) == "failed")
    assert "endpoints[0]: url is job.endpoint.url in" in error_of(scene, run)
    assert not any(b"abcd" in file.read_bytes() for file in scene.workplace.folder.glob("ledger.db*") if file.is_file())


def test_a_job_without_a_file_is_queued_if_it_has_a_json_form(scene: Scene) -> None:
    workplace = scene.workplace
    made = Job("made", JsonlSource(workplace.rows, "id"), HttpEndpoint(workplace.url), JsonlSink(workplace.output))

    async def queue(job: Job) -> int:
        async with open_app(Settings(db=str(workplace.ledger))) as app:
            return (await app.submit(RunRequest(job))).run.id

    with pytest.raises(
        UsageError, match=r"^source \(IterableSource\) has no JSON form.*makes its rows again, or write them to"
    ):
        asyncio.run(queue(replace(made, source=IterableSource([]))))
    run = asyncio.run(queue(made))
    with serving(scene):
        finished(scene, run)
    assert len(workplace.output.read_text().splitlines()) == ITEMS


def test_discarded_items_are_asked_again_without_the_job_file(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows([{"id": "1", "text": "a"}])
    server.behave(status=422)
    path = workplace.job()
    assert workplace.run("run", path).code == 3
    path.unlink()
    server.behave()
    assert workplace.run("retry", "talk").code == 0
    assert len(workplace.output.read_text().splitlines()) == 1


def test_a_json_spec_is_run_submitted_and_described_like_a_job_file(workplace: Workplace) -> None:
    workplace.write_rows([{"id": "1", "text": "a"}])
    spec = JobSpec.of(
        Job(
            "talk",
            JsonlSource(workplace.rows, "id"),
            HttpEndpoint(workplace.url),
            JsonlSink(workplace.output, ["text"]),
        )
    ).as_json()
    path = workplace.folder / "talk.json"
    path.write_text(json.dumps(spec))
    spec = json.loads(path.read_text())  # with lists instead of tuples
    described = workplace.run("describe", path).json
    assert described["spec"] == spec
    assert workplace.run("run", path, "--set", "policy.concurrency=2").code == 0
    answered = workplace.output.read_text()
    assert '"id":"1","text":"a"' in answered
    (about,) = workplace.query("SELECT spec FROM run")[0]
    assert json.loads(about)["spec"] == spec | {"policy": {"concurrency": 2}}
    path.write_text(json.dumps(spec | {"policy": {"concurency": 2}}))
    refused = workplace.run("submit", path)
    assert refused.code == 2
    assert refused.line.endswith(" on_foreign_pause")
    assert f"{path}: policy: there is no setting 'concurency'" in refused.line
