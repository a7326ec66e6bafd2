"""What a server says of its own limits is kept to: over real HTTP, from the job down."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from orchestrator import Job, Policy
from orchestrator.endpoints import HttpEndpoint
from orchestrator.sinks import JsonlSink
from orchestrator.sources import IterableSource
from orchestrator.wires.tei import TeiWire
from tests.engine.scripted import QUICK, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from orchestrator.store import Store

MOST, TOKENS = 12, 100
INFO = {"model_id": "m", "max_client_batch_size": MOST, "max_batch_tokens": TOKENS}
REFILL = 0.2


@asynccontextmanager
async def served(*routes: web.RouteDef) -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


def job_of(texts: list[str], endpoint: HttpEndpoint, folder: Path, policy: Policy) -> Job:
    source = IterableSource([{"id": f"i{number}", "text": text} for number, text in enumerate(texts)], id="id")
    return Job("limits", source, endpoint, JsonlSink(folder / "out.jsonl"), policy=policy)


async def test_a_request_carries_no_more_items_and_tokens_than_the_servers_info_allows(
    store: Store, tmp_path: Path
) -> None:
    asked: list[list[str]] = []

    async def info(_request: web.Request) -> web.Response:
        return web.json_response(INFO)

    async def embed(request: web.Request) -> web.Response:
        texts = (await request.json())["inputs"]
        asked.append(texts)
        if len(texts) > MOST:
            return web.json_response({"error": "batch size too large", "error_type": "Validation"}, status=413)
        return web.json_response([[float(len(text))] for text in texts])

    texts = [f"{number:04} " + "word " * (number % 40) for number in range(800)]
    async with served(web.get("/info", info), web.post("/embed", embed)) as url:
        endpoint = HttpEndpoint(url, wire=TeiWire("embed"))
        report = await run(job_of(texts, endpoint, tmp_path, Policy(batch_size="auto", backoff=QUICK)), store)
    assert report.counts.completed == 800
    assert max(map(len, asked)) == MOST
    for batch in asked:
        assert len(batch) == 1 or max(len(orjson.dumps(text)) for text in batch) * len(batch) <= TOKENS * 4


async def test_a_run_waits_for_a_used_up_quota_before_the_server_refuses(store: Store, tmp_path: Path) -> None:
    refilled, left, refused = time.monotonic(), 3, 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal refilled, left, refused
        await request.read()
        now = time.monotonic()
        if now >= refilled + REFILL:
            refilled, left = now, 3
        if left == 0:
            refused += 1
            return web.json_response({"error": "too many requests"}, status=429)
        left -= 1
        reset = f"{(refilled + REFILL - now) * 1000 + 1:.0f}ms"
        headers = {"x-ratelimit-remaining-requests": str(left), "x-ratelimit-reset-requests": reset}
        return web.json_response([{"label": "x"}], headers=headers)

    async with served(web.post("/", answer)) as url:
        policy = Policy(concurrency=1, backoff=QUICK)
        report = await run(
            job_of([f"text {number}" for number in range(10)], HttpEndpoint(url), tmp_path, policy), store
        )
    assert (report.counts.completed, refused, report.asked) == (10, 0, 10)
