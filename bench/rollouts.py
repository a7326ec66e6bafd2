"""Rollouts of three dependent asks against the same requests as plain items, and what running them again costs.

Each measurement is a process that runs a whole job, from its source to its output, against a server that answers at
once: clock and CPU seconds of the process, and its peak memory. `plain`: a job of one request for each row. `rollouts`:
a third of the rows, each with three asks that follow from each other. `again`: the same after an edit of the function
that changes no request, so that every answer comes from the ledger. `gather`: the same asks by hand; it stores nothing.

`python -m bench.rollouts` prints the table.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from bench.fanout import PROMPT, ROOT, constant_server, median
from orchestrator import Job, Policy
from orchestrator.endpoints import HttpEndpoint
from orchestrator.sinks import JsonlSink
from orchestrator.sources import IterableSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator import Ask

STEPS = 3
IN_FLIGHT = 64
JOB_FILE = """
from bench.rollouts import edited, job_of, rollout
job = job_of({rollout}, {url!r}, {rows})
"""
WAYS = {"plain": "None", "rollouts": "rollout", "again": "edited"}  # and the rollout of each job


def rows(count: int) -> Iterator[dict[str, str]]:
    """Yield the input: an id and a text for each row."""
    return ({"id": str(number), "text": f"{PROMPT}{number}"} for number in range(count))


async def rollout(row: dict[str, str], ask: Ask) -> object:
    """Make three asks, each of which contains something of the answer before."""
    text = row["text"]
    for step in range(STEPS):
        answer = await ask(text)
        text = f"{row['text']} {step} {answer[:10]}"
    return text


async def edited(row: dict[str, str], ask: Ask) -> object:
    """Make the same requests for another output."""
    return {"text": await rollout(row, ask)}


def job_of(function: Any, url: str, count: int) -> Job:
    """Return the job that is measured."""
    source = IterableSource(lambda: rows(count), id="id")
    policy = Policy(concurrency=IN_FLIGHT)
    return Job("bench", source, HttpEndpoint(url), JsonlSink("out.jsonl"), policy=policy, rollout=function)


async def gather(url: str, count: int) -> None:
    """Do what one would write by hand."""
    texts = rows(count)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(text: str) -> Any:
            async with session.post(url, json={"inputs": text}) as response:
                return (await response.json())[0]["generated_text"]

        async def work() -> None:
            for row in texts:
                await rollout(row, ask)  # type: ignore[arg-type]  # it is only called

        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))


def measure(way: str, url: str, requests: int, folder: Path) -> dict[str, float]:
    """Run one way in a process of its own."""
    count = requests if way == "plain" else requests // STEPS
    if way == "gather":
        command = [sys.executable, "-m", "bench.rollouts", "gather", url, str(count)]
    else:
        file = folder / f"{way}.py"
        file.write_text(JOB_FILE.format(rollout=WAYS[way], url=url, rows=count))
        ledger = folder / ("plain.db" if way == "plain" else "rollouts.db")
        command = [str(Path(sys.executable).parent / "orchestrator"), "--db", str(ledger), "run", str(file)]
        command += ["--overwrite"]
    begun = time.perf_counter()
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(ROOT)}
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{way} ended with {process.returncode}")
    seconds = time.perf_counter() - begun
    cpu = usage.ru_utime + usage.ru_stime
    return {"rate": requests / seconds, "cpu_ms": cpu / requests * 1000, "peak_mb": usage.ru_maxrss / 1024}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    results: dict[str, list[dict[str, float]]] = {way: [] for way in [*WAYS, "gather"]}
    with constant_server() as url:
        for _ in range(asked.rounds):
            with tempfile.TemporaryDirectory() as folder:
                for way, found in results.items():
                    found.append(measure(way, url, asked.requests, Path(folder)))
    plain = results["plain"]
    print(f"{'way':>9} {'asks/s':>8} {'of plain':>9} {'CPU ms':>7} {'of plain':>9} {'MB':>5} {'of plain':>9}")
    for way, found in results.items():
        line = f"{way:>9}"
        for key, width, digits in (("rate", 8, 0), ("cpu_ms", 7, 3), ("peak_mb", 5, 0)):
            value = median(found, key)
            line += f" {value:{width},.{digits}f} {value / median(plain, key):9.2f}"
        print(line)


if __name__ == "__main__":
    if sys.argv[1:2] == ["gather"]:
        asyncio.run(gather(sys.argv[2], int(sys.argv[3])))
    else:
        main()
