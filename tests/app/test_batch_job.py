from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from anyio import to_thread
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from orchestrator.app import open_app
from orchestrator.app.batch_job import batch_job
from orchestrator.app.batch_validation import validated
from orchestrator.config import Settings, settings_from
from orchestrator.domain.batch import BatchUsage
from orchestrator.domain.batch_output import usage_in
from orchestrator.domain.errors import UsageError
from orchestrator.endpoints import HttpEndpoint
from orchestrator.engine.run.run_request import request_for
from orchestrator.engine.run.snapshot import Snapshot
from orchestrator.engine.stop import Stop
from orchestrator.spec import JobSpec
from orchestrator.wires import OpenAIBatchWire
from tests.snapshots import chunks_of, items_in

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.job import Job
    from orchestrator.store.views import ItemView
    from tests.servers import InferenceServer

A = {"kind": "http", "url": "http://a/", "models": ["m", "other"]}
B = {"kind": "http", "url": "http://b/", "models": ["m"], "wire": {"kind": "openai", "model": "m"}}
UNRELATED = {"kind": "http", "url": "http://c/"}


def made(path: Path, model: str = "m", **endpoints: object) -> Job:
    settings = settings_from({"endpoints": endpoints or {"a": A, "b": B, "c": UNRELATED}})
    return batch_job(settings, name="batch-1", path=path, route="/v1/chat/completions", model=model)


def test_all_endpoints_that_serve_the_model_share_the_batch(tmp_path: Path) -> None:
    job = made(tmp_path / "a.jsonl")
    wire = OpenAIBatchWire("/v1/chat/completions", "m")
    used = [one.endpoint for one in job.endpoints]
    assert used == [HttpEndpoint("http://a/", wire=wire), HttpEndpoint("http://b/", wire=wire)]
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
    items = items_in(Snapshot(made(path), {}, None))
    assert [(item.item_id, item.request, item.shares) for item in items] == [
        (f"r{number}", _json(body), None) for number, body in enumerate(bodies)
    ]


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=3),
    max_leaves=8,
)
BODIES = st.dictionaries(st.text(), JSON, max_size=3).filter(lambda body: not body.keys() & {"stream", "background"})


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(BODIES, min_size=1, max_size=4), st.text(max_size=5), st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_whatever_the_validation_accepts_is_read_as_one_item(
    tmp_path: Path, bodies: list[dict[str, Any]], prefix: str, end: str
) -> None:
    ids = [f"{prefix}{number}" for number in range(len(bodies))]
    asked = [body | {"model": "m", "messages": [1]} for body in bodies]
    lines = [
        {"custom_id": id_, "method": "POST", "url": "/v1/chat/completions", "body": body}
        for id_, body in zip(ids, asked, strict=True)
    ]
    path = tmp_path / "lines"
    path.write_text(end.join(map(_json, lines)), newline="")
    assume(not validated(path, "/v1/chat/completions", {"m"}, 50_000).errors)  # half a surrogate pair is not JSON
    items = items_in(Snapshot(made(path), {}, None))
    assert [(item.item_id, json.loads(item.request or "")) for item in items] == list(zip(ids, asked, strict=True))


def test_a_single_line_is_one_item(tmp_path: Path) -> None:
    path = tmp_path / "one"
    line = {"custom_id": "r", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": []}}
    path.write_text(_json(line))
    (chunk,) = chunks_of(Snapshot(made(path), {}, None))
    assert [item.item_id for item in chunk] == ["r"]


def write(path: Path, *texts: str) -> None:
    bodies = [{"model": "m", "messages": [{"role": "user", "content": text}]} for text in texts]
    lines = [
        {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for number, body in enumerate(bodies)
    ]
    path.write_text("".join(f"{_json(line)}\n" for line in lines))


async def executed(folder: Path, server: InferenceServer) -> list[ItemView]:
    """Execute a batch and return its items."""
    endpoint = {"kind": "http", "url": server.url, "models": ["m"]}
    request = await to_thread.run_sync(lambda: request_for(made(folder / "lines", a=endpoint)))
    async with open_app(Settings(db=str(folder / "ledger.db"))) as app:
        result = await app.run(request)
        return [item async for page in app.store.views.pages(result.run.id) for item in page]


async def test_answers_are_whole_bodies_and_refusals_keep_status_and_body(
    tmp_path: Path, server: InferenceServer
) -> None:
    write(tmp_path / "lines", "hello", "hello", "poison")
    same, also, refused = await executed(tmp_path, server)
    assert server.stats().by_input == {"hello": 2, "poison": 1}  # the same body twice is asked twice
    for item in (same, also):
        answer = orjson.loads(item.output or "")
        assert answer["object"] == "chat.completion"
        assert answer["choices"][0]["message"]["content"] == "olleh"
        assert usage_in(answer) == BatchUsage(5, 0, 5, 0)
        assert item.body is None
    assert (refused.state, refused.status) == ("discarded", 400)
    assert refused.body == '{"error":"this input is poison"}'


async def test_a_batch_whose_lines_are_all_refused_ends_with_all_refusals(
    tmp_path: Path, server: InferenceServer
) -> None:
    write(tmp_path / "lines", *(f"poison {number}" for number in range(150)))
    items = await executed(tmp_path, server)
    assert [item.status for item in items] == [400] * 150
    assert server.stats().requests == 150


@pytest.mark.parametrize(
    ("here", "message"),
    [
        ({"kind": "local", "model": "m", "task": "fill-mask"}, "kind 'local' does not speak OpenAI's routes: leave"),
        ({"kind": "llama_cpp", "model": "m", "program": "llama-server"}, "program: Input should be a valid array"),
    ],
)
async def test_a_daemon_does_not_begin_if_an_endpoint_cannot_serve_its_models(
    tmp_path: Path, here: dict[str, object], message: str
) -> None:
    endpoints = {"a": A, "here": {**here, "models": ["m"]}}
    settings = settings_from({"db": str(tmp_path / "ledger.db"), "endpoints": endpoints})
    async with open_app(settings) as app:
        with pytest.raises(UsageError, match=rf"\[endpoints.here\] .*: {message}"):
            await app.serve(Stop())


def test_a_model_that_no_endpoint_serves_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no endpoint serves the model 'x': add it to \[endpoints.NAME\] models"):
        made(tmp_path / "a", "x")
    with pytest.raises(UsageError, match="kind 'local' does not speak OpenAI's routes: leave models out"):
        made(tmp_path / "a", here={"kind": "local", "model": "m", "task": "fill-mask", "models": ["m"]})
    with pytest.raises(UsageError, match="model 'm': a job's endpoints need different names"):
        made(tmp_path / "a", a=A, b={**A})


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
