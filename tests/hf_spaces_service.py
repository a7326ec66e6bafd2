"""Hugging Face Spaces on loopback: the API under /api/spaces, and behind each Space's URL an app that reverses text.

It runs in a thread of the test process. Source of the protocol: `huggingface_hub` 2.4, which a test drives against it,
and of the queue of an app: `gradio` 6.31.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import orjson
from aiohttp import web

from tests.provider_service import ProviderService
from tests.servers import answer_to

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PAUSED, SLEEPING, BUILDING, RUNNING = "PAUSED", "SLEEPING", "BUILDING", "RUNNING"
_STARTS = (BUILDING, "APP_STARTING")  # the stages on the way up
_SERVES = {RUNNING, "RUNNING_BUILDING", "RUNNING_APP_STARTING"}
_NEVER = -1  # the sleep time of a Space that never sleeps
_HARDWARE = [
    {"name": "cpu-basic", "prettyName": "CPU Basic", "cpu": "2 vCPU", "ram": "16 GB", "unitCostUSD": 0.0},
    {"name": "t4-small", "prettyName": "Nvidia T4", "cpu": "4 vCPU", "ram": "15 GB", "unitCostUSD": 0.4 / 60},
    {"name": "l4x1", "prettyName": "Nvidia L4", "cpu": "8 vCPU", "ram": "30 GB", "unitCostUSD": 0.8 / 60},
]


@dataclass(slots=True)
class FakeSpace:
    """A Space. `moves_at`: when it comes to its next stage, on the monotonic clock."""

    id: str
    hardware: str = "t4-small"
    stage: str = PAUSED
    private: bool = True
    sdk: str = "gradio"
    sleep: int | None = None  # seconds
    message: str | None = None
    url: str = ""
    moves_at: float = 0.0
    running_since: float | None = None
    billed: float = 0.0  # seconds, up to the last stop
    restarts: int = 0
    asked: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)  # the headers with which its app was asked
    log: list[str] = field(default_factory=lambda: ["loading", "* Running on local URL"])
    queue: dict[str, str] = field(default_factory=dict)  # texts that nobody has waited for yet, by event

    @property
    def up(self) -> bool:
        """Whether it runs or is on its way: nobody has to restart it."""
        return self.stage in {*_SERVES, *_STARTS}

    def go(self, stage: str, message: str | None = None) -> None:
        """Move to a stage; it bills while its app runs."""
        now = time.monotonic()
        if self.running_since is not None and stage not in _SERVES:
            self.billed += now - self.running_since
            self.running_since = None
        if self.running_since is None and stage in _SERVES:
            self.running_since = now
        if stage not in _SERVES:
            self.queue.clear()
        self.stage, self.message = stage, message


class SpacesService(ProviderService):
    """The service as a test sees it. Its methods may be called from any thread."""

    def __init__(self) -> None:
        super().__init__()
        self.owner = "acme"
        self.token = "hf_fakeTokenOfTheTests"
        self.spaces: dict[str, FakeSpace] = {}
        self.account: dict[str, Any] = {"name": "acme", "type": "user", "orgs": []}
        self.starting = 0.02  # seconds for each stage on the way up
        self.stuck = False  # nothing starts
        self.fails: tuple[str, str] | None = None  # the stage and the message with which a restart ends
        self.lose_answers = 0  # so many restarts take effect, but their answer is lost
        self.ignores_restarts = False  # they have no effect and no answer
        self.forbids = False  # the token may not change anything
        self.forgets_sleep_time = False
        self.hides_prices = 0  # so many questions for the hardware are answered 503
        self.queue_size: int | None = None  # so many requests wait in the queue of an app at most
        self.dies_after: int | None = None  # so many requests to an app
        self.answers_instead: tuple[int, str] | None = None  # what is answered to every request to an app

    def add(self, name: str, **settings: Any) -> FakeSpace:
        """Add a Space of acme."""
        return asyncio.run_coroutine_threadsafe(self._add(name, settings), self._loop).result()

    async def _add(self, name: str, settings: dict[str, Any]) -> FakeSpace:
        stage = settings.pop("stage", PAUSED)
        space = FakeSpace(f"{self.owner}/{name}", **settings)
        space.go(stage)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", partial(self._through_proxy, space))
        space.url = await self._serve(app)
        self.spaces[space.id] = space
        return space

    def _tick(self) -> None:
        now = time.monotonic()
        for space in self.spaces.values():
            if space.stage in _STARTS and now >= space.moves_at and not self.stuck:
                space.moves_at = now + self.starting
                if space.stage == BUILDING:
                    space.go("APP_STARTING")
                elif self.fails is not None:
                    space.go(*self.fails)
                else:
                    space.go(RUNNING)

    # -- the API -------------------------------------------------------------------------------------------------------

    def _runtime(self, space: FakeSpace) -> dict[str, Any]:
        current = None if space.stage in {PAUSED, SLEEPING} else space.hardware
        shown: dict[str, Any] = {
            "stage": space.stage,
            "hardware": {"current": current, "requested": space.hardware},
            "storage": None,
            "gcTimeout": 172800 if space.hardware == "cpu-basic" else space.sleep,
            "replicas": {"current": 1, "requested": 1},
            "devMode": False,
            "domains": [{"domain": space.url.removeprefix("http://"), "stage": "READY"}],
        }
        return shown if space.message is None else shown | {"errorMessage": space.message}

    @web.middleware
    async def _admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.calls.append(f"{request.method} {request.path}")
        while self.hangs:
            await asyncio.sleep(0.01)
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"error": "Invalid credentials in Authorization header"}, status=401)
        if self.forbids and request.method != "GET":
            return web.json_response({"error": "You need write access to this repository"}, status=403)
        self._tick()
        return await handler(request)

    def _application(self) -> web.Application:
        api = web.Application(middlewares=[self._admit])
        api.router.add_get("/api/whoami-v2", self._whoami)
        api.router.add_get("/endpoint/{namespace}", self._nothing)
        api.router.add_get("/provider/{namespace}", self._nothing)
        api.router.add_get("/api/jobs/{namespace}", self._no_jobs)
        api.router.add_get("/api/spaces/hardware", self._hardware)
        api.router.add_get("/api/spaces", self._list)
        api.router.add_get("/api/spaces/{owner}/{name}", self._about)
        api.router.add_get("/api/spaces/{owner}/{name}/runtime", self._show)
        for verb in ("pause", "restart", "hardware", "sleeptime"):
            api.router.add_post(f"/api/spaces/{{owner}}/{{name}}/{verb}", partial(self._change, verb))
        api.router.add_get("/api/spaces/{owner}/{name}/logs/{which}", self._logs)
        return api

    async def _whoami(self, _request: web.Request) -> web.Response:
        return web.json_response(self.account)

    async def _nothing(self, _request: web.Request) -> web.Response:
        return web.json_response({"items": [], "vendors": []})

    async def _no_jobs(self, _request: web.Request) -> web.Response:
        return web.json_response([])

    async def _hardware(self, _request: web.Request) -> web.Response:
        if self.hides_prices:
            self.hides_prices -= 1
            return web.json_response({"error": "busy"}, status=503)
        units = {"accelerator": None, "unitCostMicroUSD": 1, "unitLabel": "minute"}
        return web.json_response([offer | units for offer in _HARDWARE])

    async def _list(self, request: web.Request) -> web.Response:
        owner = request.query.get("author")
        return web.json_response(
            [
                {"id": space.id, "runtime": self._runtime(space)}
                for space in self.spaces.values()
                if space.id.startswith(f"{owner}/")
            ]
        )

    def _found(self, request: web.Request) -> FakeSpace:
        space = self.spaces.get(f"{request.match_info['owner']}/{request.match_info['name']}")
        if space is None:
            raise web.HTTPNotFound(text=orjson.dumps({"error": "Repository not found"}).decode())
        return space

    async def _about(self, request: web.Request) -> web.Response:
        space = self._found(request)
        about = {"_id": "1", "id": space.id, "author": self.owner, "private": space.private, "sdk": space.sdk}
        about |= {"host": space.url, "subdomain": space.id.replace("/", "-"), "tags": [], "likes": 0}
        return web.json_response(about | {"runtime": self._runtime(space)})

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response(self._runtime(self._found(request)))

    async def _change(self, verb: str, request: web.Request) -> web.Response:
        space, now = self._found(request), time.monotonic()
        if space.sdk == "static":
            return web.json_response({"error": "Static Spaces are always running"}, status=400)
        body = orjson.loads(await request.read() or b"{}")
        match verb:
            case "pause":
                space.go(PAUSED)
            case "restart" if self.ignores_restarts:
                assert request.transport is not None
                request.transport.close()
            case "restart":
                space.restarts += 1
                space.go(BUILDING)
                space.moves_at = now + self.starting
                if self.lose_answers:
                    self.lose_answers -= 1
                    assert request.transport is not None
                    request.transport.close()
            case "hardware" if body["flavor"] not in {offer["name"] for offer in _HARDWARE}:
                return web.json_response({"error": f"no hardware {body['flavor']}"}, status=400)
            case "hardware":
                space.hardware = body["flavor"]
                space.sleep = body.get("sleepTimeSeconds", space.sleep)
                if space.up:
                    space.go(BUILDING)
                    space.moves_at = now + self.starting
            case "sleeptime" if not self.forgets_sleep_time:
                space.sleep = None if body["seconds"] == _NEVER else body["seconds"]
        return web.json_response(self._runtime(space))

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        """Replay what was written; the stream goes on as long as the Space is up, with an empty event now and then."""
        space = self._found(request)
        lines = space.log if request.match_info["which"] == "run" else ["#1 building", "#2 pip install failed"]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for line in lines:
            event = orjson.dumps({"data": f"{line}\n", "timestamp": "2026-01-01T00:00:00Z"})
            await response.write(b"data: " + event + b"\n\n")
        while space.up and not self._ended.is_set():
            await response.write(b"data:\n\n")
            await asyncio.sleep(0.05)
        return response

    # -- the apps ------------------------------------------------------------------------------------------------------

    async def _through_proxy(self, space: FakeSpace, request: web.Request) -> web.StreamResponse:
        self._tick()
        space.tokens.append(request.headers.get("Authorization", ""))
        if space.private and request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.Response(status=404, text="<html>Not Found</html>", content_type="text/html")
        if space.stage not in _SERVES:
            return web.Response(status=503, text="<html>The Space is not running</html>", content_type="text/html")
        if self.answers_instead is not None:
            status, text = self.answers_instead
            return web.Response(status=status, text=text)
        return await self._app(space, request)

    async def _app(self, space: FakeSpace, request: web.Request) -> web.StreamResponse:
        match request.method, request.path.strip("/").split("/"):
            case "GET", ["metrics" | "" | "health"]:
                return web.Response(text="app_requests 1\n")
            case "POST", ["gradio_api", "call", "predict"]:
                return self._join(space, orjson.loads(await request.read())["data"])
            case "GET", ["gradio_api", "call", "predict", event]:
                return await self._tell(space, event)
            case "POST", [""]:
                inputs = orjson.loads(await request.read())["inputs"]
                texts = inputs if isinstance(inputs, list) else [inputs]
                lost = await self._work(space, texts)
                return lost or web.json_response([{"label": answer_to(text)} for text in texts])
        return web.json_response({"detail": "Not Found"}, status=404)

    def _join(self, space: FakeSpace, data: list[Any]) -> web.Response:
        if self.queue_size is not None and len(space.queue) > self.queue_size:
            detail = f"Queue is full. Max size is {self.queue_size} and size is {self.queue_size}."
            return web.json_response({"detail": detail}, status=503)
        event = uuid4().hex
        space.queue[event] = data[0]
        return web.json_response({"event_id": event})

    async def _tell(self, space: FakeSpace, event: str) -> web.Response:
        text = space.queue.pop(event, None)
        if text is not None and (lost := await self._work(space, [text])):
            return lost
        said = b'event: error\ndata: "404: Not Found"\n\n'
        if text == "poison":
            said = b'event: error\ndata: {"error": "no such thing", "duration": 10, "title": "Error"}\n\n'
        elif text is not None:
            said = b"event: complete\ndata: " + orjson.dumps([{"label": answer_to(text)}]) + b"\n\n"
        return web.Response(body=said, content_type="text/event-stream")

    async def _work(self, space: FakeSpace, texts: list[str]) -> web.Response | None:
        space.asked += texts
        while self.holds and space.stage in _SERVES:
            await asyncio.sleep(0.01)
        if len(space.asked) == self.dies_after:
            space.go("RUNTIME_ERROR", "Exit code: 137. Reason: out of memory")
        if space.stage not in _SERVES:
            return web.Response(status=503, text="<html>The Space is not running</html>", content_type="text/html")
        return None


@contextmanager
def spaces_service() -> Iterator[SpacesService]:
    """Run the service; it ends with the block."""
    service = SpacesService()
    with service.running():
        yield service
