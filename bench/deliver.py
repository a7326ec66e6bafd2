"""Delivering, and what must not grow: CPU of this version and of another one, in processes that alternate.

python -m bench.deliver [--against CHECKOUT] [--rounds N] [--rows N] [--only WAY ...]

`deliver ...` is the time of `deliver()` alone, for each row; everything else is a whole command. Each checkout is run
with its own `.venv` and has its own ledger. `again` is `run` with nothing new, `retry` asks one of a hundred items.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import anyio
import orjson

from bench.fanout import constant_server
from orchestrator.engine.run.deliver import deliver
from orchestrator.sinks import JsonlSink
from orchestrator.store import Store
from orchestrator.store.sqlite import DRIVER
from tests.store.big_ledger import fill

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parents[1]
ASKED = 50_000  # items of the run that is run again and retried
RUNS = 3_000
ANSWER = '[{"generated_text":"fine"}]'
TEXT = 'an answer of some words, a second line\\nand \\"quoted\\" parts; ' * 40
_ROWS = """
INSERT INTO process (id, host, pid, pid_started, started_at, lease_until, state)
    VALUES (1, 'h', 1, 0.0, 0.0, 0.0, 'ended');
INSERT INTO job (id, name) VALUES (1, 'bench');
INSERT INTO run (id, job_id, state, fingerprint, spec, total, plan, created_at, started_at, finished_at)
    VALUES (1, 1, 'finished', 'f', '{"output": "out.jsonl"}', :rows, '{"new": 1}', :now, :now, :now);
INSERT INTO item (key, job_id, item_id, hash, request)
    SELECT value, 1, 'row ' || value, printf('%032d', value), '"a text"' FROM generate(1, :rows);
INSERT INTO member (id, run_id, item_key, kept)
    SELECT (1 << 32) | (value - 1), 1, value, iif(:kept, '{"n":' || value || ',"id":' || value || '}', NULL)
    FROM generate(1, :rows);
INSERT INTO result (item_key, outcome, attempts, seconds, finished_at, output)
    SELECT value, iif(value % :every, 'completed', 'discarded'), 1 + :tried, 0.1, :now,
           iif(value % :every, '"' || value || ' ' || substr(:text, 1, :bytes - 3 - length(value)) || '"', NULL)
    FROM generate(1, :rows);
INSERT INTO attempt (item_key, number, outcome, kind, status, message, seconds, at)
    SELECT value * :every, 1 + :tried, 'discarded', 'rejected', 400, 'no', 0.1, :now
    FROM generate(1, :rows / :every);
INSERT INTO attempt (item_key, number, outcome, kind, status, message, seconds, at, available_at)
    SELECT value, 1, 'retry_later', 'unavailable', 503, 'busy', 0.1, :now, :now FROM generate(1, :rows * :tried);
INSERT INTO chunk (run_id, lo, hi, state, completed, discarded)
    SELECT 1, (value - 1) * 500, value * 500, 'done', 500 - 500 / :every, 500 / :every FROM generate(1, :rows / 500);
"""
_RUNS = """
INSERT INTO process (id, host, pid, pid_started, started_at, lease_until, state)
    SELECT value, 'h', value, 0.0, 0.0, 0.0, 'ended' FROM generate(1, :runs);
INSERT INTO job (id, name) SELECT value, 'job' || value FROM generate(1, 30);
INSERT INTO run (id, job_id, state, fingerprint, spec, total, plan, created_at, started_at, finished_at, delivered_at,
                 left_at)
    SELECT value, 1 + value % 30, 'finished', 'f', '{"jobfile": "f.py", "output": "out.jsonl"}', 10, '{"new": 10}',
           :now - (:runs - value) * 2000, :now - (:runs - value) * 2000.0, :now - (:runs - value) * 2000.0 + 10,
           :now - (:runs - value) * 2000.0 + 10, :now - (:runs - value) * 2000.0 + 10 FROM generate(1, :runs);
INSERT INTO item (key, job_id, item_id, hash, request)
    SELECT value, 1 + ((value - 1) / 10 + 1) % 30, 'row ' || value, printf('%032d', value), '"text"'
    FROM generate(1, :runs * 10);
INSERT INTO member (id, run_id, item_key)
    SELECT ((1 + (value - 1) / 10) << 32) | ((value - 1) % 10), 1 + (value - 1) / 10, value
    FROM generate(1, :runs * 10);
INSERT INTO result (item_key, outcome, attempts, seconds, finished_at, output)
    SELECT value, iif(value % 10, 'completed', 'discarded'), 1, 0.1,
           :now - (:runs - (1 + (value - 1) / 10)) * 2000.0 + 5, iif(value % 10, '"an answer"', NULL)
    FROM generate(1, :runs * 10);
INSERT INTO attempt (item_key, number, outcome, kind, status, message, seconds, at)
    SELECT value * 10, 1, 'discarded', 'rejected', 400, 'too long: ' || value, 0.1,
           :now - (:runs - value) * 2000.0 + 5 FROM generate(1, :runs);
INSERT INTO chunk (run_id, lo, hi, state, completed, discarded)
    SELECT value, 0, 10, 'done', 9, 1 FROM generate(1, :runs);
INSERT INTO reading (run_id, at, process_id, completed, discarded, requests, in_flight, latency)
    SELECT 1 + (value - 1) / 3, :now - (:runs - (1 + (value - 1) / 3)) * 2000.0 + (value - 1) % 3 * 4,
           1 + (value - 1) / 3, (value - 1) % 3 * 5, 0, (value - 1) % 3 * 5, 4, 0.1 FROM generate(1, :runs * 3);
"""
_DISCARD = """
UPDATE result SET outcome = 'discarded', output = NULL WHERE item_key % 100 = 0;
INSERT OR IGNORE INTO attempt (item_key, number, outcome, kind, message, seconds, at)
    SELECT item_key, attempts, 'discarded', 'rejected', 'no', 0.1, finished_at FROM result WHERE outcome = 'discarded';
UPDATE chunk SET completed = hi - lo - 5, discarded = 5;
"""
_JOB = """
from orchestrator import Job, Policy
from orchestrator.endpoints import HttpEndpoint
from orchestrator.sinks import JsonlSink
from orchestrator.sources import JsonlSource
job = Job("bench", JsonlSource("rows.jsonl", id="id"), HttpEndpoint({url!r}), JsonlSink("out.jsonl"),
          policy=Policy(concurrency=64))
"""
DELIVERIES: dict[str, dict[str, int]] = {
    "deliver, 100 bytes": {"bytes": 100},
    "deliver, 1 KB": {"bytes": 1000},
    "deliver, kept columns": {"bytes": 100, "kept": 1},
    "deliver, a tenth fails": {"bytes": 100, "every": 10},
    "deliver, second tries": {"bytes": 100, "tried": 1},
}
REPORTS = {
    f"report {how}".strip(): ["report", "--since", "90d", *how.split()] for how in ("", "--json", "--html r.html")
}
COMMANDS = {"items --state discarded": ["items", "1", "--state", "discarded"], "again": ["run", "--quiet", "job.py"]}
ALL = [*DELIVERIES, *REPORTS, *COMMANDS, "retry"]


def large(path: Path, rows: int, **about: int) -> None:
    """Write a ledger with one run, all of it settled."""
    anyio.run(_create, str(path))
    values = {"rows": rows, "kept": 0, "tried": 0, "every": rows + 1, "now": time.time(), "text": TEXT} | about
    fill(path, _ROWS, values)


def many(path: Path, runs: int) -> None:
    """Write a ledger with many small runs, or none."""
    anyio.run(_create, str(path))
    if runs:
        fill(path, _RUNS, {"runs": runs, "now": time.time()})


async def _create(path: str) -> None:
    async with Store.open(path):
        pass


def delivered(path: Path, kept: int) -> None:
    """Deliver the run and print the CPU time of it."""

    async def measured() -> float:
        async with Store.open(str(path)) as store:
            run = await store.runs.find("1")
            sink = JsonlSink(path.with_suffix(".jsonl"), keep=["n"] if kept else [], overwrite=True)
            begun = time.process_time()
            await deliver(run, store, sink)
            return time.process_time() - begun

    print(anyio.run(measured, backend_options={"use_uvloop": True}))


class Checkout:
    """One version of this project, and a folder for its ledgers."""

    def __init__(self, root: Path, folder: Path, url: str) -> None:
        self.root = root
        self._folder = folder
        self._url = url
        self._made: set[str] = set()

    def cpu(self, way: str, rows: int) -> float:
        """Return the CPU seconds of this way, whose ledger is made before the first time."""
        if way in DELIVERIES:
            self._once(way, lambda: self._python("large", way, str(rows), orjson.dumps(DELIVERIES[way]).decode()))
            return float(self._python("delivered", way, str(DELIVERIES[way].get("kept", 0))))
        if way in REPORTS:
            self._once("runs", lambda: self._python("many", "runs", str(RUNS)))
            (self._folder / "r.html").unlink(missing_ok=True)
            return self._command("runs", *REPORTS[way])
        if way == "items --state discarded":
            self._once(
                "deliver, 100 bytes", lambda: self._python("large", "deliver, 100 bytes", str(rows), '{"bytes":100}')
            )
            return self._command("deliver, 100 bytes", *COMMANDS[way])
        self._once("asked", self._ask)
        if way == "again":
            return self._command("asked", *COMMANDS[way])
        with closing(DRIVER.connect(self._folder / "asked.db")) as ledger:
            ledger.executescript(_DISCARD)
        return self._command("asked", "retry", "1", "--quiet")

    def empty(self) -> float:
        """Return what a report takes that finds nothing."""
        self._once("empty", lambda: self._python("many", "empty", "0"))
        return self._command("empty", *REPORTS["report"])

    def _once(self, name: str, make: Callable[[], object]) -> None:
        if name not in self._made:
            self._made.add(name)
            make()

    def _ask(self) -> None:
        rows = (orjson.dumps({"id": f"{number}", "text": f"text {number}"}) for number in range(ASKED))
        (self._folder / "rows.jsonl").write_bytes(b"\n".join(rows))
        (self._folder / "job.py").write_text(_JOB.format(url=self._url))
        self._command("asked", *COMMANDS["again"])
        self._command("asked", *COMMANDS["again"])  # from now on, there is nothing new

    def _python(self, function: str, name: str, *arguments: str) -> str:
        command = [
            str(self.root / ".venv/bin/python"),
            __file__,
            function,
            str(self._folder / f"{name}.db"),
            *arguments,
        ]
        environment = {**os.environ, "PYTHONPATH": str(self.root)}
        return subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout

    def _command(self, ledger: str, *arguments: str) -> float:
        command = [str(self.root / ".venv/bin/orchestrator"), "--db", str(self._folder / f"{ledger}.db"), *arguments]
        process = subprocess.Popen(command, cwd=self._folder, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in {0, 3}:
            raise SystemExit(f"{' '.join(command)}: {process.returncode}")
        return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another version of this project")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", nargs="+", choices=ALL, default=ALL, metavar="WAY")
    given = parser.parse_args()
    print(f"{'':26}{'other':>10}{'ours':>10}{'ratio':>8}   CPU: us a row, or s a command")
    with tempfile.TemporaryDirectory() as name, constant_server(ANSWER) as url:
        roots = [HERE, *([given.against.absolute()] if given.against else [])]
        folders = [Path(name) / f"{number}" for number, _ in enumerate(roots)]
        for folder in folders:
            folder.mkdir()
        checkouts = [Checkout(root, folder, url) for root, folder in zip(roots, folders, strict=True)]
        for way in given.only:
            rounds = [[one.cpu(way, given.rows) for one in checkouts] for _ in range(given.rounds)]
            show(way, rounds, 1e6 / given.rows if way in DELIVERIES else 1.0)
        if set(given.only) & REPORTS.keys():
            show("report, empty ledger", [[one.empty() for one in checkouts] for _ in range(given.rounds)], 1.0)


def show(way: str, rounds: list[list[float]], scale: float) -> None:
    """Print the medians, and the median of the ratios of each round."""
    ours, *others = (median(column) * scale for column in zip(*rounds, strict=True))
    other = f"{others[0]:10.2f}" if others else " " * 10
    ratio = f"{median(mine / theirs for mine, theirs in rounds):8.2f}" if others else ""
    print(f"{way:26}{other}{ours:10.2f}{ratio}", flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["large", path, rows, about]:
            large(Path(path), int(rows), **orjson.loads(about))
        case ["many", path, runs]:
            many(Path(path), int(runs))
        case ["delivered", path, kept]:
            delivered(Path(path), int(kept))
        case _:
            main()
