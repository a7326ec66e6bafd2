"""Load tests of a server that records its own latencies: how far apart are the percentiles of the two.

`python -m bench.load_test` prints a table: for each rate, an open loop and a closed loop with as many requests in
flight, the rate reached, and by how many percent each percentile is above what the server has recorded for the same
requests. Then a stall of two seconds within ten, in an open loop and in a closed loop of one client. The server
(`tests/load_server.py`), a process of its own, takes 0.2 s in the median (log-normal, sigma 0.5). The machine should be
quiet, and have two cores.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.load_server import load_server, percentile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.load_server import LoadServer

MEDIAN, SPREAD = 0.2, 0.5
MEAN = MEDIAN * math.exp(SPREAD**2 / 2)
PERCENTS = (50, 90, 95, 99)
COMMAND = [sys.executable, "-P", "-m", "orchestrator"]


def bench(ledger: Path, server: LoadServer, *arguments: str) -> dict[str, Any]:
    """Run a load test; return what it has printed."""
    command = [*COMMAND, "--db", str(ledger), "endpoints", "bench", server.url, "--json", *arguments]
    process = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if process.returncode:
        sys.exit(f"the load test ended with {process.returncode}: {process.stdout.decode()}")
    found: dict[str, Any] = json.loads(process.stdout)
    return found


def compare(ledger: Path, server: LoadServer, name: str, seconds: float, arguments: Sequence[str]) -> None:
    """Print a row: the percentiles of a load test beside those of the server."""
    server.taken()
    found = bench(ledger, server, "--for", f"{seconds:g}s", *arguments)
    taken, figures = server.taken(), found["figures"]
    if abs(len(taken) - figures["answered"]) > 1:  # the first request is sent apart
        sys.exit(f"the server has answered {len(taken)} requests, and the load test counts {figures['answered']}")
    sending, arrival = (
        "  ".join(f"{100 * (figures[of][f'p{one}'] / percentile(taken, one) - 1):+6.2f}" for one in PERCENTS)
        for of in ("from_sending", "from_arrival")
    )
    client = figures["client"]
    limit = "  " + client["limit"] if client["limit"] else ""
    reached = f"{figures['requests_per_second']:8,.0f}"
    each = 1e6 * client["cpu"] * figures["seconds"] / figures["answered"]
    print(f"{name:<12} {reached}   {sending}   {arrival}   {client['cpu']:5.2f}  {each:6.0f}{limit}", flush=True)


def stall(ledger: Path, server: LoadServer, name: str, arguments: Sequence[str]) -> None:
    """Print a row: the percentiles of a load test during which the server stalls."""
    server.taken()
    server.stall(2.0, after=10)
    figures = bench(ledger, server, "--for", "10s", *arguments)["figures"]
    cells = "  ".join(f"{figures['from_arrival'][f'p{one}']:6.2f}" for one in PERCENTS)
    print(f"{name:<12} {figures['answered']:8,}   {cells}   {figures['from_arrival']['longest']:6.2f}", flush=True)


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", type=int, nargs="*", default=[50, 500, 2000])
    parser.add_argument("--seconds", type=float, default=5.0)
    asked = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    with tempfile.TemporaryDirectory() as folder, load_server(MEDIAN, SPREAD) as server:
        ledger = Path(folder) / "ledger.db"
        heads = "  ".join(f"{f'p{one} %':>6}" for one in PERCENTS)
        print(f"{'':<12} {'req/s':>8}   {'from sending':<30}   {'from arrival':<30}")
        print(f"{'':<12} {'':>8}   {heads}   {heads}   cores  us each")
        for rate in asked.rates:
            compare(ledger, server, f"open {rate}", asked.seconds, ["--rate", str(rate)])
            in_flight = max(1, round(rate * MEAN))
            compare(ledger, server, f"closed {in_flight}", asked.seconds, ["--concurrency", str(in_flight)])
        heads = "  ".join(f"{f'p{one} s':>6}" for one in PERCENTS)
        print(f"\n{'stall of 2 s':<12} {'answers':>8}   {heads}   {'max s':>6}")
        stall(ledger, server, "open 100", ["--rate", "100"])
        stall(ledger, server, "closed 1", ["--concurrency", "1"])


if __name__ == "__main__":
    main()
