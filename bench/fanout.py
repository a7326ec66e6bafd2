"""Durable fan-out against a bare bounded aiohttp loop that stores nothing, both measured in this run.

Each measurement is a process of its own: items per second of the asking alone, CPU per item of the whole process while
asking, and its peak memory. `python bench/fanout.py` prints the table. With `--against CHECKOUT`, the code there is
measured in the same rounds, with its own `.venv` if it has one.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import anyio

from orchestrator import Job, Policy
from orchestrator.cli import spare_the_collector
from orchestrator.domain.events import RunBegan, WorkBegan
from orchestrator.domain.run import Spec
from orchestrator.endpoints import HttpEndpoint
from orchestrator.endpoints.http_client import choose_client
from orchestrator.engine.asking.effort import Effort
from orchestrator.engine.asking.fanout import fan_out
from orchestrator.engine.asking.in_flight import InFlight
from orchestrator.engine.asking.leased_items import open_work_queue
from orchestrator.engine.asking.run_controls import RunControls
from orchestrator.engine.asking.work_queue import RunContext
from orchestrator.engine.awake.awake import awake
from orchestrator.engine.awake.reaper import registered
from orchestrator.engine.awake.tenant import Tenant
from orchestrator.engine.events import Events
from orchestrator.engine.progress import Presence, Progress
from orchestrator.engine.run.ingest import ingest
from orchestrator.engine.stop import Stop
from orchestrator.run_log import logged
from orchestrator.sinks import JsonlSink
from orchestrator.sources import IterableSource
from orchestrator.store import Store

try:
    from orchestrator.engine.run.snapshot import Snapshot
except ImportError:  # an earlier checkout, with --against
    from orchestrator.engine.run.ingest import Snapshot  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWER = '[{"generated_text":"' + "word " * 200 + '"}]'
_CONFIG = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 100000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{ default_type application/json; {answers} }}
        location = /requests {{ stub_status; }}
    }}
    {more}
}}
"""
# `return` comes before limits, so a slow server is a proxy of one that answers at once
_AT_A_RATE = """
    limit_req_zone $server_port zone=all:1m rate={per_second}r/s;
    server {{ listen 127.0.0.2:{port}; location / {{ default_type application/json; {answers} }} }}
"""

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = ("durable", "aiohttp")  # `ry` if it is installed; aiohttp in any case
_looks = Counter[str]()  # at each server's count of requests
PROMPT = "Summarise the following text in one short sentence. " * 4


async def bare(url: str, concurrency: int, count: int) -> tuple[float, float]:
    """What one would write by hand: a bounded number of workers, nothing stored."""
    texts = (f"{PROMPT}{number}" for number in range(count))
    begun, cpu = time.perf_counter(), time.process_time()

    async def work(session: aiohttp.ClientSession) -> None:
        for text in texts:
            async with session.post(url, json={"inputs": text}) as response:
                await response.json()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(work(session) for _ in range(concurrency)))
    return time.perf_counter() - begun, time.process_time() - cpu


async def durable(url: str, concurrency: int, count: int) -> tuple[float, float]:
    """The same with everything on: every answer is committed before its place is given to the next."""
    folder = Path(os.environ["BENCH_FOLDER"])
    job = Job(
        "bench",
        IterableSource(lambda: ({"id": str(n), "text": f"{PROMPT}{n}"} for n in range(count)), id="id"),
        HttpEndpoint(url),
        JsonlSink(folder / "out.jsonl"),
        policy=Policy(concurrency=concurrency),
    )
    progress, presence, stop = Progress(), Presence("bench"), Stop()
    ledger = folder / "ledger.db"
    async with Store.open(str(ledger)) as store, registered(store) as process_id, logged(ledger, print) as log:
        events = Events(progress, log)
        run = await store.runs.take(Spec("bench", "f", None), process_id)
        await ingest(Snapshot(job, {}, None), run, store, events)
        events.emit(RunBegan(run.id, run.job, process_id))
        events.emit(WorkBegan(await store.views.counts(run.id, count)))
        tenant = Tenant(store, process_id, events, nullcontext, run.id, "bench")
        work = RunContext(store, run.id, process_id, None, job.policy, progress, stop, events)
        effort = Effort(presence, RunControls(), stop)
        async with awake(job.endpoints[0].endpoint, tenant) as endpoint, endpoint.connect(job.policy) as model:
            begun, cpu = time.perf_counter(), time.process_time()
            async with open_work_queue(work) as queue:
                await fan_out(queue, model, effort, InFlight())
            seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    if progress.completed != count:
        sys.exit(f"{progress.completed} of {count} items were completed")
    return seconds, cpu


def child(kind: str, url: str, concurrency: int, count: int) -> None:
    """Measure in this process and print one JSON object."""
    work = bare if kind == "bare" else durable
    if kind != "bare":
        spare_the_collector()  # as every command does
        gc.freeze()
    if kind == "aiohttp":
        choose_client("aiohttp")
    seconds, cpu = anyio.run(work, url, concurrency, count, backend_options={"use_uvloop": kind != "bare"})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rate": count / seconds, "cpu_ms": cpu / count * 1000, "peak_mb": peak}))


@contextmanager
def constant_server(answer: str = ANSWER, per_second: int | None = None) -> Iterator[str]:
    """Start it on a free port; gives its URL. It answers every request alike: at once, or so many per second."""
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if nginx is None:
        sys.exit("this benchmark needs nginx as its constant server: apt-get install nginx-light")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "nginx.conf"
        answers, more = f"return 200 '{answer}';", ""
        if per_second is not None:
            more = _AT_A_RATE.format(port=port, answers=answers, per_second=per_second)
            answers = f"limit_req zone=all burst=10000; proxy_pass http://127.0.0.2:{port};"
        config.write_text(_CONFIG.format(folder=folder, port=port, answers=answers, more=more))
        with subprocess.Popen([nginx, "-p", folder, "-c", str(config)]) as server:
            try:
                _wait_for(port)
                yield f"http://127.0.0.1:{port}/"
            finally:
                server.terminate()


def requests_at(url: str) -> int:
    """Return how many requests a constant server has had, without those of this function."""
    with urllib.request.urlopen(f"{url}requests") as response:  # noqa: S310 - our own server
        counted = int(response.read().decode().splitlines()[2].split()[2])
    _looks[url] += 1
    return counted - _looks[url]


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
    sys.exit("nginx did not start")


def measure(kind: str, url: str, concurrency: int, count: int, checkout: Path = ROOT) -> dict[str, float]:
    """Measure in a process of its own, with the code of this checkout."""
    python = checkout / ".venv/bin/python"
    program = str(python) if checkout != ROOT and python.exists() else sys.executable
    command = [program, str(checkout / "bench/fanout.py"), kind, url, str(concurrency), str(count)]
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"BENCH_FOLDER": folder, "PYTHONPATH": str(checkout)}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def median(results: list[dict[str, float]], key: str) -> float:
    """The middle of the rounds."""
    return sorted(result[key] for result in results)[len(results) // 2]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[4, 16, 64, 256])
    parser.add_argument("--items", type=int, nargs="+", default=[20_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--client", nargs="+", choices=CLIENTS, default=[*CLIENTS], help="durable: as installed")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another version of this project")
    asked = parser.parse_args()
    ways = {"bare": ("bare", ROOT)} | {client: (client, ROOT) for client in asked.client}
    if asked.against:
        ways["other"] = ("durable", asked.against.resolve())
    print(
        f"{'in flight':>9} {'items':>8} {'way':>8} {'rate/s':>8} {'of bare':>8} {'CPU ms':>7} {'of bare':>8} {'MB':>5}"
    )
    with constant_server() as url:
        for concurrency, count in itertools.product(asked.in_flight, asked.items):
            results: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
            for _ in range(asked.rounds):
                for way, (kind, checkout) in ways.items():
                    results[way].append(measure(kind, url, concurrency, count, checkout))
            rate, cpu = (median(results["bare"], key) for key in ("rate", "cpu_ms"))
            for way, found in results.items():
                ours, spent = median(found, "rate"), median(found, "cpu_ms")
                print(
                    f"{concurrency:9} {count:8,} {way:>8} {ours:8,.0f} {ours / rate:8.2f} {spent:7.3f} "
                    f"{spent / cpu:8.2f} {median(found, 'peak_mb'):5.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    if len(sys.argv) == 5 and sys.argv[1] in {"bare", *CLIENTS}:
        child(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
