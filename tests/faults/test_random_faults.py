"""Random faults over real sockets: good rows arrive, poison is discarded alone, few requests are wasted.

The faults follow from a seed, which a failure names. `RANDOM_FAULTS=200` draws more than the suite does, and
`RANDOM_FAULTS_SEED=17` starts with that seed.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import orjson
import pytest
from aiohttp import web

from orchestrator import Backoff, Job, Policy
from orchestrator.domain.errors import EndpointRefused
from orchestrator.endpoints import HttpEndpoint
from orchestrator.engine.asking.outage import REFUSED
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from orchestrator.sinks import JsonlSink
from orchestrator.sources import IterableSource
from orchestrator.wires import OpenAIChatWire, OpenAIEmbeddingsWire, TeiWire, TgiWire
from tests.unguarded import UNGUARDED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from orchestrator.store import Store
    from orchestrator.wires import Wire

FIRST, COUNT = int(os.environ.get("RANDOM_FAULTS_SEED", "0")), int(os.environ.get("RANDOM_FAULTS", "2"))
CONCURRENCIES: tuple[int | Literal["auto"], ...] = (1, 4, 16, "auto")
FOUND = (12,)  # seeds that found a bug: a transient failure of many batches was attributed to their size
REQUESTS = 150  # of a set without faults
TRIES = 3  # `max_attempts`
HTML = "<html><head><title>Service Temporarily Unavailable</title></head></html>"


@dataclass(frozen=True)
class Shape:
    """The format of a server: where a request holds its texts, and what an answer to them looks like."""

    wire: Wire
    batch_size: int
    texts: Callable[[Any], Sequence[str]]
    answer: Callable[[Sequence[str]], object]
    refusal: tuple[int, object]  # for an input error of the client
    trouble: tuple[tuple[int, object], ...]  # for an error of the server


def vector(text: str) -> list[float]:
    return [float(int(text.split()[1])), 1.0]


SHAPES = {
    "chat": Shape(
        OpenAIChatWire("m"),
        1,
        lambda body: [body["messages"][-1]["content"]],
        lambda texts: {
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": texts[0].upper()}, "finish_reason": "stop"}
            ]
        },
        (400, {"error": {"message": "This model's maximum context length is 8 tokens", "code": 400}}),
        ((500, {"error": {"message": "EngineCore encountered an issue", "code": 500}}), (503, HTML), (502, HTML)),
    ),
    "embeddings": Shape(
        OpenAIEmbeddingsWire("m"),
        16,
        lambda body: body["input"] if isinstance(body["input"], list) else [body["input"]],
        lambda texts: {
            "data": [{"object": "embedding", "index": i, "embedding": vector(text)} for i, text in enumerate(texts)]
        },
        (400, {"error": {"message": "input is too long", "type": "BadRequestError"}}),
        ((500, {"error": {"message": "input is too large to process"}}), (503, HTML), (504, HTML)),
    ),
    "tgi": Shape(
        TgiWire(),
        1,
        lambda body: [body["inputs"]],
        lambda texts: {"generated_text": texts[0].upper()},
        (422, {"error": "Input validation error: `inputs` must have less than 8 tokens", "error_type": "validation"}),
        (
            (424, {"error": "Request failed during generation: transport error", "error_type": "generation"}),
            (503, HTML),
        ),
    ),
    "tei": Shape(
        TeiWire("embed"),
        8,
        lambda body: body["inputs"] if isinstance(body["inputs"], list) else [body["inputs"]],
        lambda texts: [vector(text) for text in texts],
        (413, {"error": "Input validation error: `inputs` must have less than 8 tokens", "error_type": "Validation"}),
        ((424, {"error": "DriverError(CUDA_ERROR)", "error_type": "Backend"}), (503, HTML)),
    ),
}


@dataclass
class Faults:
    """The faults of one server, drawn from a seed. Times are counted in requests: at the first, at the 40th ..."""

    seed: int
    shape: str = ""
    poison: dict[str, str] = field(default_factory=dict)  # texts, and what happens to a request that contains one
    limit: tuple[int, int] | None = None  # requests at once, and the status of any beyond that
    outages: list[tuple[int, int, str]] = field(default_factory=list)  # first request, number, kind
    chance: float = 0.0  # the chance of a request to fail by itself, once
    how: str = "trouble"
    concurrency: int | Literal["auto"] = 8

    @classmethod
    def drawn(cls, seed: int) -> Faults:
        draw = random.Random(seed)
        faults = cls(seed, draw.choice(list(SHAPES)), concurrency=draw.choice(CONCURRENCIES))
        for number in draw.sample(range(REQUESTS), draw.choice([0, 1, 3])):
            faults.poison[f"text {number}"] = draw.choice(["refusal", "trouble", "cut", "garbled", "403"])
        if draw.random() < 0.4:
            faults.limit = (draw.choice([2, 5]), draw.choice([429, 503]))
        for _ in range(draw.choice([0, 1, 1, 2])):
            how = draw.choice(["trouble", "cut", "garbled", "hang", "404"])
            faults.outages.append((draw.randrange(5, 60), draw.choice([2, 5]), how))
        if draw.random() < 0.4:
            faults.chance, faults.how = 0.03, draw.choice(["trouble", "cut", "garbled"])
        return faults


class Server:
    """Answers, except for its faults; counts requests."""

    def __init__(self, faults: Faults | None, shape: Shape) -> None:
        self.faults, self.shape = faults, shape
        self.draw = random.Random(0 if faults is None else faults.seed)
        self.requests = self.in_flight = 0
        self.for_poison = 0  # requests that contained one
        self.begun = time.monotonic()
        self.seen: list[str] = []  # shown in a failure

    async def post(self, request: web.Request) -> web.StreamResponse:
        texts = self.shape.texts(orjson.loads(await request.read()))
        self.requests += 1
        if self.faults is not None and any(text in self.faults.poison for text in texts):
            self.for_poison += 1
        self.in_flight += 1
        try:
            fault = self._fault(texts)
            self.seen.append(f"{time.monotonic() - self.begun:.2f} {self.requests} {texts[:3]}{len(texts)} {fault}")
            if fault is not None:
                return await self._failed(request, fault)
            await asyncio.sleep(0.004)
            return web.json_response(self.shape.answer(texts))
        finally:
            self.in_flight -= 1

    def _fault(self, texts: Sequence[str]) -> str | None:
        faults = self.faults
        if faults is None:
            return None
        for first, count, how in faults.outages:
            if first <= self.requests < first + count:
                return how
        if faults.limit is not None and self.in_flight > faults.limit[0]:
            return f"limit {faults.limit[1]}"
        for text in texts:
            if text in faults.poison:
                return faults.poison[text]
        return faults.how if self.draw.random() < faults.chance else None

    async def _failed(self, request: web.Request, fault: str) -> web.StreamResponse:
        match fault.split():
            case ["hang"]:
                await asyncio.sleep(60)
            case ["cut"]:
                assert request.transport is not None
                request.transport.abort()
            case ["garbled"]:
                return web.Response(text=HTML, content_type="text/html")
            case ["limit", status]:
                return web.Response(status=int(status), text="Service Unavailable")
            case ["refusal"]:
                return said(*self.shape.refusal)
            case ["403"]:
                return said(403, {"error": {"message": "your input was flagged", "code": 403}})
            case ["401" | "404" as status]:
                return web.Response(status=int(status), text=f"default backend - {status}")
        return said(*self.draw.choice(self.shape.trouble))


def said(status: int, body: object) -> web.Response:
    if isinstance(body, str):
        return web.Response(status=status, text=body, content_type="text/html")
    return web.json_response(body, status=status)


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/{any:.*}", server.post)
    runner = web.AppRunner(app, shutdown_timeout=0, handler_cancellation=True)  # as a server that notices
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def asked(
    store: Store, folder: Path, name: str, server: Server, concurrency: int | Literal["auto"]
) -> dict[str, set[str]]:
    """Run a job against the server; return the delivered texts and the discarded texts."""
    rows = [{"id": f"text {number}", "text": f"text {number}"} for number in range(REQUESTS * server.shape.batch_size)]
    policy = Policy(
        concurrency=concurrency,
        batch_size=server.shape.batch_size,
        max_attempts=TRIES,
        timeout=3.0,  # only for what hangs
        breaker=1000,
        backoff=Backoff(first=0.01, cap=0.05),
    )
    async with serving(server) as url:
        endpoint = HttpEndpoint(url, wire=server.shape.wire, startup_timeout=30.0)
        output = folder / f"{name}.jsonl"
        job = Job(name, IterableSource(rows, id="id"), endpoint, JsonlSink(output), request="{text}", policy=policy)
        await run_job(RunRequest(job), store, Progress(), Stop(), UNGUARDED)
    failures = folder / f"{name}.failures.jsonl"
    return {
        "delivered": {orjson.loads(line)["id"] for line in output.read_bytes().splitlines()},
        "discarded": {orjson.loads(line)["id"] for line in failures.read_bytes().splitlines()}
        if failures.exists()
        else set(),
    }


@pytest.mark.parametrize("seed", [*range(FIRST, FIRST + COUNT), *FOUND])
@pytest.mark.timeout(120)
async def test_good_rows_are_delivered_and_poison_is_discarded_alone(seed: int, store: Store, tmp_path: Path) -> None:
    faults = Faults.drawn(seed)
    shape = SHAPES[faults.shape]
    texts = [f"text {number}" for number in range(REQUESTS * shape.batch_size)]
    calm, server = Server(None, shape), Server(faults, shape)
    await asked(store, tmp_path, "calm", calm, faults.concurrency)
    found = await asked(store, tmp_path, "faulty", server, faults.concurrency)
    log = "\n".join(server.seen[-80:])
    assert found["discarded"] == set(faults.poison), (faults, log)
    assert found["delivered"] == set(texts) - set(faults.poison), (faults, log)
    # Requests that faults cost by themselves are not waste: those swallowed by an outage, as outages are counted in
    # requests; those with poison; one more for each of its attempts, to see whether the server is down; and the parts
    # of its batch without it.
    size = shape.batch_size
    swallowed = sum(count for _, count, _ in faults.outages)
    spent = server.requests - server.for_poison - swallowed
    allowed = 1.3 * calm.requests + len(faults.poison) * TRIES * size.bit_length()
    assert spent <= allowed, (spent, allowed, calm.requests, server.requests, server.for_poison, faults, log)


async def test_a_token_that_expires_in_mid_run_ends_the_run_after_a_few_requests(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.engine.run.session._LOOK", 0.001)
    server = Server(Faults(0, outages=[(40, 10_000, "401")]), SHAPES["chat"])
    with pytest.raises(EndpointRefused, match=r"answered 401 .*check the token.*run the same command again"):
        await asked(store, tmp_path, "expired", server, 4)
    assert server.requests <= 40 + 2 * 4 + REFUSED
