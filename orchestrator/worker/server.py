"""The worker's HTTP side. It answers /health while the model loads or computes: the model has a thread of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from orchestrator.worker.model import LoadFailed, Parameters, Rejected, Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from orchestrator.worker.batches import Batches

CANNOT_SERVE = "cannot serve: "  # begins the one line that tells the parent why there will be no model


async def serve(settings: Settings, socket: str) -> None:
    """Listen on `socket` at once, load the model, serve until the process ends. Exit code 1 where it cannot load."""
    server = Server()
    runner = web.AppRunner(server.application(), access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.UnixSite(runner, socket).start()
    try:
        await server.load(settings)
    except LoadFailed as failure:
        sys.stderr.write(f"\n{CANNOT_SERVE}{failure}\n")
        sys.stderr.flush()
        os._exit(1)  # nothing may be written after the reason
    await asyncio.Event().wait()


class Server:
    """One model, one thread that calls it; requests queue for the thread, and one whose client has gone is skipped."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "model")
        self._batches: Batches | None = None

    def application(self) -> web.Application:
        """GET /health, POST /batch (many inputs, many answers), POST / (the Hugging Face shape)."""
        application = web.Application(client_max_size=0)
        application.router.add_get("/health", self._health)
        application.router.add_post("/batch", self._post(_batch))
        application.router.add_post("/", self._post(_single))
        return application

    async def load(self, settings: Settings) -> None:
        """Load the model in its thread. `LoadFailed` with one line where that cannot be done."""
        self._batches = await asyncio.get_running_loop().run_in_executor(self._thread, _load, settings)

    async def _health(self, _request: web.Request) -> web.Response:
        if self._batches is None:
            return _json(orjson.dumps({"state": "starting"}), 503)
        return _json(orjson.dumps({"state": "awake", **self._batches.model.info}))

    def _post(
        self, answer: Callable[[Batches, bytes], bytes]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            if self._batches is None:
                return _json(_refusal("the model is still loading"), 503)
            body = await request.read()
            loop = asyncio.get_running_loop()
            try:
                return _json(await loop.run_in_executor(self._thread, answer, self._batches, body))
            except Rejected as error:
                return _json(_refusal(str(error)), 400)

        return handle


def _load(settings: Settings) -> Batches:
    from orchestrator.worker.loading import load  # noqa: PLC0415 - torch takes seconds; /health answers meanwhile

    return load(settings)


def _batch(batches: Batches, body: bytes) -> bytes:
    """{"inputs": [...], "parameters": {...}} -> {"answers": [one entry per input, in order]}."""
    inputs, parameters = _parse(body)
    if not isinstance(inputs, list):
        raise Rejected("inputs must be a list")
    return b'{"answers":[' + b",".join(batches.answer(inputs, parameters)) + b"]}"


def _single(batches: Batches, body: bytes) -> bytes:
    """{"inputs": one or a list, "parameters": {...}} -> the output, or the list of outputs."""
    inputs, parameters = _parse(body)
    many = isinstance(inputs, list) and not (inputs and isinstance(inputs[0], dict) and "role" in inputs[0])
    outputs = []
    for entry in map(orjson.loads, batches.answer(inputs if many else [inputs], parameters)):
        if "error" in entry:
            raise Rejected(entry["error"]["message"])
        outputs.append(entry["output"])
    return orjson.dumps(outputs if many else outputs[0])


def _parse(body: bytes) -> tuple[Any, Parameters]:
    try:
        asked = orjson.loads(body)
        return asked["inputs"], {**(asked.get("parameters") or {})}
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise Rejected('expected a body like {"inputs": ..., "parameters": {...}}') from error


def _refusal(message: str) -> bytes:
    return orjson.dumps({"error": message})


def _json(text: bytes, status: int = 200) -> web.Response:
    return web.Response(body=text, status=status, content_type="application/json")
