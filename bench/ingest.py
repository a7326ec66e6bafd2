"""ingest and deliver of 1 KB rows: rows per second, CPU time and peak memory, against a bare loop over JSON.

Each measurement is a process of its own. `python bench/ingest.py` prints the table. With `--against CHECKOUT`, the code
there is measured in turn with this one, and the last column is the ratio of the CPU times.
"""

from __future__ import annotations

import argparse
import json
import os
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
from orchestrator.engine.run.ingest import ingest, plan
from orchestrator.sinks import JsonlSink
from orchestrator.sources import JsonlSource
from orchestrator.store import Store
from orchestrator.store.items import Settlement

try:
    from orchestrator.engine.run.snapshot import Snapshot
except ImportError:  # an earlier checkout, with --against
    from orchestrator.engine.run.ingest import Snapshot  # type: ignore[attr-defined]

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


async def known(folder: Path) -> dict[str, float]:
    """The same file with one more row."""
    with (folder / "rows.jsonl").open("ab") as file:
        file.write(orjson.dumps({"id": "one more", "text": "nobody"}, option=orjson.OPT_APPEND_NEWLINE))
    return await ingested(folder)


async def planned(folder: Path) -> dict[str, float]:
    """What is to be done, without doing it."""
    async with Store.open(str(folder / "ledger.db")) as store:
        begun = time.perf_counter()
        await plan(Snapshot(make_job(folder), {}, None), store, Progress())
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


WAYS = {"ingest": ingested, "settle": settled, "deliver": delivered, "plan": planned, "one more row": known}


def child(kind: str, folder: Path) -> None:
    """Measure in this process and print one JSON object."""
    begun = _cpu()
    taken = bare(folder) if kind == "bare" else anyio.run(WAYS[kind], folder, backend_options={"use_uvloop": True})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(taken | {"cpu": _cpu() - begun, "peak_mb": peak}))


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(kind: str, folder: Path, code: Path) -> dict[str, float]:
    """Measure in a process of its own, with the code of a checkout."""
    command = [sys.executable, __file__, "--child", kind, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(code)}
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main(counts: list[int], against: Path | None) -> None:
    """Print one line for each number of rows and each way."""
    here = Path(__file__).resolve().parent.parent
    codes = {"": here} if against is None else {"other ": against.resolve(), "": here}
    head = f"{'rows':>10} {'':18} {'seconds':>8} {'rows/s':>9} {'of bare':>8} {'CPU us/row':>10}"
    print(f"{head} {'peak MB':>8} {'ratio':>6}")
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            folders = {code: Path(name, code.strip() or "this") for code in codes}
            for folder in folders.values():
                folder.mkdir()
                generate(folder / "rows.jsonl", count)
            bare_seconds = 0.0
            for kind in ("bare", *WAYS):
                found = {code: measure(kind, folders[code], path) for code, path in codes.items()}
                bare_seconds = bare_seconds or found[""]["seconds"]
                for code, one in found.items():
                    ratio = one["cpu"] / next(iter(found.values()))["cpu"]
                    print(
                        f"{count:10,} {code + kind:18} {one['seconds']:8.1f} {count / one['seconds']:9,.0f} "
                        f"{bare_seconds / one['seconds']:8.2f} {one['cpu'] / count * 1e6:10.1f} {one['peak_mb']:8.0f} "
                        f"{ratio:6.2f}",
                        flush=True,
                    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another version of this project")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(asked.child[0], Path(asked.child[1]))
    else:
        main(asked.rows, asked.against)
