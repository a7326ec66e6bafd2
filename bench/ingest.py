"""ingest and deliver of 1 KB rows: rows per second and peak memory, against a bare loop that parses and prints JSON.

Each measurement is a process of its own. `python bench/ingest.py` prints the table.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio
import orjson

from orchestrator import Job
from orchestrator.domain.attempt import Completed
from orchestrator.domain.run import Spec
from orchestrator.endpoints import HttpEndpoint
from orchestrator.engine.awake.reaper import registered
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.deliver import deliver
from orchestrator.engine.run.ingest import Snapshot, ingest
from orchestrator.sinks import JsonlSink
from orchestrator.sources import JsonlSource
from orchestrator.store import Store
from orchestrator.store.items import Settlement

COUNTS = [100_000, 1_000_000]
ROW_BYTES = 1_000
WORDS = [
    "item",
    "answer",
    "endpoint",
    "model",
    "sleeps",
    "wakes",
    "ledger",
    "commits",
    "rows",
    "nobody",
    "GPU",
    "bills",
]


def generate(path: Path, count: int) -> None:
    """Rows of 1 KB, no two alike."""
    dice = random.Random(7)
    filler = " ".join(dice.choices(WORDS, k=4 * ROW_BYTES))
    with path.open("wb") as file:
        for number in range(count):
            start = dice.randrange(len(filler) - ROW_BYTES)
            text = f"{number} {filler[start : start + ROW_BYTES - 40]}"
            file.write(orjson.dumps({"id": str(number), "text": text}, option=orjson.OPT_APPEND_NEWLINE))


def bare(folder: Path) -> dict[str, float]:
    """Read, parse, print again: what no tool can do without."""
    begun = time.perf_counter()
    with (folder / "rows.jsonl").open("rb") as rows, (folder / "bare.jsonl").open("wb") as copy:
        for line in rows:
            copy.write(orjson.dumps(orjson.loads(line), option=orjson.OPT_APPEND_NEWLINE))
    return {"seconds": time.perf_counter() - begun}


async def ingested(folder: Path) -> dict[str, float]:
    """A file into the ledger: a new one; or, the second time, one that knows every item and its answer."""
    job = make_job(folder)
    async with Store.open(str(folder / "ledger.db")) as store, registered(store) as process_id:
        run = await store.runs.take(Spec("bench", str(time.time()), None), process_id)
        begun = time.perf_counter()
        await ingest(Snapshot(job, {}, None), run, store, Progress())
        return {"seconds": time.perf_counter() - begun}


async def settled(folder: Path) -> dict[str, float]:
    """What the ledger alone makes of it: every item leased and answered with its own request, nobody asked."""
    async with Store.open(str(folder / "ledger.db")) as store, registered(store) as process_id:
        run = await store.runs.find("bench")
        begun = time.perf_counter()
        while leased := await store.items.lease(run.id, process_id, 4):
            answers = [
                Settlement(item, Completed(item.request.decode()), 0.0) for part in leased for item in part.items
            ]
            await store.items.settle(answers, [part.lease for part in leased])
        return {"seconds": time.perf_counter() - begun}


async def delivered(folder: Path) -> dict[str, float]:
    """All of the latest run, with the input's text as a kept column and the answer, the same text, as output."""
    job = make_job(folder)
    async with Store.open(str(folder / "ledger.db")) as store:
        run = await store.runs.find("bench")
        assert job.sink is not None
        begun = time.perf_counter()
        await deliver(run, store, job.sink)
        return {"seconds": time.perf_counter() - begun}


def make_job(folder: Path) -> Job:
    """A job whose endpoint is never asked."""
    source, sink = JsonlSource(folder / "rows.jsonl", id="id"), JsonlSink(folder / "out.jsonl", keep=["text"])
    return Job("bench", source, HttpEndpoint("http://127.0.0.1:9/"), sink)


WAYS = {"ingest": ingested, "settle": settled, "deliver": delivered, "ingest again": ingested}


def child(kind: str, folder: Path) -> None:
    """Measure in this process and print one JSON object."""
    taken = bare(folder) if kind == "bare" else anyio.run(WAYS[kind], folder, backend_options={"use_uvloop": True})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(taken | {"peak_mb": peak}))


def measure(kind: str, folder: Path) -> dict[str, float]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, kind, str(folder)]
    result: dict[str, float] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return result


def main() -> None:
    """Print one line for each number of rows and each way."""
    print(f"{'rows':>9} {'':14} {'seconds':>8} {'rows/s':>9} {'of bare':>8} {'peak MB':>8}")
    for count in COUNTS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            generate(folder / "rows.jsonl", count)
            measured = {kind: measure(kind, folder) for kind in ("bare", *WAYS)}
        for kind, found in measured.items():
            of_bare = measured["bare"]["seconds"] / found["seconds"]
            rate = count / found["seconds"]
            print(f"{count:9,} {kind:14} {found['seconds']:8.1f} {rate:9,.0f} {of_bare:8.2f} {found['peak_mb']:8.0f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        child(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
