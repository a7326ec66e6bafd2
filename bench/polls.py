"""Measure what 100 polls a second cost a live run: its rate with and without them, alternating within one run.

The run is a batch that the server's daemon executes; a client polls the batch, or another path, for some seconds, and
then as long an nginx of its own: a client is usually on another machine, so its CPU is in both rates. `CPU ms` is what
a poll takes in the server's process. The batch's endpoint answers a fixed number of requests per second, as a model
does, or at once: then the run is limited by the CPU, which the HTTP server and the endpoint share with it.
`python -m bench.polls` prints the table.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
import time
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.abc
import psutil

from bench.batch_api import ANSWER, ROUTE, TOKEN, generate, http_server
from bench.fanout import constant_server
from orchestrator.store.sqlite import DRIVER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import openai

LINES = 250_000
PER_SECOND = 100
TURN = 4.0  # seconds with polls, then as long without
MARGIN = 0.5  # seconds at the ends of a turn that are not counted
PATHS = ("/v1/batches/{batch}", "/api/runs/1", "/metrics")
RATES = (200, None)  # answers per second of the endpoint


async def turns(
    url: str, path: str, elsewhere: str, ledger: Path, server: psutil.Process
) -> tuple[dict[bool, list[float]], dict[bool, float], list[float]]:
    """Items per second and the server's CPU, in turns with polls and without; the seconds that polls took."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    cpu = {True: 0.0, False: 0.0}
    took: list[float] = []
    async with connected(url, path) as client, connected(elsewhere, "/") as other:
        for polls in (False, True) * 5:
            begun, before = time.time(), _cpu_of(server)
            async with anyio.create_task_group() as group:
                while time.time() < begun + TURN:
                    group.start_soon((client if polls else other).poll, took if polls else [])
                    await anyio.sleep(1 / PER_SECOND)
            cpu[polls] += _cpu_of(server) - before
            rates[polls].append(_rate(ledger, begun + MARGIN, begun + TURN - MARGIN))
    return rates, cpu, took


@asynccontextmanager
async def connected(url: str, path: str) -> AsyncIterator[Client]:
    """Connect a client of this path."""
    host, port = url.removeprefix("http://").removesuffix("/").split(":")
    async with await anyio.connect_tcp(host, int(port)) as stream:
        yield Client(stream, f"{host}:{port}", path)


def _cpu_of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


class Client:
    """Polls one path over one connection, with as little CPU as that takes."""

    def __init__(self, stream: anyio.abc.SocketStream, host: str, path: str) -> None:
        self._stream = stream
        self._request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
        self._one_at_a_time = anyio.Lock()

    async def poll(self, took: list[float]) -> None:
        """Poll once."""
        begun = time.perf_counter()
        async with self._one_at_a_time:
            await self._stream.send(self._request)
            head, _, body = (await self._stream.receive()).partition(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
            if not head.startswith(b"HTTP/1.1 200") or length is None:
                raise RuntimeError(head.decode())
            while len(body) < int(length[1]):
                body += await self._stream.receive()
        took.append(time.perf_counter() - begun)


def _rate(ledger: Path, since: float, until: float) -> float:
    select = "SELECT count(*) FROM result WHERE finished_at BETWEEN ? AND ?"
    with closing(DRIVER.connect(str(ledger))) as connection:
        return float(connection.execute(select, (since, until)).fetchone()[0] / (until - since))


def live_batch(client: openai.OpenAI, lines: Path) -> str:
    """Create a batch and return its id once its run is being asked."""
    with lines.open("rb") as file:
        uploaded = client.files.create(file=("lines.jsonl", file), purpose="batch")
    batch = client.batches.create(input_file_id=uploaded.id, endpoint=ROUTE, completion_window="24h")
    while batch.request_counts is None or not batch.request_counts.completed:
        time.sleep(0.2)
        batch = client.batches.retrieve(batch.id)
    return batch.id


def main() -> None:
    """Print a line for each path and each kind of endpoint."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("paths", nargs="*", default=PATHS)
    paths = arguments.parse_args().paths
    head = f"{'path':22} {'server/s':>8} {'without':>8} {'with':>8} {'cost':>7} {'CPU ms':>7}"
    print(f"{head} {'poll ms: median':>16} {'99 %':>8}")
    with tempfile.TemporaryDirectory() as name:
        lines = Path(name) / "lines.jsonl"
        generate(lines, LINES, 400)
        for path in paths:
            for rate in RATES:
                measure(path, rate, lines)


def measure(path: str, per_second: int | None, lines: Path) -> None:
    """Print one line."""
    with (
        constant_server(ANSWER, per_second) as url,
        constant_server(ANSWER) as elsewhere,
        tempfile.TemporaryDirectory() as folder,
        http_server(Path(folder), url) as (client, process),
    ):
        polled_path = path.format(batch=live_batch(client, lines))
        where = str(client.base_url).removesuffix("/v1/")
        server = psutil.Process(process.pid)
        rates, cpu, took = anyio.run(turns, where, polled_path, elsewhere, Path(folder) / "ledger.db", server)
    polled, alone = rates[True], rates[False]
    cost = 1 - statistics.median(with_ / without for with_, without in zip(polled, alone, strict=True))
    milliseconds = [1000 * seconds for seconds in sorted(took)]
    a_poll = 1000 * (cpu[True] - cpu[False]) / len(took)
    print(
        f"{path:22} {per_second or 'at once':>8} {statistics.median(alone):8,.0f} {statistics.median(polled):8,.0f} "
        f"{cost:7.1%} {a_poll:7.2f} {milliseconds[len(took) // 2]:16.1f} {milliseconds[len(took) * 99 // 100]:8.1f}"
        f"  ({len(took)})"
    )


if __name__ == "__main__":
    main()
