"""A process that submits once it receives a line: `submitting.py LEDGER SPEC KEYS`. Prints the result of each key."""

from __future__ import annotations

import sys

import anyio

from orchestrator.domain.errors import UsageError
from orchestrator.domain.queue import Submission
from orchestrator.store import Store


async def submit(ledger: str, spec: str, keys: int) -> None:
    async with Store.open(ledger) as store:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        for number in range(keys):
            wanted = Submission("job", {"spec": spec}, ["e"], 0.0, key=f"key {number}", key_hash=spec)
            try:
                run_id, new = await store.queue.submit(wanted)
                said = f"{run_id} {'new' if new else 'known'}"
            except UsageError as refused:
                said = f"0 {refused}"
            sys.stdout.write(f"{said}\n")


if __name__ == "__main__":
    path, what, many = sys.argv[1:]
    anyio.run(submit, path, what, int(many))
