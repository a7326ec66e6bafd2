"""The worker's HTTP side. It answers /health while the model loads or computes: the model has a thread of its own."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from orchestrator.worker.handler import toolkit
from orchestrator.worker.handler.calls import Calls
from orchestrator.worker.handler.load import has_handler, load_handler
from orchestrator.worker.lifeline import CANNOT_SERVE, leave
from orchestrator.worker.model import LoadFailed, Parameters, Rejected, Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from orchestrator.worker.batches import Batches


async def serve(settings: Settings, place: str | tuple[str, int]) -> None:
    """Listen at once, load the model, serve until the process ends. Exit code 1 where it cannot load.

    `place`: a Unix socket, for the parent; or host and port, on which a handler is served as the toolkit serves it.
    """
    server = Server()
    application = server.application() if isinstance(place, str) else server.as_toolkit()
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True)
    await runner.setup()
    site = web.UnixSite(runner, place) if isinstance(place, str) else web.TCPSite(runner, *place)
    try:
        await site.start()
        await server.load(settings)
    except OSError as failure:
        leave(f"{CANNOT_SERVE}{failure}")
    except LoadFailed as failure:
        leave(f"{CANNOT_SERVE}{failure}")  # nothing may be written after the reason
    if not isinstance(place, str):
        sys.stdout.write(f"serving on {site.name}\n")
        sys.stdout.flush()
    await asyncio.Event().wait()


class Server:
    """One model, one thread that calls it; requests queue for the thread, and one whose client has gone is skipped."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "model")
        self._batches: Batches | Calls | None = None

    def application(self) -> web.Application:
        """GET /health, POST /batch (many inputs, many answers), POST / (the Hugging Face shape)."""
        application = web.Application(client_max_size=0)
        application.router.add_get("/health", self._health)
        application.router.add_post("/batch", self._post(_batch))
        application.router.add_post("/", self._single)
        return application

    def as_toolkit(self) -> web.Application:
        """The routes of a handler for everybody, once `load` has found one."""
        return toolkit.application(lambda: self._batches if isinstance(self._batches, Calls) else None, self._thread)

    async def load(self, settings: Settings) -> None:
        """Load the model in its thread. `LoadFailed` with one line where that cannot be done."""
        self._batches = await asyncio.get_running_loop().run_in_executor(self._thread, _load, settings)

    async def _health(self, _request: web.Request) -> web.Response:
        if self._batches is None:
            return _json(orjson.dumps({"state": "starting"}), 503)
        return _json(orjson.dumps({"state": "awake", **self._batches.info}))

    async def _single(self, request: web.Request) -> web.StreamResponse:
        if isinstance(self._batches, Calls):
            return await toolkit.predict(request, self._batches, self._thread)
        return await self._post(_single)(request)

    def _post(
        self, answer: Callable[[Batches | Calls, bytes], bytes]
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


def _load(settings: Settings) -> Batches | Calls:
    if has_handler(settings.model):  # it wins over the task
        return load_handler(settings)
    from orchestrator.worker.loading import load  # noqa: PLC0415 - torch takes seconds; /health answers meanwhile

    return load(settings)


def _batch(batches: Batches | Calls, body: bytes) -> bytes:
    """{"inputs": [...], "parameters": {...}} -> {"answers": [one entry per input, in order]}."""
    inputs, parameters = _parse(body)
    if not isinstance(inputs, list):
        raise Rejected("inputs must be a list")
    return b'{"answers":[' + b",".join(batches.answer(inputs, parameters)) + b"]}"


def _single(batches: Batches | Calls, body: bytes) -> bytes:
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
