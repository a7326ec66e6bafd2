"""What each command costs: CPU of whole processes from start to exit, against another checkout and a bare loop.

python -m bench.start [--against CHECKOUT] [--rounds N]

Each checkout is run with its own `.venv`, and with the bytecode of modules on disk, as after an installation. The runs
have a ledger already, as all but a user's first have, and ask a constant server (nginx), 64 requests in flight; `bare`
is an aiohttp loop that stores nothing. The commands that only look do so at the ledger of such a run of 5,000 items.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.fanout import constant_server

HERE = Path(__file__).parents[1]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
ITEMS = 5_000
LOOKS = ["--help", "runs", "status", "queue", "items 1 --limit 100", "item 1 7", "report", "report 1", "costs", "logs"]
ANSWER = '[{"generated_text":"fine"}]'
_JOB = """
from orchestrator import Job, Policy
from orchestrator.endpoints import HttpEndpoint
from orchestrator.sinks import JsonlSink
from orchestrator.sources import JsonlSource
job = Job("bench", JsonlSource("rows.jsonl", id="id"), HttpEndpoint({url!r}), JsonlSink("out.jsonl"),
          policy=Policy(concurrency=64))
"""
_BARE = """
import asyncio, json, sys, aiohttp
texts = (json.loads(line)["text"] for line in open("rows.jsonl"))
async def work(session):
    for text in texts:
        async with session.post(sys.argv[1], json={"inputs": text}) as response:
            await response.json()
async def main():
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(work(session) for _ in range(64)))
asyncio.run(main())
"""


class Used(NamedTuple):
    """What a process took, in seconds; its children that have ended are included."""

    cpu: float
    clock: float


def used(command: list[str], folder: Path) -> Used:
    """Run a command to its end."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return Used(usage.ru_utime + usage.ru_stime, time.perf_counter() - began)


def show(what: str, ours: list[Used], theirs: list[Used]) -> None:
    """Print the medians, and the median of the ratios round by round."""
    ratios = [median(one[n] / other[n] for one, other in zip(ours, theirs, strict=True)) for n in (0, 1)]
    one, other = (median(times.cpu for times in both) for both in (ours, theirs))
    print(f"{what:30} {one:7.3f} {other:7.3f} {ratios[0]:6.2f} {ratios[1]:6.2f}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--against", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    checkouts = [HERE, *([given.against.absolute()] if given.against else [])]
    commands = [str(checkout / ".venv" / "bin" / "orchestrator") for checkout in checkouts]
    with tempfile.TemporaryDirectory() as name, constant_server(ANSWER) as url:
        folder = Path(name)
        rows = (f'{{"id": "{n}", "text": "What is the capital of country {n}?"}}\n' for n in range(ITEMS))
        (folder / "rows.jsonl").write_text("".join(rows))
        (folder / "job.py").write_text(_JOB.format(url=url))
        print(f"{'':30} {'ours s':>7} {'other s':>7} {'CPU':>6} {'clock':>6}")
        runs: list[list[Used]] = [[] for _ in checkouts]
        bare: list[Used] = []
        for n, command in enumerate(commands):  # writes the bytecode, and makes a ledger
            used([command, "--db", f"first-{n}.db", "run", "--limit", "1", "job.py"], folder)
        for turn in range(given.rounds):
            for n, (times, command) in enumerate(zip(runs, commands, strict=True)):
                ledger = f"{n}-{turn}.db"
                shutil.copy(folder / f"first-{n}.db", folder / ledger)
                times.append(used([command, "--db", ledger, "run", "--overwrite", "job.py"], folder))
            bare.append(used([sys.executable, "-c", _BARE, url], folder))
        show("run of 5,000, other: bare loop", runs[0], bare)
        if len(checkouts) == 1:
            return
        show("run of 5,000", *runs)
        show("the other's run, bare loop", runs[1], bare)
        for look in LOOKS:
            both: list[list[Used]] = [[], []]
            for _ in range(given.rounds):
                for n, (times, command) in enumerate(zip(both, commands, strict=True)):
                    times.append(used([command, "--db", f"{n}-0.db", *look.split()], folder))
            show(look, *both)


if __name__ == "__main__":
    main()
