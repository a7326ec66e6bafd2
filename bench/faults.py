"""A tenth of all requests goes wrong, in ten ways: whether every answer is right at the end, and what that takes.

A run of the command line against a server in a process of its own. What goes wrong is drawn anew for each try of each
input, from a seed. `python -m bench.faults` prints the table: requests that the server saw, over those that a server
without faults would have seen; items discarded by the run, and outputs that are not what the server would have said;
and all that once more after `orchestrator retry` has been run until nothing is discarded any more.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
import struct
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from bench.served import said, serve, served, told
from tests.commands import Ended, Workplace, rows

ITEMS = 4_000
FAULTY = 0.1
LATENCY = 0.02
SETTINGS = {  # what the job's policy says, and how many items share a request
    "32 at once": ("concurrency=32", 1),
    "auto": ("", 1),
    "batches of 8": ("concurrency=8, batch_size=8", 8),
}
SEEDS = (1, 2, 3)
AIM = 1.15
RETRIES = 5  # `orchestrator retry`, at the most
FAULTS = ("500", "503", "429", "reset", "cut", "truncated", "NaN", "null", "error in a 200", "HTML")
_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: a close is a reset
_PAGE = "<html><head><title>Please stand by</title></head><body>We will be back soon.</body></html>"


def right(text: str) -> list[float]:
    """The one right answer: a vector, as feature-extraction gives it."""
    return [byte / 255 for byte in hashlib.sha256(text.encode()).digest()]


# -- the server --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Server:
    seed: int
    requests: int = 0
    tries: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    async def infer(self, request: web.Request) -> web.StreamResponse:
        inputs = (await request.json())["inputs"]
        self.requests += 1
        await asyncio.sleep(LATENCY)
        answer = [right(text) for text in inputs] if isinstance(inputs, list) else right(inputs)
        fault = self._drawn(orjson.dumps(inputs).decode())
        return said(answer) if fault is None else await _gone_wrong(request, fault, orjson.dumps(answer))

    def _drawn(self, inputs: str) -> str | None:
        """What goes wrong with this try, whenever it comes."""
        self.tries[inputs] += 1
        dice = random.Random(f"{self.seed} {self.tries[inputs]} {inputs}")
        if dice.random() >= FAULTY:
            return None
        fault = dice.choice(FAULTS)
        self.faults[fault] += 1
        return fault

    async def stats(self, _: web.Request) -> web.Response:
        return said({"requests": self.requests, "faults": dict(self.faults)})


async def _gone_wrong(request: web.Request, fault: str, answer: bytes) -> web.StreamResponse:  # noqa: PLR0911 - a table
    """Answer with that fault instead."""
    match fault:
        case "500":
            return said({"error": "CUDA error: an illegal memory access was encountered"}, 500)
        case "503":
            return web.Response(text="no healthy upstream", status=503)
        case "429":
            return web.Response(text="too many requests", status=429, headers={"Retry-After": "0.1"})
        case "reset":
            return _reset(request)
        case "cut":
            response = web.StreamResponse(headers={"Content-Length": str(len(answer))})
            await response.prepare(request)
            await response.write(answer[: len(answer) // 2])
            return _reset(request)
        case "truncated":  # and says that it is whole
            return _ok(answer[: len(answer) // 2])
        case "NaN" | "null":
            first, _, rest = answer.split(b",", 2)
            return _ok(b",".join((first, fault.encode(), rest)))
        case "error in a 200":
            return said({"error": "the model ran out of memory", "error_type": "internal"})
        case _:
            return web.Response(text=_PAGE, content_type="text/html")


def _ok(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


def _reset(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        request.transport.abort()
    return web.Response()  # which nobody gets


def main_of_server(seed: int) -> None:
    """Serve until stdin ends."""
    server, app = _Server(seed), web.Application(client_max_size=1 << 24)
    app.add_routes([web.post("/", server.infer), web.get("/stats", server.stats)])
    asyncio.run(serve(app))


# -- the client --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """What one run came to; `..._at_last` is after the retries."""

    faults: Counter[str]
    requests: int
    discarded: int
    wrong: int
    seconds: float
    requests_at_last: int
    wrong_at_last: int


def measure(policy: str, seed: int) -> Found:
    """One run, and its retries."""
    with tempfile.TemporaryDirectory() as folder, served("bench.faults", "serve", str(seed)) as url:
        place = Workplace(Path(folder), url)
        place.write_rows(rows(range(ITEMS)))
        report = _ended(place.run("run", place.job(policy=policy), "--json", seconds=600))
        seconds, discarded = report["seconds"], report["counts"]["discarded"]
        stats, wrong = told(f"{url}stats"), _wrong(place)
        retries = 0
        while report["counts"]["discarded"] and retries < RETRIES:
            retries += 1
            report = _ended(place.run("retry", "talk", "--json", seconds=600))
        return Found(
            Counter(stats["faults"]),
            stats["requests"],
            discarded,
            wrong - discarded,
            seconds,
            told(f"{url}stats")["requests"],
            _wrong(place),
        )


def _ended(ended: Ended) -> Any:
    """The report of a run in which every item was settled."""
    if ended.code not in {0, 3}:  # with 3, some were discarded
        sys.exit(f"the run ended with {ended.code}: {ended.err}")
    return ended.json


def _wrong(place: Workplace) -> int:
    """How many items have not, or not once, what the server would have said."""
    outputs = place.outputs()
    sound = {output["id"] for output in outputs if output["output"] == right(output["text"])}
    return ITEMS - len(sound) + len(outputs) - len({output["id"] for output in outputs})


def main() -> None:
    """Print one line for each setting and seed, and what went wrong."""
    print(
        f"{ITEMS:,} items, {FAULTY:.0%} of the requests go wrong, {LATENCY * 1000:.0f} ms; aim: {AIM} of the requests"
    )
    print(f"{'':32} the run{'':33} after retries")
    print(f"{'':12} {'seed':>4} {'faults':>7} {'requests':>9} {'ratio':>6} {'discarded':>9} {'wrong':>6}", end="")
    print(f" {'seconds':>8} {'requests':>9} {'ratio':>6} {'wrong':>6}")
    faults: Counter[str] = Counter()
    for name, (policy, together) in SETTINGS.items():
        for seed in SEEDS:
            found, needed = measure(policy, seed), ITEMS / together
            faults += found.faults
            print(
                f"{name:12} {seed:4} {found.faults.total():7} {found.requests:9,} {found.requests / needed:6.3f} "
                f"{found.discarded:9} {found.wrong:6} {found.seconds:8.1f} {found.requests_at_last:9,} "
                f"{found.requests_at_last / needed:6.3f} {found.wrong_at_last:6}",
                flush=True,
            )
    print("faults:", ", ".join(f"{fault} {count}" for fault, count in faults.most_common()))


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        main_of_server(int(sys.argv[2]))
    else:
        main()
