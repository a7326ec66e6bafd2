"""A real inference server in its own process, of the Hugging Face shape, and of OpenAI's for chats.

It records every request by its input, which is the last message of a chat.

The input decides the answer: `poison` is refused (400), `flaky` is refused twice (503), `drop` has its connection cut
once, `hang` gets no answer once, `garbled` gets an answer that is not JSON. PUT /control changes the rest: see
`Behaviour`.
"""

from __future__ import annotations

import asyncio
import http.client
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE = 120.0  # seconds for any event, however busy the machine
TURNED_AWAY = 2  # how often a flaky input is answered 503
POLL = 0.02


@dataclass(slots=True)
class Behaviour:
    """How the server treats every request. `hold_after` requests are answered, later ones have to wait."""

    latency: float = 0.0
    status: int = 200
    token: str | None = None
    hold_after: int | None = None
    padding: int = 0
    writing: float = 0.0  # seconds from the first part of a chat's answer until the last one


@dataclass(slots=True)
class Stats:
    """What the server has received since it was reset."""

    requests: int = 0
    in_flight: int = 0
    peak: int = 0
    by_input: dict[str, int] = field(default_factory=dict)

    @property
    def asked(self) -> set[str]:
        return set(self.by_input)

    @property
    def duplicates(self) -> int:
        return sum(self.by_input.values()) - len(self.by_input)


def answer_to(text: str) -> str:
    """Return the one right answer."""
    return text[::-1]


class InferenceServer:
    """The server as a test sees it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}/"

    def stats(self) -> Stats:
        return Stats(**orjson.loads(self._call("GET", "/stats")))

    def reset(self) -> None:
        """Forget everything; hanging requests are released."""
        self._call("POST", "/reset")

    def behave(self, **changes: object) -> None:
        """Change the behaviour; settings not named return to their defaults, and held requests are released or kept."""
        self._call("PUT", "/control", orjson.dumps(changes))

    def wait(self, happened: Callable[[Stats], bool], seconds: float = DEADLINE) -> Stats:
        """Poll until the condition is true."""
        deadline = time.monotonic() + seconds
        while not happened(stats := self.stats()):
            assert time.monotonic() < deadline, f"did not happen within {seconds} s; the server has seen {stats}"
            time.sleep(POLL)
        return stats

    def quiet(self) -> Stats:
        """Return the statistics once no request is in flight."""
        before = self.wait(lambda stats: not stats.in_flight)
        while (stats := self.wait(lambda stats: not stats.in_flight)).requests != before.requests:
            before = stats
        return stats

    def _call(self, method: str, path: str, body: bytes | None = None) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            assert response.status == 200
            return response.read()
        finally:
            connection.close()


@contextmanager
def inference_server() -> Iterator[InferenceServer]:
    """Start the server; it ends with the block, or with this process."""
    command = [sys.executable, "-m", "tests.servers"]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield InferenceServer(int(process.stdout.readline()))
        finally:
            process.stdin.close()
            try:
                process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                process.kill()


class _Server:
    def __init__(self) -> None:
        self.behaviour = Behaviour()
        self.stats = Stats()
        self.seen: Counter[str] = Counter()
        self.gate = asyncio.Event()

    async def infer(self, request: web.Request) -> web.StreamResponse:
        inputs = (await request.json())["inputs"]
        texts = inputs if isinstance(inputs, list) else [inputs]
        if (failure := await self._failure(request, texts)) is not None:
            return failure
        said = [{"said": answer_to(text), "pad": "x" * self.behaviour.padding} for text in texts]
        return _json(said if isinstance(inputs, list) else said[0])

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        text = body["messages"][-1]["content"]
        if (failure := await self._failure(request, [text])) is not None:
            return failure
        message = {"role": "assistant", "content": answer_to(text) + "x" * self.behaviour.padding}
        if body.get("stream"):
            return await self._in_parts(request, message["content"])
        return _json({
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
            "usage": {"prompt_tokens": len(text), "completion_tokens": len(text), "total_tokens": 2 * len(text)},
        })  # fmt: skip

    async def _in_parts(self, request: web.Request, text: str) -> web.StreamResponse:
        """Answer as OpenAI does: a role, the text in two parts, how it ends, and the tokens."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        deltas = [{"role": "assistant", "content": ""}, {"content": text[:1]}, {"content": text[1:]}, {}]
        for delta in deltas:
            how = None if delta else "stop"
            choices = [{"index": 0, "delta": delta, "finish_reason": how}]
            await response.write(b"data: %b\n\n" % orjson.dumps({"id": "chatcmpl-1", "choices": choices}))
            if delta.get("content"):
                await asyncio.sleep(self.behaviour.writing / 2)
        usage = {"prompt_tokens": len(text), "completion_tokens": len(text), "total_tokens": 2 * len(text)}
        await response.write(b"data: %b\n\n" % orjson.dumps({"id": "chatcmpl-1", "choices": [], "usage": usage}))
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _failure(self, request: web.Request, texts: list[str]) -> web.Response | None:
        """Count the request, hold it if it is to be held, and return the answer unless it is the right one."""
        stats, behaviour, gate = self.stats, self.behaviour, self.gate
        self.seen.update(texts)
        stats.requests += 1
        stats.in_flight += 1
        stats.peak = max(stats.peak, stats.in_flight)
        try:
            if behaviour.hold_after is not None and stats.requests > behaviour.hold_after:
                await gate.wait()
            if behaviour.latency:
                await asyncio.sleep(behaviour.latency)
            return await self._refused(request, texts, gate)
        finally:
            stats.in_flight -= 1

    async def _refused(self, request: web.Request, texts: list[str], gate: asyncio.Event) -> web.Response | None:
        together = " ".join(texts)
        times = self.seen[texts[0]]
        if self.behaviour.token and request.headers.get("Authorization") != f"Bearer {self.behaviour.token}":
            return _json({"error": "who are you?"}, 401)
        if self.behaviour.status != 200:
            return _json({"error": "as you were told"}, self.behaviour.status)
        if "poison" in together:
            return _json({"error": "this input is poison"}, 400)
        if "flaky" in together and times <= TURNED_AWAY:
            return _json({"error": "busy, come again"}, 503)
        if "garbled" in together:
            return web.Response(body=b"<html>", content_type="application/json")
        if "drop" in together and times == 1 and request.transport is not None:
            request.transport.abort()
        if "hang" in together and times == 1:
            await gate.wait()
        return None

    async def control(self, request: web.Request) -> web.Response:
        self.behaviour = Behaviour(**await request.json())
        held, self.gate = self.gate, asyncio.Event()
        held.set()
        return _json({})

    async def reset(self, _request: web.Request) -> web.Response:
        self.gate.set()
        self.behaviour, self.stats, self.seen, self.gate = Behaviour(), Stats(), Counter(), asyncio.Event()
        return _json({})

    async def show(self, _request: web.Request) -> web.Response:
        return _json(asdict(self.stats) | {"by_input": dict(self.seen)})


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")


async def _main() -> None:
    server = _Server()
    app = web.Application(client_max_size=64_000_000)
    app.add_routes(
        [
            web.post("/", server.infer),
            web.post("/v1/chat/completions", server.chat),
            web.get("/stats", server.show),
            web.put("/control", server.control),
            web.post("/reset", server.reset),
        ]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)  # ends when the process that started us closes it, or ends
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(_main())
