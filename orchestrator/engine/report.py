"""Report: gather what the ledger says about a period, or about one run."""

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

_CAUSES = 10  # the most frequent causes shown for each run
_DAY = 86_400.0


async def report_since(store: Store, since: float) -> Report:
    """Report on everything since a moment, in seconds since 1970 UTC."""
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
    """Report on one run. `over`: its process only has to send this report, so the run counts as ended."""
    now = time.time()
    (run,), oldest = await _in_full(store, [await store.history.run(run_id)])
    run = replace(run, executing=run.executing and not over)
    found = ReportData(
        run.started_at or run.created_at,
        now,
        [run],
        await store.windows.receipts(min(oldest, now - DAYS * _DAY) - _DAY),
        await store.history.windows(0.0, run_id),
        [queued for queued in await _waiting(store, now) if queued.run == run_id],
        one_run=True,
    )
    return report_on(found)


async def traffic_in(store: Store, run_id: int, readings: Sequence[Reading], *, executing: bool) -> Traffic:
    """Return latency and failures of a run's requests."""
    latency, failed = await store.attempts.latency(run_id), await store.attempts.failed(run_id)
    return traffic_of(readings, latency, failed, executing=executing)


async def _in_full(store: Store, runs: Sequence[Ran]) -> tuple[list[Ran], float]:
    """Return the runs with their readings, causes and predecessors, and when the oldest of them was created."""
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
