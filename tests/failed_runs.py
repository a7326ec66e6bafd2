"""A run with failures of two causes in a ledger, without an endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain.attempt import Completed, Discarded, Outcome
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.domain.run import RunState, Spec
from orchestrator.store.items import Settlement
from orchestrator.store.row_classes import NewItem

if TYPE_CHECKING:
    from orchestrator.domain.run import Run
    from orchestrator.store import Store

ABOUT: dict[str, object] = {
    "jobfile": "/jobs/talk.py",
    "folder": "/jobs",
    "overrides": [],
    "limit": None,
    "endpoint": "a, b",
}
FAILURES = {
    "long 1": RequestFailed(FailureKind.REJECTED, "4413 characters are too many", status=400),
    "long 2": RequestFailed(FailureKind.REJECTED, "98 characters are too many", status=400),
    "busy": RequestFailed(FailureKind.UNAVAILABLE, "the server is overloaded", status=503),
}
ITEMS = ("good 1", *FAILURES, "good 2")


async def process(store: Store) -> int:
    return await store.runs.register(host="h", pid=1, pid_started=0.0, lease=60)


async def run_with_failures(
    store: Store, *, version: str = "1", about: dict[str, object] | None = None, state: RunState = RunState.FINISHED
) -> Run:
    """Take and settle a run whose process then leaves."""
    me = await process(store)
    run = await store.runs.take(Spec("talk", version, version, ABOUT if about is None else about), me)
    rows = [NewItem(name, "h", "{}", None) for name in ITEMS]
    plan = await store.snapshots.ingest(run.id, run.job_id, 0, [rows[:3], rows[3:]])
    await store.runs.ingested(run.id, total=plan.total, plan=plan, input_sha256=version)
    for part in await store.items.lease(run.id, me, 100):
        outcomes: list[Outcome] = [
            Discarded(FAILURES[item.id]) if item.id in FAILURES else Completed('"x"') for item in part.items
        ]
        done = [Settlement(item, how, 0.1) for item, how in zip(part.items, outcomes, strict=True)]
        await store.items.settle(done, [part.lease])
    await store.runs.end(run.id, me, state)
    await store.runs.delivered(run.id, me)
    await store.runs.leave(me)
    return await store.runs.find(str(run.id))
