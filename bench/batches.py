"""What several items in one request gain, and how little of it is padding.

The server is a process of its own which works on one request after the other: so long for the request, and so long for
each padded token (as many as the longest input has, for each). `python -m bench.batches` prints two tables: items per
second with one item a request, with `batch_size="auto"` and with the best of some fixed sizes; and the padded tokens
that were wasted on a corpus of mixed lengths, as batches came and unsorted.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from aiohttp import web

from bench.served import said, serve, served, told
from tests.commands import Workplace

ITEMS = 12_000
FEW = 1_500  # for the slow ones
COSTS = {"20 ms a request, 10 us a token": (0.02, 0.00001), "5 ms, 20 us": (0.005, 0.00002)}
FIXED = (8, 32, 128)
SIZE = 32  # for the padding
WORD = 5  # bytes, and a token of the server's


def main_of_server(per_request: float, per_token: float) -> None:
    """Serve until stdin ends."""
    gpu = asyncio.Lock()
    tokens = {"real": 0, "padded": 0, "requests": 0}

    async def infer(request: web.Request) -> web.Response:
        inputs = (await request.json())["inputs"]
        texts = inputs if isinstance(inputs, list) else [inputs]
        lengths = [len(text) // WORD for text in texts]
        tokens["real"] += sum(lengths)
        tokens["padded"] += max(lengths) * len(lengths)
        tokens["requests"] += 1
        async with gpu:
            await asyncio.sleep(per_request + per_token * max(lengths) * len(lengths))
        answers = [[float(length)] for length in lengths]
        return said(answers if isinstance(inputs, list) else answers[0])

    async def stats(_: web.Request) -> web.Response:
        return said(tokens)

    app = web.Application(client_max_size=1 << 26)
    app.add_routes([web.post("/", infer), web.get("/stats", stats)])
    asyncio.run(serve(app))


def texts(count: int) -> list[str]:
    """Lengths as documents have them: most are short, a few are very long."""
    draw = random.Random(11)
    lengths = [min(500, max(3, round(draw.lognormvariate(3.2, 0.9)))) for _ in range(count)]
    return [f"{number:04} " + "word " * (length - 1) for number, length in enumerate(lengths)]


def measured(costs: tuple[float, float], count: int, policy: str) -> dict[str, Any]:
    """One run of the command line: items per second of the asking, and the server's own numbers."""
    with tempfile.TemporaryDirectory() as folder, served("bench.batches", "serve", *map(str, costs)) as url:
        place = Workplace(Path(folder), url)
        place.write_rows({"id": str(number), "text": text} for number, text in enumerate(texts(count)))
        ended = place.run("run", place.job(policy=policy), "--json", seconds=900)
        if ended.code:
            sys.exit(f"the run ended with {ended.code}: {ended.err}")
        first, last = place.query("SELECT min(finished_at - seconds), max(finished_at) FROM result")[0]
        return {"rate": count / (last - first), **told(f"{url}stats")}


def main() -> None:
    """Print the tables."""
    print(
        f"{'cost':32} {'one/s':>7} " + " ".join(f"{f'{size}/s':>7}" for size in FIXED) + f" {'auto/s':>7} {'gain':>6}"
    )
    for name, costs in COSTS.items():
        one = measured(costs, FEW, "concurrency=8")["rate"]
        fixed = [measured(costs, ITEMS, f"concurrency=4, batch_size={size}")["rate"] for size in FIXED]
        auto = measured(costs, ITEMS, "batch_size='auto'")["rate"]
        print(
            f"{name:32} {one:7,.0f} "
            + " ".join(f"{rate:7,.0f}" for rate in fixed)
            + f" {auto:7,.0f} {auto / one:5.1f}x"
        )
    lengths = [len(text) // WORD for text in texts(ITEMS)]
    unsorted = sum(max(lengths[at : at + SIZE]) * len(lengths[at : at + SIZE]) for at in range(0, ITEMS, SIZE))
    print(f"\npadded tokens wasted, {SIZE} items a request: {1 - sum(lengths) / unsorted:.1%} unsorted", end="")
    for what, policy in (("as asked", f"concurrency=4, batch_size={SIZE}"), ("auto", "batch_size='auto'")):
        found = measured((0.0, 0.0), ITEMS, policy)
        print(f", {1 - found['real'] / found['padded']:.1%} {what}", end="")
    print()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        main_of_server(float(sys.argv[2]), float(sys.argv[3]))
    else:
        main()
