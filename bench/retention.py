"""How long others wait for the ledger while a million old items are deleted from it.

python -m bench.retention
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median

import anyio
from anyio import to_thread

from orchestrator.store import Store
from orchestrator.store.prune import prune
from tests.store.big_ledger import ITEMS, make_big_ledger

PACE = 0.005  # seconds between two writes of the one who waits


async def main() -> None:
    """Delete everything from one connection of a ledger, and write into it from another."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        await to_thread.run_sync(make_big_ledger, path)
        async with Store.open(str(path)) as store, Store.open(str(path)) as other:
            steps, waits = watch(store), list[float]()
            async with anyio.create_task_group() as group:
                group.start_soon(write, other, waits)
                begun = time.perf_counter()
                runs, items = await prune(store, time.time())
                took = time.perf_counter() - begun
                group.cancel_scope.cancel()
    print(f"{runs:,} runs and {items:,} items of {ITEMS:,} deleted in {took:.1f} s, {items / took:,.0f} items/s")
    for name, seconds in (("a step held the ledger for", steps), ("a write of another process's took", waits)):
        ordered = sorted(seconds)
        print(
            f"{len(ordered):,} times {name} {median(ordered) * 1000:.1f} ms, 99th percentile "
            f"{ordered[len(ordered) * 99 // 100] * 1000:.1f} ms, at the most {ordered[-1] * 1000:.1f} ms"
        )


def watch(store: Store) -> list[float]:
    """Note for how long each step holds the ledger."""
    seconds, tidy = list[float](), store.database.tidy

    async def watched(work):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - as the store has it
        done, held = await tidy(work)
        seconds.append(held)
        return done, held

    store.database.tidy = watched  # type: ignore[method-assign]  # a bench looks inside
    return seconds


async def write(store: Store, waits: list[float]) -> None:
    """Write a little, again and again."""
    while True:
        begun = time.perf_counter()
        async with store.database.write() as connection:
            await connection.execute("UPDATE run SET rate = 1.0 WHERE id = 2")
        waits.append(time.perf_counter() - begun)
        await anyio.sleep(PACE)


if __name__ == "__main__":
    anyio.run(main)
