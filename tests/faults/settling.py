"""A process that only settles: `settling.py LEDGER MARKS JOURNAL`. It writes down what was acknowledged.

Its write-ahead log is checkpointed repeatedly, which otherwise happens only to a large one.
"""

from __future__ import annotations

import os
import sys

import anyio

from orchestrator.domain.attempt import Completed, Discarded
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.domain.run import Spec
from orchestrator.store import Store, connections, sqlite
from orchestrator.store.items import Settlement
from orchestrator.store.row_classes import NewItem

CHUNKS, ROWS, TOGETHER = 6, 8, 2
_FAILURE = RequestFailed(FailureKind.REJECTED, "bad input", status=400)


async def settle_all(ledger: str, marks: int) -> None:
    async with Store.open(ledger) as store:
        me = await store.runs.register(host="h", pid=1, pid_started=0.0, lease=60)
        run = await store.runs.take(Spec("job", "f", "s"), me)
        chunks = [[NewItem(f"{chunk}.{row}", "h", '"text"', None) for row in range(ROWS)] for chunk in range(CHUNKS)]
        plan = await store.snapshots.ingest(run.id, run.job_id, 0, chunks)
        await store.runs.ingested(run.id, total=CHUNKS * ROWS, plan=plan, input_sha256="s")
        while leased := await store.items.lease(run.id, me, 1):
            (part,) = leased
            for first in range(0, len(part.items), TOGETHER):
                items = part.items[first : first + TOGETHER]
                close = [part.lease] if items[-1] is part.items[-1] else []
                answered = Completed(f'"{"y" * 5000}"')
                done = [Settlement(items[0], answered, 0.1), Settlement(items[1], Discarded(_FAILURE), 0.1)]
                await store.items.settle(done, close)
                os.write(marks, "".join(f"{item.key}\n" for item in items).encode())
        os._exit(0)  # nothing is closed cleanly: the power fails at some moment before


if __name__ == "__main__":
    path, marked, journal = sys.argv[1:]
    vars(connections)["WAL"] = sqlite.WAL and journal == "wal"  # as on a machine without a sound library
    pragmas = connections._pragmas
    connections._pragmas = lambda *, writer: [*pragmas(writer=writer), "wal_autocheckpoint = 30"]
    anyio.run(settle_all, path, os.open(marked, os.O_WRONLY | os.O_CREAT, 0o600))
