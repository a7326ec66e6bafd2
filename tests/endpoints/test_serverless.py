from __future__ import annotations

import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson
import pytest
from aiohttp import web
from multidict import CIMultiDict

from orchestrator import Job, Policy
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import (
    EndpointLost,
    EndpointRefused,
    FailureKind,
    OutOfCredit,
    RequestFailed,
    UsageError,
)
from orchestrator.endpoints import ServerlessEndpoint
from orchestrator.ports import Endpoint
from orchestrator.sinks import JsonlSink
from orchestrator.sources import IterableSource
from tests.engine.scripted import QUICK, outputs, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from orchestrator.ports import DataPlane
    from orchestrator.store import Store

NO_CREDIT = "You have exceeded your monthly included credits for Inference Providers."


@dataclass
class Router:
    """Answers a text in upper case on both routes, once the model is loaded."""

    url: str = ""
    loads_until: float = 0.0
    estimate: float | None = 0.2
    refuse: tuple[int, str] | None = None
    asked: list[tuple[str, CIMultiDict[str], dict[str, object]]] = field(default_factory=list)
    stop: Callable[[], Awaitable[None]] = field(init=False)

    def loads(self, seconds: float) -> None:
        self.loads_until = time.monotonic() + seconds

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append((request.path, CIMultiDict(request.headers), body))
        if self.refuse is not None:
            return web.json_response({"error": self.refuse[1]}, status=self.refuse[0])
        if time.monotonic() < self.loads_until:
            about = {"error": "Model acme/m is currently loading", "estimated_time": self.estimate}
            return web.json_response(about, status=503)
        if request.path == "/v1/chat/completions":
            said = body["messages"][-1]["content"].upper()
            return web.json_response({"choices": [{"message": {"role": "assistant", "content": said}}]})
        inputs = body["inputs"]
        return web.json_response([text.upper() for text in inputs] if isinstance(inputs, list) else inputs.upper())


@pytest.fixture
async def router(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Router]:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    async with served() as router:
        yield router


@asynccontextmanager
async def served() -> AsyncIterator[Router]:
    router = Router()
    app = web.Application()
    app.router.add_post("/{path:.*}", router.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    router.stop = runner.cleanup
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    router.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield router
    finally:
        await router.stop()


@asynccontextmanager
async def opened(endpoint: ServerlessEndpoint, policy: Policy | None = None) -> AsyncIterator[DataPlane]:
    async with endpoint.control() as control, control.connect(policy or Policy()) as data:
        yield data


def job_of(texts: list[str], endpoint: Endpoint, folder: Path) -> Job:
    source = IterableSource([{"id": f"i{number}", "text": text} for number, text in enumerate(texts)], id="id")
    policy = Policy(max_attempts=1, concurrency=4, backoff=QUICK)  # an attempt that is charged is the end of the item
    return Job("serverless", source, endpoint, JsonlSink(folder / "out.jsonl"), policy=policy)


@pytest.mark.parametrize(
    ("task", "path"),
    [
        (None, "/hf-inference/models/acme/m"),
        ("text-classification", "/hf-inference/models/acme/m"),
        ("feature-extraction", "/hf-inference/models/acme/m/pipeline/feature-extraction"),
        ("sentence-similarity", "/hf-inference/models/acme/m/pipeline/sentence-similarity"),
    ],
)
async def test_the_inference_route_depends_on_the_task(router: Router, task: str | None, path: str) -> None:
    endpoint = ServerlessEndpoint("acme/m", task=task, parameters={"top_k": 1}, base_url=router.url)
    async with opened(endpoint) as data:
        assert await data.ask([b'"abc"']) == ["ABC"]
    ((asked, headers, body),) = router.asked
    assert (asked, body) == (path, {"inputs": "abc", "parameters": {"top_k": 1}})
    assert headers["Authorization"] == "Bearer hf_secret"
    assert "X-HF-Bill-To" not in headers


async def test_inputs_are_sent_as_lists_in_batches(router: Router) -> None:
    async with opened(ServerlessEndpoint("acme/m", base_url=router.url), Policy(batch_size=2)) as data:
        assert await data.ask([b'"a"', b'"b"']) == ["A", "B"]


async def test_the_chat_route_uses_the_chat_format_and_names_the_payer(router: Router) -> None:
    endpoint = ServerlessEndpoint(
        "acme/m:fast", route="chat", parameters={"seed": 1}, bill_to="acme", base_url=router.url
    )
    async with opened(endpoint) as data:
        assert await data.ask([b'"abc"']) == ["ABC"]
    ((asked, headers, body),) = router.asked
    assert asked == "/v1/chat/completions"
    assert body == {"model": "acme/m:fast", "seed": 1, "messages": [{"role": "user", "content": "abc"}]}
    assert headers["X-HF-Bill-To"] == "acme"
    with pytest.raises(UsageError, match=r"policy\.batch_size cannot be 2"):
        endpoint.identity(Policy(batch_size=2))


async def test_an_answer_says_how_long_loading_takes(router: Router) -> None:
    endpoint = ServerlessEndpoint("acme/m", base_url=router.url)
    async with endpoint.control() as control, control.connect(Policy()) as data:
        assert control.terms is None
        assert await control.state() is EndpointState.PAUSED
        await control.resume()
        assert (await control.state(), control.status_text) == (EndpointState.AWAKE, "in use")
        router.loads(60)
        with pytest.raises(EndpointLost, match="currently loading") as raised:
            await data.ask([b'"abc"'])
        assert (raised.value.starting, raised.value.retry_after) == (True, router.estimate)
        await control.pause()
        assert await control.state() is EndpointState.PAUSED


async def test_loading_costs_no_item_an_attempt(router: Router, store: Store, tmp_path: Path) -> None:
    router.loads(0.3)
    job = job_of(["a", "b", "c", "d", "e", "f"], ServerlessEndpoint("acme/m", base_url=router.url), tmp_path)
    report = await run(job, store)
    assert (report.counts.completed, report.counts.discarded) == (6, 0)
    assert sorted(map(str, outputs(job).values())) == ["A", "B", "C", "D", "E", "F"]
    assert len(router.asked) <= 6 + 4 * 3  # nobody hammers a model that is being loaded


async def test_without_credit_the_run_stops_and_continues_once_there_is_some(
    router: Router, store: Store, tmp_path: Path
) -> None:
    router.refuse = (402, NO_CREDIT)
    job = job_of(["a", "b"], ServerlessEndpoint("acme/m", base_url=router.url), tmp_path)
    with pytest.raises(OutOfCredit, match="exceeded your monthly included credits"):
        await run(job, store)
    router.refuse = None
    assert (await run(job, store)).counts.completed == 2


@pytest.mark.parametrize(("status", "failure"), [(401, EndpointRefused), (404, EndpointRefused), (503, RequestFailed)])
async def test_other_answers_mean_the_same_as_on_other_servers(
    router: Router, status: int, failure: type[Exception]
) -> None:
    router.refuse = (status, "no")
    async with (
        ServerlessEndpoint("acme/m", base_url=router.url).control() as control,
        control.connect(Policy()) as data,
    ):
        with pytest.raises(failure):
            await data.ask([b'"abc"'])
        assert await control.answers()


async def test_a_chat_answer_without_text_is_not_an_answer(router: Router) -> None:
    async with opened(ServerlessEndpoint("acme/m", route="chat", base_url=router.url)) as data:
        with pytest.raises(RequestFailed) as raised:
            await data.ask([orjson.dumps({"no": "messages"})])
        assert raised.value.kind is FailureKind.REJECTED


async def test_a_missing_token_is_reported_before_anything_is_sent(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UsageError, match="OTHER_TOKEN"):
        async with ServerlessEndpoint("acme/m", token_env="OTHER_TOKEN", base_url=router.url).control():
            pass
    assert not router.asked


def test_identity_and_name_are_those_of_the_model() -> None:
    endpoint = ServerlessEndpoint("acme/m", task="feature-extraction", parameters={"normalize": True})
    assert endpoint.name == "serverless:acme/m"
    assert isinstance(endpoint, Endpoint)
    assert endpoint.identity(Policy()) == {
        "kind": "serverless",
        "model": "acme/m",
        "task": "feature-extraction",
        "route": "hf-inference",
        "wire": "huggingface",
        "parameters": {"normalize": True},
        "lists": False,
    }
    elsewhere = ServerlessEndpoint("acme/m", task="feature-extraction", base_url="http://h/", bill_to="acme")
    assert elsewhere.identity(Policy()) == {**endpoint.identity(Policy()), "parameters": {}}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [({"route": "smoke"}, "route must be"), ({"route": "chat", "task": "x"}, "one task"), ({"base_url": "x"}, "a URL")],
)
def test_invalid_settings_are_refused(wrong: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        ServerlessEndpoint("acme/m", **wrong)  # type: ignore[arg-type]
