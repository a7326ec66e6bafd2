"""Run a command beside servers that stand in for those that the jobs over reviews ask, and end them with it.

    python jobs/demo/stand_in.py orchestrator run jobs/ask_server.py

On this machine it answers as a classifier in Hugging Face's shape, as a chat server in OpenAI's, as Hugging Face's
management API with one paused endpoint, `acme/batch-endpoint`, as Hugging Face Jobs, and as a paused Space with a
Gradio app, `acme/stars`. Behind all of them are the ratings of data/lexicon.json, no model: enough to see a job at work
before there is a server for it. `prepare.py` makes what the jobs read.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

try:
    from aiohttp import web
except ModuleNotFoundError:
    raise SystemExit("run this with the Python that orchestrator is installed in: it serves with aiohttp") from None

TOKEN = "stand-in"
ENDPOINT = "/v2/endpoint/acme/batch-endpoint"
LEXICON = Path("data/lexicon.json")
STARTUP = 2.0  # seconds; a real endpoint takes a minute or more
PRODUCTS = ("dvd player", "player", "camera", "phone", "router", "ipod", "speaker", "software", "diaper", "battery")


class StandIn:
    """The state that the stand-in servers share: word ratings, and the state of the endpoint."""

    def __init__(self, lexicon: dict[str, float]) -> None:
        self.lexicon = lexicon
        self.url = ""
        self.state = "paused"
        self.jobs = Jobs(self)
        self.space = Space(self)

    def app(self) -> web.Application:
        """All servers under one address."""
        app = web.Application(client_max_size=2**26, middlewares=[authorized])
        app.add_routes(
            [
                web.post("/", self.classify),
                web.post("/v1/chat/completions", self.chat),
                web.get("/v2/provider/acme", self.prices),
                web.get(ENDPOINT, self.show),
                web.put(ENDPOINT, self.show),
                web.post(ENDPOINT + "/{verb:resume|pause|scale-to-zero}", self.change),
                web.get("/data/health", self.health),
                web.post("/data", self.classify),
                web.post("/data/", self.classify),
                *self.jobs.routes(),
                *self.space.routes(),
            ]
        )
        return app

    def rating(self, text: str) -> float:
        """From 1 to 5, by the words that people found good or bad."""
        found = [self.lexicon[word] for word in re.findall(r"[a-z']+", text.lower()) if word in self.lexicon]
        return 3 + 2 * sum(found) / (4 + sum(map(abs, found)))

    async def classify(self, request: web.Request) -> web.Response:
        """Rate one text, or each of a list: the nearer a number of stars, the likelier it is."""
        inputs = (await request.json())["inputs"]
        texts = inputs if isinstance(inputs, list) else [inputs]
        answers = [self.labels(self.rating(str(text))) for text in texts]
        return web.json_response(answers if isinstance(inputs, list) else answers[0])

    @staticmethod
    def labels(rating: float) -> list[dict[str, Any]]:
        """Every number of stars with its share, the likeliest first."""
        nearness = {stars: 1 / (0.1 + abs(stars - rating)) for stars in range(1, 6)}
        shares = {stars: near / sum(nearness.values()) for stars, near in nearness.items()}
        best = sorted(shares, key=lambda stars: -shares[stars])
        return [{"label": f"{stars} star{'s' * (stars > 1)}", "score": shares[stars]} for stars in best]

    async def chat(self, request: web.Request) -> web.Response:
        """Name the product, the sentences that complain, and the stars."""
        text = (await request.json())["messages"][-1]["content"]
        facts = {
            "product": next((name for name in PRODUCTS if name in text.lower()), "unknown"),
            "complaints": [part for part in re.split(r"(?<=[.!?])\s+", text) if self.rating(part) < 2.5],
            "stars": round(self.rating(text)),
        }
        message = {"role": "assistant", "content": json.dumps(facts)}
        usage = {"prompt_tokens": len(text) // 4, "completion_tokens": len(message["content"]) // 4}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return web.json_response({"object": "chat.completion", "choices": [choice], "usage": usage})

    async def show(self, _request: web.Request) -> web.Response:
        """The endpoint as the management API describes it."""
        scaling = {"minReplica": 0, "maxReplica": 1, "scaleToZeroTimeout": 15}
        compute = {"accelerator": "gpu", "instanceType": "nvidia-l4", "instanceSize": "x1", "scaling": scaling}
        return web.json_response(
            {
                "name": "batch-endpoint",
                "type": "protected",
                "provider": {"vendor": "aws", "region": "us-east-1"},
                "compute": compute,
                "model": {"repository": "acme/stars", "task": "text-classification", "image": {"huggingface": {}}},
                "status": {
                    "state": self.state,
                    "message": "",
                    "readyReplica": int(self.state == "running"),
                    "targetReplica": int(self.state in {"initializing", "running"}),
                    "url": f"{self.url}/data" if self.state == "running" else None,
                },
            }
        )

    async def change(self, request: web.Request) -> web.Response:
        """Wake it, which takes a moment, or send it to sleep."""
        if request.match_info["verb"] == "resume":
            self.state = "initializing"
            asyncio.get_running_loop().call_later(STARTUP, self.run)
        else:
            self.state = "paused" if request.match_info["verb"] == "pause" else "scaledToZero"
        return await self.show(request)

    def run(self) -> None:
        """Finish starting, unless the endpoint was paused in the meantime."""
        if self.state == "initializing":
            self.state = "running"

    async def health(self, _request: web.Request) -> web.Response:
        """200 while it is awake."""
        return web.Response(status=200 if self.state == "running" else 503)

    async def prices(self, _request: web.Request) -> web.Response:
        """What the one kind of machine costs."""
        machine = {"accelerator": "gpu", "instanceType": "nvidia-l4", "instanceSize": "x1", "pricePerHour": 0.8}
        regions = [{"name": "us-east-1", "computes": [machine]}]
        return web.json_response({"vendors": [{"name": "aws", "regions": regions}]})


class Jobs:
    """Hugging Face Jobs: each answers as the chat server, from a moment after its creation until it is cancelled."""

    def __init__(self, servers: StandIn) -> None:
        self.servers = servers
        self.known: dict[str, dict[str, Any]] = {}

    def routes(self) -> list[web.RouteDef]:
        """The API, and the URLs of the jobs."""
        return [
            web.get("/api/jobs/hardware", self.hardware),
            web.post("/api/jobs/acme", self.create),
            web.get("/api/jobs/acme", self.list),
            web.get("/api/jobs/acme/{id}", self.show),
            web.post("/api/jobs/acme/{id}/cancel", self.cancel),
            web.get("/jobs/{id}/health", self.health),
            web.post("/jobs/{id}/v1/chat/completions", self.chat),
        ]

    def shown(self, job: dict[str, Any]) -> dict[str, Any]:
        """A job as the API describes it."""
        seconds = int((job["ended"] or time.time()) - job["created"])
        stage = "CANCELED" if job["ended"] else "RUNNING" if seconds >= STARTUP else "SCHEDULING"
        url = f"{self.servers.url}/jobs/{job['id']}"
        durations = {"schedulingSecs": 0, "runningSecs": seconds, "totalSecs": seconds}
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(job["created"]))
        status = {"stage": stage, "message": None, "exposeUrls": [url]}
        return {**job["spec"], "id": job["id"], "createdAt": created, "status": status, "durations": durations}

    async def hardware(self, _request: web.Request) -> web.Response:
        """What the one kind of machine costs."""
        return web.json_response([{"name": "l4x1", "unitCostUSD": 0.8 / 60, "unitLabel": "minute"}])

    async def create(self, request: web.Request) -> web.Response:
        """Run a job."""
        job = {"id": f"job-{len(self.known) + 1}", "spec": await request.json(), "created": time.time(), "ended": None}
        self.known[job["id"]] = job
        return web.json_response(self.shown(job))

    async def list(self, request: web.Request) -> web.Response:
        """The jobs with these labels and stages."""
        labels = [label.split("=", 1) for label in request.query.getall("label", [])]
        stages = request.query.getall("stage", [])
        jobs = [self.shown(job) for job in self.known.values()]
        matching = [job for job in jobs if all(job["labels"].get(name) == value for name, value in labels)]
        return web.json_response([job for job in matching if not stages or job["status"]["stage"] in stages])

    async def show(self, request: web.Request) -> web.Response:
        """One job."""
        return web.json_response(self.shown(self.known[request.match_info["id"]]))

    async def cancel(self, request: web.Request) -> web.Response:
        """End a job."""
        self.known[request.match_info["id"]]["ended"] = time.time()
        return await self.show(request)

    async def health(self, request: web.Request) -> web.Response:
        """200 while it is running."""
        running = self.shown(self.known[request.match_info["id"]])["status"]["stage"] == "RUNNING"
        return web.Response(status=200 if running else 503)

    async def chat(self, request: web.Request) -> web.Response:
        """Answer as the chat server does."""
        return await self.servers.chat(request)


class Space:
    """A Hugging Face Space with a Gradio app, whose function `predict` rates one text."""

    def __init__(self, servers: StandIn) -> None:
        self.servers = servers
        self.stage = "PAUSED"
        self.sleep: int | None = None
        self.queue: dict[str, str] = {}

    def routes(self) -> list[web.RouteDef]:
        """The API, and the app."""
        space = "/api/spaces/acme/stars"
        return [
            web.get("/api/spaces/hardware", self.servers.jobs.hardware),
            web.get(space, self.about),
            web.get(f"{space}/runtime", self.show),
            web.post(f"{space}/{{verb:pause|restart|sleeptime}}", self.change),
            web.get("/space/", self.health),
            web.post("/space/gradio_api/call/predict", self.join),
            web.get("/space/gradio_api/call/predict/{event}", self.tell),
        ]

    async def about(self, _request: web.Request) -> web.Response:
        """Answer with the Space, whose `host` is the address of its app."""
        return web.json_response(
            {"id": "acme/stars", "private": True, "sdk": "gradio", "host": f"{self.servers.url}/space"}
        )

    async def show(self, _request: web.Request) -> web.Response:
        """Its stage and hardware."""
        hardware = {"current": "l4x1" if self.stage == "RUNNING" else None, "requested": "l4x1"}
        return web.json_response({"stage": self.stage, "hardware": hardware, "gcTimeout": self.sleep})

    async def change(self, request: web.Request) -> web.Response:
        """Pause it, restart it, which takes a moment, or set its sleep time."""
        match request.match_info["verb"]:
            case "pause":
                self.stage = "PAUSED"
            case "restart":
                self.stage = "APP_STARTING"
                asyncio.get_running_loop().call_later(STARTUP, self.run)
            case _:
                self.sleep = (await request.json())["seconds"]
        return await self.show(request)

    def run(self) -> None:
        """Finish starting, unless it was paused in the meantime."""
        if self.stage == "APP_STARTING":
            self.stage = "RUNNING"

    async def health(self, _request: web.Request) -> web.Response:
        """200 while its app is running."""
        return web.Response(status=200 if self.stage == "RUNNING" else 503)

    async def join(self, request: web.Request) -> web.Response:
        """Take a text into the queue."""
        event = f"event-{len(self.queue)}"
        self.queue[event] = (await request.json())["data"][0]
        return web.json_response({"event_id": event})

    async def tell(self, request: web.Request) -> web.Response:
        """Answer a text with its stars, as an event."""
        stars = round(self.servers.rating(self.queue[request.match_info["event"]]))
        return web.Response(text=f"event: complete\ndata: {json.dumps([stars])}\n\n", content_type="text/event-stream")


@web.middleware
async def authorized(request: web.Request, handler: Any) -> web.StreamResponse:
    """Refuse who does not send the token; the chat server needs none, as most on one's own machine."""
    if not request.path.startswith("/v1/") and request.headers.get("Authorization") != f"Bearer {TOKEN}":
        return web.json_response({"error": "Unauthorized"}, status=401)
    response: web.StreamResponse = await handler(request)
    return response


async def main(command: list[str], lexicon: dict[str, float]) -> int:
    """Serve on a free port while the command runs; its exit code."""
    servers = StandIn(lexicon)
    runner = web.AppRunner(servers.app(), access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        servers.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        addresses = {"REVIEWS_URL": servers.url + "/", "CHAT_URL": servers.url}
        tokens = {"REVIEWS_TOKEN": TOKEN, "HF_TOKEN": TOKEN, "ORCHESTRATOR_HF_API_URL": f"{servers.url}/v2"}
        tokens["HF_ENDPOINT"] = servers.url
        child = await asyncio.create_subprocess_exec(*command, env=os.environ | addresses | tokens)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # a terminal sends it to the command, too, which pauses
        loop.add_signal_handler(signal.SIGTERM, child.terminate)
        return await child.wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    if not sys.argv[1:]:
        raise SystemExit(f"usage: {sys.argv[0]} COMMAND ..., such as: orchestrator run jobs/ask_server.py")
    if subprocess.run([sys.executable, str(Path(__file__).with_name("prepare.py"))], check=False).returncode:
        raise SystemExit(1)
    try:
        raise SystemExit(asyncio.run(main(sys.argv[1:], json.loads(LEXICON.read_text(encoding="utf-8")))))
    except FileNotFoundError as error:
        raise SystemExit(f"{sys.argv[1]}: no such command") from error
