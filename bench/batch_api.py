"""Batches over HTTP against the command line, both measured in this run.

Creating a batch of 50,000 lines (100 MB), from the upload until it is validated and queued, against the ingest of the
same rows; and the rate at which a batch is asked against that of `orchestrator run` on the same rows, from the first to
the last answer in the ledger. `python -m bench.batch_api` prints the tables.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import openai
import psutil

from bench.fanout import constant_server
from orchestrator.app.batch_job import batch_job
from orchestrator.config import settings_from
from orchestrator.domain.run import Spec
from orchestrator.engine.awake.reaper import registered
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.ingest import ingest
from orchestrator.spec import JobSpec
from orchestrator.store import Store
from orchestrator.store.sqlite import DRIVER

try:
    from orchestrator.engine.run.snapshot import Snapshot
except ImportError:  # an earlier checkout, with --against
    from orchestrator.engine.run.ingest import Snapshot  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.job import Job

LINES, LINE_BYTES = 50_000, 2_000
ASKED = 20_000
ROUNDS = 5
ROUTE: Any = "/v1/chat/completions"
TOKEN = "of-the-benchmark"
ANSWER = json.dumps({
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 200}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 50, "completion_tokens": 200, "total_tokens": 250},
})  # fmt: skip
ENDED = {"completed", "failed", "expired", "cancelled"}


def generate(path: Path, count: int, size: int) -> None:
    """Lines of this size, no two alike."""
    with path.open("w") as file:
        for number in range(count):
            said = f"{number} " + "and so on " * (size // 10 - 18)
            body = {"model": "m", "messages": [{"role": "user", "content": said}], "max_tokens": 200}
            file.write(json.dumps({"custom_id": f"r{number}", "method": "POST", "url": ROUTE, "body": body}) + "\n")


def job_of(path: Path, url: str) -> Job:
    """The job that the server makes of such a file."""
    settings = settings_from({"endpoints": {"bench": {"kind": "http", "url": url, "models": ["m"]}}})
    return batch_job(settings, name="bench", path=path, route=ROUTE, model="m")


async def ingested(path: Path, folder: Path) -> float:
    """Seconds for these lines to become items of a new ledger."""
    job = job_of(path, "http://127.0.0.1:9/")
    async with Store.open(str(folder / "ledger.db")) as store, registered(store) as process_id:
        run = await store.runs.take(Spec("bench", "f", None), process_id)
        begun = time.perf_counter()
        await ingest(Snapshot(job, {}, None), run, store, Progress())
        return time.perf_counter() - begun


@contextmanager
def http_server(folder: Path, url: str) -> Iterator[tuple[openai.OpenAI, subprocess.Popen[bytes]]]:
    """Start `orchestrator serve --http` with an endpoint at this URL; gives a client of it, and its process."""
    (folder / "config.toml").write_text(
        f'[endpoints.bench]\nkind = "http"\nurl = "{url}"\nmodels = ["m"]\n[server]\nmax_batch_requests = 1000000\n'
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = ["--db", str(folder / "ledger.db"), "--config", str(folder / "config.toml")]
    command = [sys.executable, "-m", "orchestrator", *options, "serve", "--http", address]
    environment = os.environ | {"ORCHESTRATOR_HTTP_TOKEN": TOKEN}
    with (folder / "log").open("wb") as log, subprocess.Popen(command, env=environment, stderr=log) as process:
        try:
            _wait_for(f"http://{address}/healthz", process)
            yield openai.OpenAI(base_url=f"http://{address}/v1", api_key=TOKEN, max_retries=0), process
        finally:
            process.terminate()
            process.wait(60)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(url, timeout=1):  # noqa: S310 - our own
            return
        time.sleep(0.1)
    sys.exit("the server did not start")


def created(path: Path, folder: Path) -> tuple[float, float]:
    """Seconds for the upload of these lines, and from then until they are validated and queued."""
    with http_server(folder, "http://127.0.0.1:9/") as (client, _):
        begun = time.perf_counter()
        with path.open("rb") as lines:
            uploaded = client.files.create(file=("lines.jsonl", lines), purpose="batch")
        sent = time.perf_counter()
        _until(client, uploaded.id, lambda status: status != "validating", every=0.05)
        return sent - begun, time.perf_counter() - sent


def _until(client: openai.OpenAI, file_id: str, happened: Callable[[str], bool], *, every: float) -> None:
    """Create a batch of this file and poll until its status is right."""
    batch = client.batches.create(input_file_id=file_id, endpoint=ROUTE, completion_window="24h")
    while not happened(batch.status):
        time.sleep(every)
        batch = client.batches.retrieve(batch.id)
    if batch.status == "failed":
        sys.exit(f"the batch failed: {batch.errors}")


@dataclass(slots=True)
class Asked:
    """How the lines were asked. CPU in milliseconds an item: of the process that asks, and of the server meanwhile."""

    rate: float
    cpu: float
    server_cpu: float = 0.0


def asked_over_http(path: Path, folder: Path, url: str) -> Asked:
    """Ask the lines as a batch that a client polls once a second."""
    with http_server(folder, url) as (client, process):
        with path.open("rb") as lines:
            uploaded = client.files.create(file=("lines.jsonl", lines), purpose="batch")
        with watched(psutil.Process(process.pid)) as spent:
            _until(client, uploaded.id, ENDED.__contains__, every=1.0)
    return Asked(rate_in(folder / "ledger.db"), spent["execute"] / ASKED * 1000, spent["serve"] / ASKED * 1000)


@contextmanager
def watched(server: psutil.Process) -> Iterator[dict[str, float]]:
    """Yield the CPU seconds of the server's child that executes a run, and of the server while there is one."""
    spent, over = {"execute": 0.0, "serve": 0.0}, threading.Event()

    def watch() -> None:
        begun = None
        while not over.wait(0.05):
            for child in server.children():
                with suppress(psutil.Error):
                    if "execute" in child.cmdline():
                        begun = _cpu(server) if begun is None else begun
                        spent.update(execute=_cpu(child), serve=_cpu(server) - begun)

    with ThreadPoolExecutor() as threads:
        watching = threads.submit(watch)
        try:
            yield spent
        finally:
            over.set()
    watching.result()


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def asked_by_command(path: Path, folder: Path, url: str) -> Asked:
    """Ask the same job with `orchestrator run`."""
    (folder / "job.json").write_text(json.dumps(JobSpec.of(job_of(path, url)).as_json()))
    command = [sys.executable, "-m", "orchestrator", "--db", str(folder / "ledger.db"), "run", "--quiet"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*command, str(folder / "job.json")], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Asked(rate_in(folder / "ledger.db"), cpu / ASKED * 1000)


def rate_in(ledger: Path) -> float:
    """Answers per second from the first to the last one in the ledger."""
    with closing(DRIVER.connect(str(ledger))) as connection:
        select = "SELECT count(*), min(finished_at), max(finished_at) FROM result WHERE outcome = 'completed'"
        count, first, last = connection.execute(select).fetchone()
    if count != ASKED:
        sys.exit(f"{count} of {ASKED} items were completed")
    return float(count / (last - first))


def in_new_folder(measure: Callable[..., Any], *arguments: object) -> Any:
    """Measure in a folder of its own, which is deleted afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        return measure(*arguments[:1], Path(folder), *arguments[1:])


def median(values: list[float]) -> float:
    """The middle one."""
    return sorted(values)[len(values) // 2]


def creating(path: Path) -> None:
    """Print what creating a batch takes, and what the ingest of its rows takes."""
    generate(path, LINES, LINE_BYTES)
    rounds = [
        (in_new_folder(lambda *at: anyio.run(ingested, *at), path), *in_new_folder(created, path))
        for _ in range(ROUNDS)
    ]
    alone, uploads, checks = (median(list(values)) for values in zip(*rounds, strict=True))
    whole = median([(upload + check) / ingest for ingest, upload, check in rounds])
    print(f"creating a batch of {LINES:,} lines, {path.stat().st_size / 1e6:,.0f} MB:")
    print(f"upload {uploads:.2f} s, validated {checks:.2f} s later; ingest {alone:.2f} s; ratio {whole:.2f}\n")


def asking(path: Path) -> None:
    """Print the rate of a batch, and of the same job by the command line."""
    generate(path, ASKED, 400)
    runs: list[Asked] = []
    batches: list[Asked] = []
    with constant_server(ANSWER) as url:
        for _ in range(ROUNDS):
            runs.append(in_new_folder(asked_by_command, path, url))
            batches.append(in_new_folder(asked_over_http, path, url))
    ratios = [batch.rate / run.rate for run, batch in zip(runs, batches, strict=True)]
    print(f"asking {ASKED:,} lines:")
    print(f"{'':6} {'items/s':>8} {'CPU ms an item':>15} {'of the server':>14}")
    for name, measured in (("run", runs), ("batch", batches)):
        cpu, server = median([one.cpu for one in measured]), median([one.server_cpu for one in measured])
        print(f"{name:6} {median([one.rate for one in measured]):8,.0f} {cpu:15.3f} {server:14.3f}")
    print(f"batch to run, round by round: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        creating(Path(name) / "lines.jsonl")
        asking(Path(name) / "lines.jsonl")
