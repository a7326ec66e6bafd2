"""Rollouts of three dependent asks against the same requests as plain items, and what running them again costs.

Each measurement is a process that runs a whole job, from its source to its output, against a server that answers at
once: clock and CPU seconds of the process, and its peak memory. `plain`: a job of one request for each row. `rollouts`:
a third of the rows, each with three asks that follow from each other. `again`: the same after an edit of the function
that changes no request, so that every answer comes from the ledger; `replay` is its rate from the first rollout to the
last. `gather`: the same asks by hand; it stores nothing. With `--datatrove PYTHON`, an interpreter that has datatrove,
`datatrove`: the same asks with its `rollout_fn` and its request cache.

With `--loss`, rollouts, gather and datatrove are instead killed with `kill -9` when the server has had half of the
requests, and run again; the table says how many requests the server had beyond one for each ask.

`python -m bench.rollouts` prints the table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from bench.fanout import PROMPT, ROOT, constant_server, median, requests_at
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
ORCHESTRATOR = str(Path(sys.executable).parent / "orchestrator")
COMPLETION = (
    f'{{"choices":[{{"text":"{"word " * 200}","finish_reason":"stop"}}],'
    '"usage":{"prompt_tokens":50,"completion_tokens":200}}'
)  # what datatrove can read, with the same text


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


def begin(way: str, url: str, requests: int, folder: Path, datatrove: str | None) -> subprocess.Popen[bytes]:
    """Start a process that makes this number of requests in one of the ways, and keeps its files in `folder`."""
    count = requests if way == "plain" else requests // STEPS
    if way == "gather":
        command = [sys.executable, "-m", "bench.rollouts", "gather", url, str(count)]
    elif way == "datatrove":
        command = [str(datatrove), str(ROOT / "bench/rollouts_datatrove.py"), url, str(count), str(folder)]
    else:
        file = folder / f"{way}.py"
        file.write_text(JOB_FILE.format(rollout=WAYS[way], url=url, rows=count))
        command = [ORCHESTRATOR, "--db", str(ledger_of(way, folder)), "run", str(file), "--overwrite"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=(folder / f"{way}.log").open("a"), env=environment
    )


def ledger_of(way: str, folder: Path) -> Path:
    """Return the ledger of a job of ours."""
    return folder / ("plain.db" if way == "plain" else "rollouts.db")


def measure(way: str, url: str, requests: int, folder: Path, datatrove: str | None) -> dict[str, float]:
    """Run one way in a process of its own."""
    begun = time.perf_counter()
    with begin(way, url, requests, folder, datatrove) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - begun
    if process.returncode:
        sys.exit(f"{way} ended with {process.returncode}: {(folder / f'{way}.log').read_text()[-2000:]}")
    cpu = usage.ru_utime + usage.ru_stime
    found = {"rate": requests / seconds, "cpu_ms": cpu / requests * 1000, "peak_mb": usage.ru_maxrss / 1024}
    if way == "again":
        found["replay"] = STEPS * _rollouts_per_second(folder)
    return found


def _rollouts_per_second(folder: Path) -> float:
    """Return the rate of the latest run, as the ledger has it."""
    command = [ORCHESTRATOR, "--db", str(ledger_of("again", folder)), "report", "bench", "--json"]
    report = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return float(report["runs"][0]["asked"]["items_per_second"])


def lost(way: str, url: str, requests: int, folder: Path, datatrove: str | None) -> int:
    """Kill one way at half, run it again, and return the requests beyond one for each ask."""
    before = requests_at(url)
    with begin(way, url, requests, folder, datatrove) as process:
        while requests_at(url) - before < requests / 2:
            if process.poll() is not None:
                sys.exit(f"{way} ended too early: {(folder / f'{way}.log').read_text()[-2000:]}")
            time.sleep(0.01)
        process.kill()
    measure(way, url, requests, folder, datatrove)
    return requests_at(url) - before - requests


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loss", action="store_true", help="what a kill -9 at half costs")
    parser.add_argument("--datatrove", metavar="PYTHON", help="an interpreter that has datatrove")
    asked = parser.parse_args()
    others = ["gather", "datatrove"] if asked.datatrove else ["gather"]
    results: dict[str, list[dict[str, float]]] = {way: [] for way in [*WAYS, *others]}
    losses: dict[str, list[int]] = {way: [] for way in ["rollouts", *others]}
    with constant_server() as ours, constant_server(COMPLETION) as completions:
        for _ in range(asked.rounds):
            with tempfile.TemporaryDirectory() as folder:
                for way in losses if asked.loss else results:
                    how = (completions if way == "datatrove" else ours, asked.requests, Path(folder), asked.datatrove)
                    if asked.loss:
                        losses[way].append(lost(way, *how))
                    else:
                        results[way].append(measure(way, *how))
    if asked.loss:
        for way, extra in losses.items():
            print(f"{way:>9}: {', '.join(f'{one:,}' for one in extra)} of {asked.requests:,} requests were made twice")
    else:
        _print(results)


def _print(results: dict[str, list[dict[str, float]]]) -> None:
    plain = results["plain"]
    print(f"{'way':>9} {'asks/s':>8} {'of plain':>9} {'CPU ms':>7} {'of plain':>9} {'MB':>5} {'of plain':>9}")
    for way, found in results.items():
        line = f"{way:>9}"
        for key, width, digits in (("rate", 8, 0), ("cpu_ms", 7, 3), ("peak_mb", 5, 0)):
            value = median(found, key)
            line += f" {value:{width},.{digits}f} {value / median(plain, key):9.2f}"
        print(line)
    print(f"{'replay':>9} {median(results['again'], 'replay'):8,.0f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["gather"]:
        asyncio.run(gather(sys.argv[2], int(sys.argv[3])))
    else:
        main()
