"""Whatever bytes a server sends over a real socket: its item fails or completes, and everything else continues.

`HOSTILE_ANSWERS=20000` tries more answers than the suite does.
"""

from __future__ import annotations

import io
import os
import re
from contextlib import asynccontextmanager, suppress
from datetime import UTC
from typing import TYPE_CHECKING

import anyio
import orjson
import pytest
from anyio import to_thread
from anyio.abc import SocketAttribute

from orchestrator import Backoff, Job, Policy
from orchestrator.cli.terminal import Terminal
from orchestrator.domain.answer import Answer
from orchestrator.domain.engine_metrics import engine_sample
from orchestrator.domain.errors import EndpointLost, OrchestratorError, RequestFailed
from orchestrator.domain.report_json import as_json
from orchestrator.endpoints import HttpEndpoint
from orchestrator.endpoints.api_calls import ApiTimeouts
from orchestrator.endpoints.hf_api import Management
from orchestrator.endpoints.hf_hardware import Hardware
from orchestrator.engine.asking.parse import stored
from orchestrator.engine.progress import Progress
from orchestrator.engine.report import report_of
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from orchestrator.report.page import page
from orchestrator.report.text import show
from orchestrator.sinks import JsonlSink
from orchestrator.sources import IterableSource
from tests.unguarded import UNGUARDED
from tests.wires.mutants import http_answer, mutant
from tests.wires.test_conformance import CASES, Case, every_wire
from tests.wires.test_fuzz import honest_answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from anyio.abc import SocketStream

    from orchestrator.store import Store

ANSWERS = int(os.environ.get("HOSTILE_ANSWERS", "400"))
EACH = -(-ANSWERS // len(CASES))
_SEED = re.compile(rb"seed-(\d+)")
_ACTS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@asynccontextmanager
async def answering(answer: Callable[[bytes], bytes]) -> AsyncIterator[str]:
    """Serve these bytes as the answer to any request body, then close; yield the URL."""

    async def serve(stream: SocketStream) -> None:
        async with stream:
            said = b""
            try:
                while b"\r\n\r\n" not in said:
                    said += await stream.receive()
                head, _, body = said.partition(b"\r\n\r\n")
                length = _LENGTH.search(head)
                while length is not None and len(body) < int(length[1]):
                    body += await stream.receive()
                await stream.send(answer(body))
            except (anyio.BrokenResourceError, anyio.EndOfStream):
                pass  # a client that has seen enough may hang up

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        yield f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}/"
        group.cancel_scope.cancel()


@every_wire
@pytest.mark.timeout(60 + ANSWERS)
async def test_any_bytes_are_read_as_an_answer_or_a_failure(case: Case) -> None:
    honest, request, seed = honest_answer(case, 0), orjson.dumps(case.requests[0]), 0
    counts = (1, 3) if case.wire.takes_lists else (1,)
    async with answering(lambda _: mutant(seed, honest)) as url:
        for seed in range(EACH):
            policy = Policy(timeout=20, batch_size=counts[seed % len(counts)])
            count = policy.batch_size if isinstance(policy.batch_size, int) else 1
            async with (
                HttpEndpoint(url, wire=case.wire).control() as control,
                control.connect(policy) as data,
            ):
                engine_sample(await data.metrics() or "")
                try:
                    entries = await data.ask([request] * count)
                except (RequestFailed, EndpointLost, OrchestratorError):
                    continue
                assert len(entries) == count, seed
                for entry in entries:
                    assert_it_can_be_kept(entry)


def assert_it_can_be_kept(entry: object) -> None:
    value = entry.value if isinstance(entry, Answer) else entry
    if not isinstance(value, RequestFailed):
        with suppress(RequestFailed):
            assert orjson.dumps({"items": [{"output": orjson.loads(stored(value))}]})


# -- whole runs --------------------------------------------------------------------------------------------------------

TEXT_WIRES = ("huggingface", "chat", "completions", "embeddings", "embeddings base64", "responses", "tei embed", "tgi")
# statuses that fail only the request: they neither condemn the endpoint
# nor delay all requests for a minute
OF_ITEMS = (200,) * 24 + (201, 204, 206, 400, 408, 409, 413, 422, 424, 425, 500, 502, 504, 599)
GOOD = 10


@pytest.mark.parametrize("name", TEXT_WIRES)
@pytest.mark.timeout(60 + ANSWERS)
async def test_a_hostile_answer_affects_only_its_item(name: str, store: Store, tmp_path: Path) -> None:
    case = CASES[name]
    honest = honest_answer(case, 0)

    def answer(body: bytes) -> bytes:
        found = _SEED.search(body)
        return http_answer(200, honest) if found is None else mutant(int(found[1]), honest, OF_ITEMS, waits=False)

    rows = [{"id": f"bad\x1b[2J\n{seed}", "text": f"seed-{seed}"} for seed in range(EACH)]
    rows += [{"id": f"good {number}", "text": f"text {number}"} for number in range(GOOD)]
    policy = Policy(
        concurrency=8,
        max_attempts=1,
        breaker=1_000_000,
        max_error_rate=1.0,
        timeout=20,
        dedupe=False,
        backoff=Backoff(first=0.001, cap=0.001),
    )
    async with answering(answer) as url:
        endpoint = HttpEndpoint(url, wire=case.wire)
        sink = JsonlSink(tmp_path / "out.jsonl")
        job = Job("hostile", IterableSource(rows, id="id"), endpoint, sink, policy=policy)
        report = await run_job(RunRequest(job), store, Progress(), Stop(), UNGUARDED)
    assert report.counts.unfinished == 0
    assert report.counts.total == len(rows)
    lines = (tmp_path / "out.jsonl").read_bytes().splitlines()
    delivered = [orjson.loads(line) for line in lines]
    assert len([one for one in delivered if one["id"].startswith("good")]) == GOOD
    assert len(lines) == report.counts.completed
    await assert_it_can_be_shown(store, report.run.id)


async def assert_it_can_be_shown(store: Store, run_id: int) -> None:
    shown = await report_of(store, run_id)
    screen = io.StringIO()
    show(shown, Terminal(file=screen, soft_wrap=True), UTC)
    assert not _ACTS.search(screen.getvalue())
    assert not _ACTS.search(await to_thread.run_sync(page, shown, UTC))
    assert orjson.dumps(as_json(shown))
    await store.views.tokens(run_id)
    async for views in store.views.pages(run_id):
        for view in views:
            assert await store.views.item(run_id, view.id) is not None


# -- the control plane -------------------------------------------------------------------------------------------------

ENDPOINT = {
    "name": "model",
    "status": {"state": "running", "url": "https://h.example", "message": "", "readyReplica": 1, "targetReplica": 1},
    "provider": {"vendor": "aws", "region": "us-east-1"},
    "compute": {"accelerator": "gpu", "instanceType": "a", "instanceSize": "x1", "scaling": {"minReplica": 0}},
    "model": {"repository": "acme/model"},
    "tags": ["a"],
}
PRICES = {"vendors": [{"name": "aws", "regions": [{"name": "r", "computes": [{"pricePerHour": 1.5}]}]}]}
HURRIED = ApiTimeouts(one=5.0, whole=0.01, backoff=Backoff(first=0.0, cap=0.0))
CALLS: dict[str, tuple[object, Callable[[Management], Awaitable[object]]]] = {
    "get": (ENDPOINT, lambda api: api.get("model")),
    "list": ({"items": [ENDPOINT], "nextCursor": None}, Management.list),
    "resume": (ENDPOINT, lambda api: api.resume("model")),
    "providers": (PRICES, lambda api: api.price(Hardware("aws", "r", "gpu", "a", "x1"))),
    "metrics": ("a 1", lambda api: api.open_metrics("model")),
    "whoami": ({"name": "acme"}, lambda api: api.calls.whoami()),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.timeout(60 + ANSWERS)
async def test_any_bytes_from_the_control_plane_are_read_or_fail(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, ask = orjson.dumps(CALLS[call][0]), CALLS[call][1]
    monkeypatch.setenv("HF_TOKEN", "hf_tokenOfTheTests")
    async with answering(lambda _: mutant(seed, honest, waits=False)) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        async with Management.open("acme", api_url=url, timeouts=HURRIED) as api:
            for seed in range(EACH):  # noqa: B007 - the server reads it
                with suppress(OrchestratorError):
                    await ask(api)


@pytest.mark.parametrize("call", CALLS)
async def test_deeply_nested_json_does_not_break_calls_to_the_control_plane(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, ask = orjson.dumps(CALLS[call][0]), CALLS[call][1]
    values = [found.span(1) for found in re.finditer(rb':("[^"]*"|null|[0-9.]+)', honest)]
    deep = b"[" * 1000 + b"]" * 1000
    monkeypatch.setenv("HF_TOKEN", "hf_tokenOfTheTests")
    async with answering(lambda _: http_answer(200, honest[:start] + deep + honest[end:])) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        async with Management.open("acme", api_url=url, timeouts=HURRIED) as api:
            for start, end in values:  # noqa: B007 - the server reads them
                with suppress(OrchestratorError):
                    await ask(api)
