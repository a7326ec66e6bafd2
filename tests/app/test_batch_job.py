from __future__ import annotations

import json
from typing import TYPE_CHECKING

import orjson
import pytest

from orchestrator.app.batch_job import batch_job
from orchestrator.config import Settings
from orchestrator.domain.errors import UsageError
from orchestrator.endpoints import HttpEndpoint
from orchestrator.engine.run.ingest import Snapshot
from orchestrator.spec import JobSpec
from orchestrator.wires import OpenAIBatchWire

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.job import Job

A = {"kind": "http", "url": "http://a/", "models": ["m", "other"]}
B = {"kind": "http", "url": "http://b/", "models": ["m"], "wire": {"kind": "openai", "model": "m"}}
UNRELATED = {"kind": "http", "url": "http://c/"}


def made(path: Path, model: str = "m", **endpoints: object) -> Job:
    settings = Settings.model_validate({"endpoints": endpoints or {"a": A, "b": B, "c": UNRELATED}})
    return batch_job(settings, name="batch-1", path=path, route="/v1/chat/completions", model=model, deadline="8h")


def test_all_endpoints_that_serve_the_model_share_the_batch(tmp_path: Path) -> None:
    job = made(tmp_path / "a.jsonl")
    wire = OpenAIBatchWire("/v1/chat/completions", "m")
    used = [one.endpoint for one in job.endpoints]
    assert used == [HttpEndpoint("http://a/", wire=wire), HttpEndpoint("http://b/", wire=wire)]
    assert job.policy.deadline == "8h"
    assert [one.endpoint.name for one in made(tmp_path / "a.jsonl", "other").endpoints] == ["http://a/"]


def test_any_process_can_execute_it_from_its_spec(tmp_path: Path) -> None:
    spec = JobSpec.of(made(tmp_path / "a.jsonl"))
    assert JobSpec.of(JobSpec.read(orjson.loads(orjson.dumps(spec.as_json())), "spec").job()) == spec


def test_its_items_are_the_lines_with_their_bodies_as_requests(tmp_path: Path) -> None:
    path = tmp_path / ("ab" * 32)  # as stored files are named
    bodies = [
        {"model": "m", "messages": [{"role": "user", "content": "{text}"}], "seed": 2**70},
        {"model": "m", "messages": []},
        {"model": "m", "messages": []},
    ]
    lines = [
        {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for number, body in enumerate(bodies)
    ]
    path.write_text("".join(f"{text}\n" for text in ["", *map(_json, lines), ""]))
    (group,) = Snapshot(made(path), {}, None).groups()
    items = [item for chunk in group for item in chunk]
    assert [(item.item_id, item.request, item.same_as) for item in items] == [
        (f"r{number}", _json(body), None) for number, body in enumerate(bodies)
    ]


def test_a_single_line_is_one_item(tmp_path: Path) -> None:
    path = tmp_path / "one"
    line = {"custom_id": "r", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": []}}
    path.write_text(_json(line))
    ((chunk,),) = Snapshot(made(path), {}, None).groups()
    assert [item.item_id for item in chunk] == ["r"]


def test_a_model_that_no_endpoint_serves_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no endpoint serves the model 'x': add it to \[endpoints.NAME\] models"):
        made(tmp_path / "a", "x")
    with pytest.raises(UsageError, match="kind 'local' does not speak OpenAI's routes: leave models out"):
        made(tmp_path / "a", here={"kind": "local", "model": "m", "task": "fill-mask", "models": ["m"]})
    with pytest.raises(UsageError, match="model 'm': a job's endpoints need different names"):
        made(tmp_path / "a", a=A, b={**A})


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
