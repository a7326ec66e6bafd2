"""How long the server takes for each page of a ledger with 10,000 runs, one of them with ten million items.

python -m bench.views [LEDGER]

The ledger is written first if it does not exist; that takes some minutes and 6 GB.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import anyio
from aiohttp import ClientSession
from anyio import to_thread

from bench.views_ledger import RUNS, make_ledger
from orchestrator.app import open_app
from orchestrator.config import Settings
from orchestrator.engine.stop import Stop
from orchestrator.server import listener_of, serve_http

TOKEN = "token-of-the-bench"
AGAIN = 5  # requests after the first
LARGE = RUNS
PAGES = {
    "now": "/",
    "runs": "/runs",
    "runs, in one state": "/runs?state=failed&before=5000",
    "a run": "/runs/9000",
    "the large run": f"/runs/{LARGE}",
    "its failures": f"/runs/{LARGE}/failures",
    "its items": f"/runs/{LARGE}/items?after=9000000",
    "its items, discarded": f"/runs/{LARGE}/items?state=discarded",
    "its items, one cause": f"/runs/{LARGE}/items?like=item+500",
    "an item of it": f"/runs/{LARGE}/items/item%205000000",
    "queue": "/queue",
    "endpoints, a day": "/endpoints",
    "endpoints, 30 days": "/endpoints?days=30",
    "report, 12 hours": "/report?hours=12",
    "report, 7 days": "/report?hours=168",
    "batches": "/batches",
}


async def main(path: Path) -> None:
    """Serve the ledger and ask for each page: once, and then some times more."""
    os.environ["ORCHESTRATOR_HTTP_TOKEN"] = TOKEN
    stop = Stop()
    async with open_app(Settings(db=str(path))) as app, anyio.create_task_group() as tasks:
        listener = await to_thread.run_sync(listener_of, app, "127.0.0.1:0")
        tasks.start_soon(partial(serve_http, app, listener, stop, lambda _line: None, executes=False))
        async with ClientSession(listener.address.url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
            print(f"{'page':24}{'first ms':>10}{'again ms':>10}{'most ms':>10}{'CPU ms':>10}{'kB':>8}{'counted s':>12}")
            for name, address in PAGES.items():
                first = await asked(client, address)
                counted = await until_counted(client, address)
                again = [await asked(client, address) for _ in range(AGAIN)]
                times, cpu = [one.seconds * 1000 for one in again], median(one.cpu * 1000 for one in again)
                figures = f"{first.seconds * 1000:10.0f}{median(times):10.0f}{max(times):10.0f}{cpu:10.0f}"
                print(f"{name:24}{figures}{len(again[0].body) / 1000:8.0f}{counted:12.1f}", flush=True)
        stop.abort()


class Asked(NamedTuple):
    """One request: its seconds, the seconds of CPU of this process meanwhile, and the page."""

    seconds: float
    cpu: float
    body: bytes


async def asked(client: ClientSession, address: str) -> Asked:
    """Ask for a page, until the whole of it is there."""
    begun, cpu = time.perf_counter(), time.process_time()
    async with client.get(address) as answer:
        body = await answer.read()
    if answer.status != 200:
        print(f"{address}: {answer.status}")
    return Asked(time.perf_counter() - begun, time.process_time() - cpu, body)


async def until_counted(client: ClientSession, address: str) -> float:
    """Wait until the figures of a page that are computed in the background are there; return for how long."""
    begun = time.perf_counter()
    while b"in a moment" in (await asked(client, address)).body:
        await anyio.sleep(0.5)
    return time.perf_counter() - begun


if __name__ == "__main__":
    with nullcontext(None) if len(sys.argv) > 1 else tempfile.TemporaryDirectory() as folder:
        ledger = Path(sys.argv[1]) if folder is None else Path(folder) / "ledger.db"
        if not ledger.exists():
            make_ledger(ledger)
        anyio.run(main, ledger)
