"""Run a command beside servers that stand in for those that the jobs over reviews ask, and end them with it.

    python jobs/demo/stand_in.py orchestrator run jobs/ask_server.py

On this machine it answers as a classifier in Hugging Face's shape, as a chat server in OpenAI's, and as Hugging Face's
management API with one paused endpoint, `acme/batch-endpoint`. Behind all three are the ratings of data/lexicon.json,
no model: enough to see a job at work before there is a server for it. `prepare.py` makes what the jobs read.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
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

    def app(self) -> web.Application:
        """All three servers under one address."""
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
