"""Hugging Face Jobs on loopback: the API under /api/jobs, and behind each job's URL a server that reverses text.

It runs in a thread of the test process. Source of the protocol: `huggingface_hub` 2.4, which a test drives against it.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import ClientSession, web

from tests.provider_service import ProviderService
from tests.servers import answer_to

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SCHEDULING, RUNNING, COMPLETED, CANCELED, ERROR = "SCHEDULING", "RUNNING", "COMPLETED", "CANCELED", "ERROR"
_ALIVE = (SCHEDULING, RUNNING)
_HARDWARE = [
    {"name": "cpu-basic", "prettyName": "CPU Basic", "cpu": "2 vCPU", "ram": "16 GB", "unitCostUSD": 0.000167},
    {"name": "l4x1", "prettyName": "Nvidia L4", "cpu": "8 vCPU", "ram": "30 GB", "unitCostUSD": 0.8 / 60},
]


@dataclass(slots=True)
class FakeJob:
    """A job. `ends_at`: when its timeout is up, on the monotonic clock."""

    id: str
    namespace: str
    spec: dict[str, Any]
    created_at: float
    ends_at: float
    stage: str = SCHEDULING
    message: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    url: str = ""
    asked: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=lambda: ["===== Job started at 2026-01-01 00:00:00 =====", "loading"])

    @property
    def billed(self) -> float:
        """Seconds that cost money so far."""
        return (self.ended_at or time.monotonic()) - self.created_at

    @property
    def alive(self) -> bool:
        return self.stage in _ALIVE


class JobsService(ProviderService):
    """The service as a test sees it. Its methods may be called from any thread."""

    def __init__(self, page_size: int) -> None:
        super().__init__()
        self.namespace = "acme"
        self.token = "hf_fakeTokenOfTheTests"
        self.jobs: dict[str, FakeJob] = {}
        self.scheduling = 0.02  # seconds until a job runs
        self.stuck_after: int | None = None  # jobs: later ones wait for their hardware for ever
        self.fails: str | None = None  # the message with which new jobs end instead of running
        self.times_out_after: int | None = None  # so many requests to a job
        self.lose_answers = 0  # so many creations take effect, but their answer is lost
        self.busy: list[tuple[int, bool, str]] = []  # for the next creations: status, whether it succeeds, Retry-After
        self.refuses_after: int | None = None  # jobs: later creations are refused
        self.hides_prices = 0  # so many questions for the hardware are answered 503
        self.lists_nothing = 0  # so many lists of jobs are not up to date: they are empty
        self.behind: str | None = None  # the URL of a real server, which answers in place of every job
        self._page_size = page_size

    def alive(self) -> list[FakeJob]:
        return [job for job in self.jobs.values() if job.alive]

    def end(self, job: FakeJob, stage: str, message: str | None = None) -> None:
        """End a job as if by itself."""
        job.stage, job.message, job.ended_at = stage, message, time.monotonic()

    def add(self, **labels: str) -> FakeJob:
        """Add a running job of somebody else."""
        spec = {"dockerImage": "python:3.12", "command": ["sleep"], "flavor": "cpu-basic", "labels": labels}
        return asyncio.run_coroutine_threadsafe(self._create(self.namespace, spec), self._loop).result()

    # -- the API -------------------------------------------------------------------------------------------------------

    async def _create(self, namespace: str, spec: dict[str, Any]) -> FakeJob:
        now = time.monotonic()
        job = FakeJob(f"{len(self.jobs):024x}", namespace, spec, now, now + spec.get("timeoutSeconds", 1800))
        self.jobs[job.id] = job
        if spec.get("expose", {}).get("ports"):
            proxied = web.Application()
            proxied.router.add_route("*", "/{path:.*}", partial(self._through_proxy, job))
            job.url = await self._serve(proxied)
        return job

    def _tick(self) -> None:
        now = time.monotonic()
        for job in self.jobs.values():
            stuck = self.stuck_after is not None and int(job.id, 16) >= self.stuck_after
            if job.stage == SCHEDULING and not stuck and now >= job.created_at + self.scheduling:
                job.stage, job.started_at = RUNNING, now
                if self.fails is not None:
                    self.end(job, ERROR, self.fails)
            if job.alive and now >= job.ends_at:
                self.end(job, ERROR, "Job timeout")

    def _shown(self, job: FakeJob) -> dict[str, object]:
        until = job.ended_at or time.monotonic()
        return {
            "id": job.id,
            "createdAt": f"2026-01-01T00:00:00.{int(job.id, 16):06d}Z",
            "dockerImage": job.spec.get("dockerImage"),
            "command": job.spec.get("command"),
            "environment": job.spec.get("environment"),
            "secrets": dict.fromkeys(job.spec.get("secrets", {}), "(encrypted)"),
            "flavor": job.spec.get("flavor"),
            "labels": job.spec.get("labels"),
            "status": {"stage": job.stage, "message": job.message, "exposeUrls": [job.url] if job.url else None},
            "durations": {
                "schedulingSecs": 0,
                "runningSecs": None if job.started_at is None else int(until - job.started_at),
                "totalSecs": int(until - job.created_at),
            },
            "owner": {"id": "1", "name": job.namespace, "type": "user"},
        }

    @web.middleware
    async def _admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.calls.append(f"{request.method} {request.path}")
        while self.hangs:
            await asyncio.sleep(0.01)
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"error": "Invalid credentials in Authorization header"}, status=401)
        self._tick()
        return await handler(request)

    def _application(self) -> web.Application:
        api = web.Application(middlewares=[self._admit])
        api.router.add_get("/api/whoami-v2", self._whoami)
        api.router.add_get("/endpoint/{namespace}", self._no_endpoints)
        api.router.add_get("/provider/{namespace}", self._no_endpoints)
        api.router.add_get("/api/jobs/hardware", self._hardware)
        api.router.add_post("/api/jobs/{namespace}", self._run_job)
        api.router.add_get("/api/jobs/{namespace}", self._list)
        api.router.add_get("/api/jobs/{namespace}/{id}", self._inspect)
        api.router.add_post("/api/jobs/{namespace}/{id}/cancel", self._cancel)
        api.router.add_get("/api/jobs/{namespace}/{id}/logs", self._logs)
        api.router.add_get("/api/jobs/{namespace}/{id}/metrics", self._metrics)
        return api

    async def _whoami(self, _request: web.Request) -> web.Response:
        return web.json_response({"name": self.namespace, "type": "user", "orgs": []})

    async def _no_endpoints(self, _request: web.Request) -> web.Response:
        return web.json_response({"items": [], "vendors": []})

    async def _hardware(self, _request: web.Request) -> web.Response:
        if self.hides_prices:
            self.hides_prices -= 1
            return web.json_response({"error": "busy"}, status=503)
        units = {"unitCostMicroUSD": 1, "unitLabel": "minute"}
        return web.json_response([offer | units for offer in _HARDWARE])

    async def _run_job(self, request: web.Request) -> web.Response:
        if self.refuses_after is not None and len(self.jobs) >= self.refuses_after:
            return web.json_response({"error": "no more jobs for this account"}, status=400)
        status, succeeds, seconds = self.busy.pop(0) if self.busy else (200, True, "")
        if not succeeds:
            return _busy(status, seconds)
        job = await self._create(request.match_info["namespace"], orjson.loads(await request.read()))
        if status != 200:  # a gateway gave up on a creation that succeeds
            return _busy(status, seconds)
        if self.lose_answers:
            self.lose_answers -= 1
            assert request.transport is not None
            request.transport.close()
        return web.json_response(self._shown(job))

    async def _inspect(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            return web.json_response({"error": "Job not found"}, status=404)
        return web.json_response(self._shown(job))

    async def _cancel(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["id"])
        if job is None or not job.alive:
            return web.json_response({"error": "Job is not running"}, status=400)
        self.end(job, CANCELED)
        return web.json_response(self._shown(job))

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        """Replay what was written; the stream goes on as long as the job runs, with a comment now and then."""
        job, tail = self.jobs[request.match_info["id"]], int(request.query.get("tail", "1000"))
        return await self._stream(request, job, [{"data": line} for line in job.log[max(0, len(job.log) - tail) :]])

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        job = self.jobs[request.match_info["id"]]
        if not job.alive:
            return web.json_response({"error": "Job is not running"}, status=406)
        gpus = {"d901cd7f": {"utilization": 97, "memory_used_bytes": 20_000, "memory_total_bytes": 22_836}}
        figures = {"cpu_usage_pct": 12, "cpu_millicores": 3500, "memory_used_bytes": 1417216, "gpus": gpus}
        return await self._stream(request, job, [figures])

    async def _stream(self, request: web.Request, job: FakeJob, events: list[dict[str, Any]]) -> web.StreamResponse:
        """Send server-sent events, as the service does."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            await response.write(b"data: " + orjson.dumps(event) + b"\n\n")
        while job.alive and not self._ended.is_set():
            await response.write(b": keep-alive\n\n")
            await asyncio.sleep(0.05)
        return response

    async def _list(self, request: web.Request) -> web.Response:
        labels = [tuple(label.split("=", 1)) for label in request.query.getall("label", [])]
        stages = request.query.getall("stage", [])
        found = [
            job
            for job in reversed(self.jobs.values())
            if not self.lists_nothing
            and all(job.spec.get("labels", {}).get(key) == value for key, value in labels)
            and (not stages or job.stage in stages)
        ]
        self.lists_nothing = max(self.lists_nothing - 1, 0)
        begin = int(request.query.get("cursor", "0"))
        page, rest = found[begin : begin + self._page_size], found[begin + self._page_size :]
        following = request.url.update_query(cursor=str(begin + self._page_size))
        headers = {"Link": f'<{following}>; rel="next"'} if rest else {}
        return web.json_response([self._shown(job) for job in page], headers=headers)

    async def _through_proxy(self, job: FakeJob, request: web.Request) -> web.StreamResponse:
        self._tick()
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.Response(status=401, text="Unauthorized")
        if job.stage != RUNNING:
            return web.Response(status=404, text="<html>Not Found</html>", content_type="text/html")
        if self.behind is not None:
            return await self._forward(request, self.behind)
        if request.method == "GET":
            return web.Response(status=200 if request.path == "/health" else 404)
        inputs = orjson.loads(await request.read())["inputs"]
        texts = inputs if isinstance(inputs, list) else [inputs]
        job.asked += texts
        while self.holds and job.alive:
            await asyncio.sleep(0.01)
        if not job.alive:
            return web.Response(status=502, text="<html>Bad Gateway</html>", content_type="text/html")
        if len(job.asked) == self.times_out_after:
            self.end(job, ERROR, "Job timeout")
        return web.json_response([{"label": answer_to(text)} for text in texts])

    @staticmethod
    async def _forward(request: web.Request, url: str) -> web.Response:
        """Pass a request on without the token of the Hub, as far as is known."""
        headers = {name: value for name, value in request.headers.items() if name not in {"Authorization", "Host"}}
        async with (
            ClientSession() as session,
            session.request(request.method, url + request.path, headers=headers, data=await request.read()) as answer,
        ):
            return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)


def _busy(status: int, retry_after: str) -> web.Response:
    headers = {"Retry-After": retry_after} if retry_after else {}
    return web.json_response({"error": "too many at once"}, status=status, headers=headers)


@contextmanager
def jobs_service(page_size: int = 20) -> Iterator[JobsService]:
    """Run the service; it ends with the block."""
    service = JobsService(page_size)
    with service.running():
        yield service
