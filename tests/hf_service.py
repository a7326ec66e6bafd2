"""Hugging Face Inference Endpoints on loopback: the management API under /v2, its endpoints under /data/{ns}/{name}.

It runs in a thread of the test process; children use it over HTTP, the test through the methods of `HfService`, which
may be called from any thread, and even after the service has ended. The behaviour of endpoints is in `hf_rules`.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from aiohttp import web

from tests.hf_rules import (
    DELETED,
    NAME,
    NOT_FOUND,
    UNAUTHORIZED,
    BadGateway,
    Clock,
    HfEndpoint,
    Refused,
    Script,
    Seen,
    answer_to,
    check_scaling,
    prices,
)
from tests.untraced import UntracedThread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

T = TypeVar("T")
CATALOG: list[dict[str, Any]] = [
    {
        "repoId": "org/chat",
        "modelName": "chat",
        "authorName": "org",
        "license": "Apache 2.0",
        "task": "text-generation",
        "createdAt": "2026-10-01T08:00:00.000Z",
        "recipes": [
            {"publicId": "sizzling-biryani-1", "accelerator": "gpu", "engineType": "vllm", "ggufFile": None},
            {"publicId": "artisanal-quinoa-2", "accelerator": "cpu", "engineType": "llamacpp", "ggufFile": "q4.gguf"},
        ],
    },
    {
        "repoId": "org/vectors",
        "modelName": "vectors",
        "authorName": "org",
        "license": "MIT",
        "task": "feature-extraction",
        "createdAt": "2026-10-01T08:00:00.000Z",
        "recipes": [{"publicId": "crispy-noodle-3", "accelerator": "gpu", "engineType": "tei", "revision": "abc"}],
    },
]
POLL = 0.005
MANAGE = "inference.endpoints.write"
INFER = "inference.endpoints.infer.write"
HTML = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
JSON_STRING = b'"upstream connect error"'


@dataclass(frozen=True, slots=True)
class Trouble:
    """An error in calls whose "METHOD /path" matches the pattern; by default in all management calls.

    A `fraction` of them is hit, at most `times`. `hang`: no answer until `calm`, then the right one. `after`: the call
    takes effect, but its answer is lost.
    """

    pattern: str = " /v2/"
    status: int = 503
    body: bytes = b'{"error":"Service Unavailable"}'
    retry_after: float | None = None
    hang: bool = False
    after: bool = False
    fraction: float = 1.0
    times: int | None = None

    def answer(self) -> web.Response:
        kind = "text/html" if self.body.startswith(b"<") else "application/json"
        headers = {} if self.retry_after is None else {"Retry-After": f"{self.retry_after:g}"}
        return web.Response(body=self.body, status=self.status, content_type=kind, headers=headers)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How models treat inputs: marks in a text give the status, or the seconds that it takes ("" is in every text).

    `hold_after`: so many requests reach the models from now on; later ones have to wait until this changes.
    """

    statuses: Mapping[str, int] = field(default_factory=dict)
    delays: Mapping[str, float] = field(default_factory=dict)
    hold_after: int | None = None


@dataclass(slots=True)
class Call:
    """One request, logged on arrival; `ours` means that it carried the token of the service.

    `status` is 0 until it is answered, and stays 0 if its caller leaves before that.
    """

    at: float
    method: str
    path: str
    ours: bool
    status: int = 0
    left: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class HfService:
    """The service as a test sees it. Endpoints are named without their namespace: there is only one."""

    def __init__(self, *, namespace: str, page_size: int | None, script: Script, seed: int) -> None:
        self.namespace = namespace
        self.token = "hf_fakeTokenOfTheTests"
        self.url = ""
        self._page_size = page_size
        self._script = script  # of endpoints created through the API
        self._random = random.Random(seed)
        self._clock = Clock()
        self._tokens: dict[str, frozenset[str]] = {self.token: frozenset({MANAGE, INFER})}
        self._endpoints: dict[str, HfEndpoint] = {}
        self._organizations: dict[str, frozenset[str] | None] = {}
        self._calls: list[Call] = []
        self._troubles: list[tuple[Trouble, list[Call]]] = []
        self._behaviour = Behaviour()
        self._admitted = 0
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._calm = asyncio.Event()
        self._released = asyncio.Event()

    # -- the control door ------------------------------------------------------------------------------------------

    def add(self, name: str, state: str = "paused", script: Script | None = None, **spec: Any) -> None:
        """Add an existing endpoint; `spec` is what create accepts in the API (`model={"task": ...}`)."""
        self._do(lambda: self._add(spec | {"name": name}, script or self._script, state))

    def organization(self, name: str, *endpoints: str, refuses: bool = False) -> None:
        """Add an organization of the account of the token, with some of the endpoints, or without billing."""
        self._do(lambda: self._organizations.update({name: None if refuses else frozenset(endpoints)}))

    def script(self, name: str, **changes: Any) -> None:
        """Change its behaviour from the next transition on."""

        def change(endpoint: HfEndpoint) -> None:
            endpoint.script = replace(endpoint.script, **changes)

        self._to(name, change)

    def pause_from_outside(self, name: str) -> None:
        """Pause it at once, as a user of the web page would."""
        self._to(name, lambda endpoint: endpoint.pause(0))

    def scale_to_zero(self, name: str) -> None:
        self._to(name, HfEndpoint.scale_to_zero)

    def fail(self, name: str, message: str) -> None:
        self._to(name, lambda endpoint: endpoint.end("failed", message))

    def lose_replica(self, name: str, seconds: float) -> None:
        """It reports running, but answers 503 for so long."""
        self._to(name, lambda endpoint: endpoint.lose_replica(seconds))

    def delete(self, name: str) -> None:
        """Delete it; only `endpoint` still sees it."""
        self._to(name, lambda endpoint: endpoint.end(DELETED, ""))

    def log(self, name: str, line: str) -> None:
        """Let the container write a line."""
        self._to(name, lambda endpoint: endpoint.lines.append((self._clock.now(), line)))

    def grant(self, token: str, *scopes: str) -> None:
        """Add a token with these permissions (`MANAGE`, `INFER`); any token may read."""
        self._do(lambda: self._tokens.update({token: frozenset(scopes)}))

    def revoke(self, token: str | None = None) -> None:
        """Make a token invalid from the next call on; by default that of the service."""
        self._do(lambda: self._tokens.pop(token or self.token))

    def trouble(self, *troubles: Trouble) -> None:
        """Cause this trouble from now on; the first match of a call counts."""
        self._do(lambda: self._troubles.extend((trouble, []) for trouble in troubles))

    def calm(self) -> None:
        """End all trouble; hanging calls are answered if their caller is still connected."""

        def change() -> None:
            self._troubles.clear()
            self._calm.set()
            self._calm = asyncio.Event()

        self._do(change)

    def behave(self, **changes: Any) -> None:
        """Change the models; settings not named return to their defaults, and held requests are released."""

        def change() -> None:
            self._behaviour, self._admitted = Behaviour(**changes), 0
            self._released.set()
            self._released = asyncio.Event()

        self._do(change)

    def jump(self, seconds: float) -> None:
        """Let this much time pass here, including on the bill."""

        def change() -> None:
            self._clock.skipped += seconds

        self._do(change)

    def endpoint(self, name: str) -> Seen:
        """Return its current state."""
        return self._to(name, HfEndpoint.seen)

    def calls(self, pattern: str = "") -> list[Call]:
        """Return every call so far whose "METHOD /path" matches the pattern, in order of arrival."""
        return self._do(lambda: [replace(call) for call in self._calls if re.search(pattern, str(call))])

    def wait_for_state(self, name: str, state: str, seconds: float = 120.0) -> Seen:
        """Wait until it is in that state, or has been in it since this was called."""
        begun = len(self.endpoint(name).states) - 1
        deadline = time.monotonic() + seconds
        while state not in (seen := self.endpoint(name)).states[begun:]:
            assert time.monotonic() < deadline, f"not {state} within {seconds} s: {seen}"
            time.sleep(POLL)
        return seen

    def _to(self, name: str, change: Callable[[HfEndpoint], T]) -> T:
        def act() -> T:
            endpoint = self._endpoints[name]
            endpoint.advance()
            return change(endpoint)

        return self._do(act)

    def _do(self, act: Callable[[], T]) -> T:
        """Run on the event loop of the service: all its state belongs to one thread."""
        if not self._loop.is_running():
            return act()

        async def acting() -> T:
            return act()

        return asyncio.run_coroutine_threadsafe(acting(), self._loop).result(20)

    def _add(self, spec: dict[str, Any], script: Script, state: str) -> HfEndpoint:
        name = spec["name"]
        url = f"{self.url}/data/{self.namespace}/{name}"
        self._endpoints[name] = HfEndpoint(spec, url, script, self._clock, state)
        return self._endpoints[name]

    # -- serving ---------------------------------------------------------------------------------------------------

    def _run(self, started: Future[str]) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(started))

    async def _serve(self, started: Future[str]) -> None:
        app = web.Application(middlewares=[self._logged], client_max_size=64_000_000)
        app.add_routes(self._routes())
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
            started.set_result(f"http://127.0.0.1:{runner.addresses[0][1]}")
            await self._ended.wait()
        finally:
            await runner.cleanup()

    def _routes(self) -> list[web.RouteDef]:
        one = "/v2/endpoint/{namespace}/{name}"
        return [
            web.get("/v2/endpoint/{namespace}", self._list),
            web.post("/v2/endpoint/{namespace}", self._create),
            web.get(one, self._get, allow_head=False),
            web.put(one, self._update),
            web.delete(one, self._delete),
            web.post(one + "/{verb:pause|resume|scale-to-zero}", self._command),
            web.get(one + "/logs", self._logs),
            web.get(one + "/open-metrics", self._metrics),
            web.get("/v2/provider/{namespace}", self._prices),
            web.get("/catalog/list", self._catalog),
            web.post("/catalog/{kind:model|recipe}/{which:.+}/deploy", self._deploy),
            web.get("/api/whoami-v2", self._whoami),  # the API of the hub
            web.route("*", "/data/{namespace}/{name}{route:.*}", self._data),
        ]

    @web.middleware
    async def _logged(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        ours = request.headers.get("Authorization") == f"Bearer {self.token}"
        call = Call(self._clock.now(), request.method, request.path, ours)
        self._calls.append(call)
        try:
            response = await self._troubled(request, handler, call)
        except asyncio.CancelledError:
            call.left = True
            raise
        call.status = response.status
        return response

    async def _troubled(self, request: web.Request, handler: Handler, call: Call) -> web.StreamResponse:
        trouble = self._hit(call)
        if trouble is None:
            return await self._answered(request, handler)
        answer = await self._answered(request, handler) if trouble.after else None
        if not trouble.hang:
            return trouble.answer()
        await self._calm.wait()
        return answer or await self._answered(request, handler)

    def _hit(self, call: Call) -> Trouble | None:
        for trouble, hits in self._troubles:
            left = trouble.times is None or len(hits) < trouble.times
            if left and re.search(trouble.pattern, str(call)) and self._random.random() < trouble.fraction:
                hits.append(call)
                return trouble
        return None

    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._authorize(request)
            return await handler(request)
        except BadGateway as refused:
            return web.Response(body=HTML, status=refused.status, content_type="text/html")
        except Refused as refused:
            return _json(refused.body, refused.status)
        except web.HTTPException as error:
            return _json({"error": error.reason}, error.status)

    def _authorize(self, request: web.Request) -> None:
        """Check the token on every route, including /health, before anything is woken."""
        data = request.path.startswith("/data/")
        namespace = request.match_info.get("namespace", self.namespace)
        if namespace != self.namespace and self._organizations.get(namespace, frozenset()) is None:
            raise Refused(*UNAUTHORIZED)
        if namespace not in {self.namespace, *self._organizations}:
            raise Refused(*NOT_FOUND)
        if data and self._found(request).spec["type"] == "public":
            return
        scopes = self._tokens.get(request.headers.get("Authorization", "").removeprefix("Bearer "))
        if scopes is None:
            raise Refused(*UNAUTHORIZED)
        needed = INFER if data else MANAGE
        if (data or request.method != "GET") and needed not in scopes:
            raise Refused(403, f"Forbidden: missing permissions: {needed}", "FORBIDDEN")

    def _found(self, request: web.Request) -> HfEndpoint:
        endpoint = self._endpoints.get(request.match_info["name"])
        if endpoint is None or endpoint.state == DELETED:
            raise Refused(*NOT_FOUND)
        endpoint.advance()
        return endpoint

    # -- the management API ----------------------------------------------------------------------------------------

    async def _list(self, request: web.Request) -> web.Response:
        elsewhere = frozenset[str]().union(*(names for names in self._organizations.values() if names))
        theirs = self._organizations.get(request.match_info["namespace"])
        there = [
            endpoint
            for name, endpoint in self._endpoints.items()
            if endpoint.state != DELETED and (name not in elsewhere if theirs is None else name in theirs)
        ]
        for endpoint in there:
            endpoint.advance()
        first = int(request.query.get("cursor", 0))
        end = first + (self._page_size or len(there))
        following = str(end) if end < len(there) else None
        return _json({"items": [endpoint.document() for endpoint in there[first:end]], "nextCursor": following})

    async def _create(self, request: web.Request) -> web.Response:
        spec = await request.json()
        missing = {"name", "type", "provider", "compute", "model"} - spec.keys()
        if missing or not NAME.fullmatch(spec["name"]):
            raise Refused(400, f"Bad Request: invalid name, or missing fields: {', '.join(sorted(missing))}")
        check_scaling(spec)
        old = self._endpoints.get(spec["name"])
        if old is not None and old.state != DELETED:
            raise Refused(409, f"Conflict: endpoint {spec['name']} already exists")
        return _json(self._add(spec, self._script, "pending").document())

    async def _catalog(self, request: web.Request) -> web.Response:
        wanted = request.query
        found = [
            model
            for model in CATALOG
            if wanted.get("search", "") in model["repoId"] and wanted.get("task", model["task"]) == model["task"]
            if any(wanted.get("engine", one["engineType"]) == one["engineType"] for one in model["recipes"])
        ]
        return _json({"items": found[: int(wanted.get("limit", len(found)))]})

    async def _deploy(self, request: web.Request) -> web.Response:
        asked, which = await request.json(), request.match_info["which"]
        recipes = [
            (model, recipe)
            for model in CATALOG
            for recipe in model["recipes"]
            if which == (model["repoId"] if request.match_info["kind"] == "model" else recipe["publicId"])
            if asked.get("accelerator", recipe["accelerator"]) == recipe["accelerator"]
            if asked.get("ggufFile", recipe.get("ggufFile")) == recipe.get("ggufFile")
        ]
        name = asked.get("config", {}).get("name", "random-name-abc")
        if not recipes or asked["namespace"] != self.namespace:
            raise Refused(*NOT_FOUND)
        if (old := self._endpoints.get(name)) is not None and old.state != DELETED:
            raise Refused(409, f"Conflict: endpoint {name} already exists")
        (model, recipe), *_ = recipes
        spec = {
            "name": name,
            "type": "authenticated",
            "provider": {"vendor": "aws", "region": "us-east-1"},
            "compute": {
                "accelerator": recipe["accelerator"],
                "instanceType": "nvidia-l4",
                "instanceSize": "x1",
                "scaling": {"minReplica": 1, "maxReplica": 2, "scaleToZeroTimeout": None},
            },
            "model": {"repository": model["repoId"], "task": model["task"], "image": {recipe["engineType"]: {}}},
        }
        return _json({"endpoint": self._add(spec, self._script, "pending").document()})

    async def _get(self, request: web.Request) -> web.Response:
        return _json(self._found(request).document())

    async def _update(self, request: web.Request) -> web.Response:
        changes = await request.json()
        endpoint = self._found(request)
        endpoint.update(changes)
        return _json(endpoint.document())

    async def _delete(self, request: web.Request) -> web.Response:
        self._found(request).end(DELETED, "")
        return _json({})

    async def _command(self, request: web.Request) -> web.Response:
        endpoint = self._found(request)
        match request.match_info["verb"]:
            case "pause":
                endpoint.pause()
            case "resume":
                endpoint.resume()
            case _:
                endpoint.scale_to_zero()
        return _json(endpoint.document())

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        """Return the lines of the only replica, "0"; with `follow` also later ones, until the caller leaves."""
        endpoint = self._found(request)
        lines = endpoint.lines if request.query.get("replica", "0") == "0" else []
        sent = max(0, len(lines) - int(request.query.get("tail", len(lines))))
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        while True:
            new, sent = lines[sent:], len(lines)
            for at, line in new:
                await response.write(f"- {self._clock.text(at)} {line}\n".encode())
            if request.query.get("follow") != "true":
                return response
            await asyncio.sleep(POLL)
            endpoint.advance()

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(text=self._found(request).metrics())

    async def _prices(self, _request: web.Request) -> web.Response:
        return _json(prices())

    async def _whoami(self, _request: web.Request) -> web.Response:
        organizations = [{"type": "org", "name": name} for name in self._organizations]
        return _json({"type": "user", "name": self.namespace, "orgs": organizations})

    # -- the data plane --------------------------------------------------------------------------------------------

    async def _data(self, request: web.Request) -> web.Response:
        endpoint = self._found(request)
        status = 500
        try:
            response = await self._routed(endpoint, request)
            status = response.status
        except Refused as refused:
            status = refused.status
            raise
        finally:
            endpoint.statuses[status] += 1
        return response

    async def _routed(self, endpoint: HfEndpoint, request: web.Request) -> web.Response:
        body = await request.read()
        await _admitted(endpoint, request)
        match request.method, request.match_info["route"].strip("/"):
            case "GET", "" | "health":
                return web.Response(text="Ok")
            case "POST", "":
                return await self._infer(endpoint, body)
        raise Refused(404, "Not Found")

    async def _infer(self, endpoint: HfEndpoint, body: bytes) -> web.Response:
        """Return a list with one answer per input, even for an input that is not a list, as the toolkit does."""
        try:
            inputs = orjson.loads(body)["inputs"]
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(400, f"Body needs to provide a inputs key, received: {body[:100]!r}") from error
        texts = [_text(value) for value in (inputs if isinstance(inputs, list) else [inputs])]
        behaviour = self._behaviour
        self._admitted += 1
        with endpoint.serving(texts):
            if behaviour.hold_after is not None and self._admitted > behaviour.hold_after:
                await self._released.wait()
            await asyncio.sleep(max((s for mark, s in behaviour.delays.items() if mark in " ".join(texts)), default=0))
            endpoint.advance()
            endpoint.admit()  # the caller is told what happened to the request meanwhile
            for mark, status in behaviour.statuses.items():
                if any(mark in text for text in texts):
                    raise Refused(status, f"this input is {mark}")
            endpoint.answered.update(texts)
        return _json([answer_to(text, endpoint.spec["model"]["task"]) for text in texts])


async def _admitted(endpoint: HfEndpoint, request: web.Request) -> None:
    """Return when the endpoint accepts the request; a request with a wait time is held during a start."""
    timeouts = time.monotonic() + float(request.headers.get("X-Scale-Up-Timeout", 0))
    while True:
        endpoint.advance()
        try:
            return endpoint.admit()
        except Refused as refused:
            if refused.status != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() >= timeouts:
                raise
        await asyncio.sleep(POLL)


def _text(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")


@contextmanager
def hf_service(
    *, namespace: str = "acme", page_size: int | None = None, script: Script | None = None, seed: int = 0
) -> Iterator[HfService]:
    """Start the service; it ends with the block, even with open connections. `script` is the default script."""
    service = HfService(namespace=namespace, page_size=page_size, script=script or Script(), seed=seed)
    started: Future[str] = Future()
    thread = UntracedThread(target=service._run, args=[started], name="hf-service", daemon=True)
    thread.start()
    try:
        service.url = started.result(20)
        yield service
    finally:
        service._loop.call_soon_threadsafe(service._ended.set)
        thread.join(20)
