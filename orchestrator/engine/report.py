"""report: gather what the ledger says of a night, or of a run."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.domain.report import DAYS, Report, report_on
from orchestrator.domain.report_data import Before, QueuedRun, Ran, ReportData
from orchestrator.domain.traffic import Traffic, traffic_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.domain.readings import Reading
    from orchestrator.store import Store

_CAUSES = 10  # of each run, the most frequent
_DAY = 86_400.0


async def report_since(store: Store, since: float) -> Report:
    """What has happened since then."""
    now = time.time()
    runs, oldest = await _in_full(store, await store.history.runs(since))
    found = ReportData(
        since,
        now,
        runs,
        await store.windows.receipts(min(oldest, since, now - DAYS * _DAY) - _DAY),
        await store.history.windows(since),
        await _waiting(store, now),
        await store.history.lapses(since),
        await store.history.broken(),
    )
    return report_on(found)


async def report_of(store: Store, run_id: int, *, over: bool = False) -> Report:
    """What became of one run. `over`: its process has only this left to say."""
    now = time.time()
    (run,), oldest = await _in_full(store, [await store.history.run(run_id)])
    run = replace(run, executing=run.executing and not over)
    found = ReportData(
        run.started_at or run.created_at,
        now,
        [run],
        await store.windows.receipts(min(oldest, now - DAYS * _DAY) - _DAY),
        await store.history.windows(0.0, run_id),
        [one for one in await _waiting(store, now) if one.run == run_id],
        one_run=True,
    )
    return report_on(found)


async def traffic_in(store: Store, run_id: int, readings: Sequence[Reading], *, executing: bool) -> Traffic:
    """How the requests of a run went."""
    latency, failed = await store.attempts.latency(run_id), await store.attempts.failed(run_id)
    return traffic_of(readings, latency, failed, executing=executing)


async def _in_full(store: Store, runs: Sequence[Ran]) -> tuple[list[Ran], float]:
    """The runs with their readings, causes and predecessors; and when the oldest of them all was made."""
    found, oldest = [], time.time()
    for run in runs:
        before = await store.history.before(run.id)
        oldest = min(oldest, run.created_at, run.created_at if before is None else before[1])
        causes = await store.views.causes(run.id, _CAUSES) if run.discarded else []
        readings = await store.readings.of(run.id)
        found.append(
            replace(
                run,
                readings=readings,
                causes=causes,
                noted=await store.views.noted(run.id),
                traffic=await traffic_in(store, run.id, readings, executing=run.executing),
                before=None if before is None else Before(before[0], await store.readings.of(before[0])),
            )
        )
    return found, oldest


async def _waiting(store: Store, now: float) -> list[QueuedRun]:
    return [
        QueuedRun(one.id, one.job, one.due_at, one.deadline, one.why, one.waits_for)
        for one in await store.queue.listed(now)
        if not one.executing
    ]
