"""The worker's HTTP server. The model has a thread of its own, so /health is answered while it loads or computes."""

from __future__ import annotations

import asyncio
import socket
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from aiohttp import web

from orchestrator import exact_json
from orchestrator.domain.worker import CANNOT_SERVE, SERVING
from orchestrator.worker.bearer import bearer, container_key
from orchestrator.worker.handler import toolkit
from orchestrator.worker.handler.calls import load_handler
from orchestrator.worker.lifeline import leave
from orchestrator.worker.meter import Meter
from orchestrator.worker.model import LoadFailed, ModelSettings, Parameters, Rejected, with_line
from orchestrator.worker.report import report_for_ever
from orchestrator.worker.sent_files import SentFiles
from orchestrator.worker.stepwise import HandlerSteps

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from aiohttp.typedefs import Middleware

    from orchestrator.worker.handler.calls import Calls
    from orchestrator.worker.stepwise import Stepwise

_T = TypeVar("_T")
_AHEAD = 2  # requests at once in the first two steps: one computes, the next is prepared


class StatusFile(NamedTuple):
    """Where the worker writes its status, and under which name."""

    path: Path
    endpoint: str


class HandlerPort(NamedTuple):
    """A port on which a handler is served as the toolkit serves it, to clients with the token."""

    host: str
    port: int
    token: str


class InheritedSocket(NamedTuple):
    """A socket that our parent has bound to a port, for a client on another machine that has the token."""

    descriptor: int
    token: str


class ContainerPort(NamedTuple):
    """A port of a container, for clients that have the token."""

    host: str
    port: int
    token: str


Place = (
    str | HandlerPort | InheritedSocket | ContainerPort
)  # where a worker listens; a text is the path of a Unix socket


async def serve(settings: ModelSettings, place: Place, report: StatusFile | None = None) -> None:
    """Listen at once, load the model, and serve until the process ends. Exits with 1 if it cannot be loaded."""
    server = WorkerServer()
    runner = web.AppRunner(server.at(place), access_log=None, handler_cancellation=True, auto_decompress=False)
    await runner.setup()
    try:
        site = _site(runner, place)
        await site.start()
        served = await server.load(settings)
    except (OSError, LoadFailed) as failure:
        leave(f"{CANNOT_SERVE}{failure}")  # nothing may follow the reason
    if isinstance(place, HandlerPort | ContainerPort):
        sys.stdout.write(f"{SERVING}{site.name}\n")
        sys.stdout.flush()
    if report is not None:
        await report_for_ever(report.path, report.endpoint, served, server.meter)
    await asyncio.Event().wait()


def _site(runner: web.AppRunner, place: Place) -> web.BaseSite:
    match place:
        case str():
            return web.UnixSite(runner, place)
        case HandlerPort() | ContainerPort():
            return web.TCPSite(runner, place.host, place.port)
        case InheritedSocket():
            return web.SockSite(runner, socket.socket(fileno=place.descriptor))


class WorkerServer:
    """One model and one thread that calls it. Requests queue for the thread; if a client has gone, its is skipped.

    A second thread prepares the next request while the model computes, and encodes the answers to the previous one.
    """

    def __init__(self) -> None:
        self.meter = Meter()
        self._thread = ThreadPoolExecutor(1, "model")
        self._beside = ThreadPoolExecutor(1, "beside")
        self._ahead = asyncio.Semaphore(_AHEAD)
        self._served: Stepwise | None = None
        self._health_body = b""

    def at(self, place: Place) -> web.Application:
        """Return the routes for the clients that come in at this place."""
        match place:
            case str():
                return self.application()
            case HandlerPort():
                return self.as_toolkit(place.token)
            case InheritedSocket():
                return self.application([bearer(place.token).middleware])
            case ContainerPort():
                return self.application([container_key(place.token).middleware])

    def application(self, middlewares: Sequence[Middleware] = ()) -> web.Application:
        """GET /health, POST /batch (many inputs, many answers), POST / (the Hugging Face shape)."""
        application = web.Application(client_max_size=0, middlewares=middlewares)
        application.router.add_get("/health", self._health)
        application.router.add_post("/batch", self._post(_list_of_inputs, _answers))
        application.router.add_post("/", self._single)
        return application

    def as_toolkit(self, token: str) -> web.Application:
        """Return the routes of a handler, for which `load` has to find one first."""
        return toolkit.application(self._handler, self._thread, token)

    async def load(self, settings: ModelSettings) -> Stepwise:
        """Load the model in its thread. Raises `LoadFailed` with one line if that fails."""
        served = await asyncio.get_running_loop().run_in_executor(self._thread, _load, settings)
        self._health_body = exact_json.dumps({"state": "awake", **served.info, **_computing(served, settings)})
        self._served = served
        return served

    def _handler(self) -> Calls | None:
        return self._served.calls if isinstance(self._served, HandlerSteps) else None

    async def _health(self, _request: web.Request) -> web.Response:
        if self._served is None:
            return _json(exact_json.dumps({"state": "starting"}), 503)
        return _json(self._health_body)

    async def _single(self, request: web.Request) -> web.StreamResponse:
        if (handler := self._handler()) is not None:
            return await toolkit.predict(request, handler, self._thread)
        return await self._post(_one_or_many, _outputs)(request)

    def _post(
        self, parse: Callable[[bytes], _Asked], written: Callable[[_Asked, list[bytes]], bytes]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            if self._served is None:
                return _json(_refusal("the model is still loading"), 503)
            try:
                return _json(await self._answer(self._served, await request.read(), parse, written))
            except Rejected as error:
                return _json(_refusal(str(error)), 400)
            except _Stumbled as error:
                return _json(_refusal(str(error)), 500)

        return handle

    async def _answer(
        self,
        served: Stepwise,
        body: bytes,
        parse: Callable[[bytes], _Asked],
        written: Callable[[_Asked, list[bytes]], bytes],
    ) -> bytes:
        loop = asyncio.get_running_loop()

        def prepare() -> tuple[_Asked, Any]:
            asked = parse(body)
            return asked, served.prepare(sent.placed(asked.inputs, asked.files), asked.parameters, tune=asked.tune)

        def compute() -> None:
            with self.meter.computing(len(asked.inputs)):
                served.compute(work)

        def write() -> bytes:
            return written(asked, served.entries(work))

        with SentFiles() as sent:
            async with self._ahead:  # a request that waits here holds only its bytes
                asked, work = await loop.run_in_executor(self._beside, _guarded, prepare)
                await loop.run_in_executor(self._thread, _guarded, compute)
            return await loop.run_in_executor(self._beside, _guarded, write)


class _Stumbled(Exception):
    """These inputs made a step raise an unexpected exception. The parent halves them, down to the offending one."""


def _guarded(step: Callable[[], _T]) -> _T:
    """Return the step's result. Any exception other than `Rejected` is logged and becomes `_Stumbled`.

    SystemExit would end the event loop, and a future cannot hold StopIteration.
    """
    try:
        return step()
    except Rejected:
        raise
    except BaseException as error:
        with suppress(OSError):  # the log's disk may be full
            traceback.print_exception(error)
            sys.stderr.flush()
        raise _Stumbled(with_line(error)) from error


def _computing(served: Stepwise, settings: ModelSettings) -> dict[str, object]:
    """Return what the last digits of an answer depend on. Imports nothing, because a handler may lack torch."""
    modules = {name: sys.modules.get(name) for name in ("torch", "transformers")}
    versions = {name: str(module.__version__) for name, module in modules.items() if module is not None}
    about: dict[str, object] = {"threads": settings.threads, "versions": versions}
    if (torch := modules["torch"]) is not None:
        device = str(served.info.get("device", "cpu"))
        cuda = device.startswith("cuda")
        name = torch.cuda.get_device_name(device) if cuda else torch.backends.cpu.get_cpu_capability()
        about["hardware"] = name
    return about


def _load(settings: ModelSettings) -> Stepwise:
    if settings.handler:  # the parent decides: the presence of a file is no permission to run it
        return HandlerSteps(load_handler(settings))
    from orchestrator.worker.loading import load

    return load(settings)


class _Asked(NamedTuple):
    """A parsed body. `many`: whether the answer has to be a list. `files`: see `SentFiles`."""

    inputs: list[Any]
    parameters: Parameters
    tune: bool
    files: Mapping[str, str] = {}
    many: bool = True


def _list_of_inputs(body: bytes) -> _Asked:
    """Parse {"inputs": [...], "parameters": {...}}, with "tune": true if the best batch width is to be found."""
    asked = _parse(body)
    if not isinstance(asked.inputs, list):
        raise Rejected("inputs must be a list")
    return asked


def _one_or_many(body: bytes) -> _Asked:
    """Parse {"inputs": one or a list, "parameters": {...}}; a list of messages is one input."""
    asked = _parse(body)
    inputs: Any = asked.inputs
    many = isinstance(inputs, list) and not (inputs and isinstance(inputs[0], dict) and "role" in inputs[0])
    return asked if many else asked._replace(inputs=[inputs], many=False)


def _answers(_asked: _Asked, entries: list[bytes]) -> bytes:
    """Return {"answers": [one entry per input, in order]}."""
    return b'{"answers":[' + b",".join(entries) + b"]}"


def _outputs(asked: _Asked, entries: list[bytes]) -> bytes:
    """Return the output, or the list of outputs. Raises `Rejected` if an input has none."""
    outputs = []
    for entry in map(exact_json.loads, entries):
        if "error" in entry:
            raise Rejected(entry["error"]["message"])
        outputs.append(entry["output"])
    return exact_json.dumps(outputs if asked.many else outputs[0])


def _parse(body: bytes) -> _Asked:
    try:
        asked = exact_json.loads(body)
        files = {**(asked.get("files") or {})}
        return _Asked(asked["inputs"], {**(asked.get("parameters") or {})}, asked.get("tune") is True, files)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise Rejected('expected a body like {"inputs": ..., "parameters": {...}}') from error


def _refusal(message: str) -> bytes:
    return exact_json.dumps({"error": message})


def _json(text: bytes, status: int = 200) -> web.Response:
    return web.Response(body=text, status=status, content_type="application/json")
