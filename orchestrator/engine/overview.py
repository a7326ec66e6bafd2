"""Overview: what is awake, executed, queued and in trouble now. Gathers less than the report, so it can be live."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from orchestrator.domain.ahead import Ahead, ahead
from orchestrator.domain.budget import day_of
from orchestrator.domain.costs import billed_since
from orchestrator.domain.report import report_on
from orchestrator.domain.report_data import ReportData
from orchestrator.domain.traffic import traffic_of
from orchestrator.engine.awake.reaper import reap

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from orchestrator.domain.queue import Queued
    from orchestrator.domain.report import RunReport
    from orchestrator.domain.report_data import AwakeWindow, Ran
    from orchestrator.domain.run import Cause
    from orchestrator.store import Store

# Returns the most frequent causes of a run's failures: at most so many.
CausesOf: TypeAlias = "Callable[[int, int], Awaitable[Sequence[Cause]]]"
_READINGS = 480  # of a run: more than a chart has points
_DAY = 86_400.0
_CAUSES = 5  # the most frequent causes shown for each run
_TROUBLED = 10  # runs
_SAMPLED = 4  # chunks whose answers tell how long answers take


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A run, and what is ahead of it."""

    report: RunReport
    ahead: Ahead


@dataclass(frozen=True, slots=True)
class Overview:
    """What happens now. `at`: seconds since 1970 UTC. `awake`: open windows, those that are owed a pause first.

    `spent`: dollars that all endpoints have cost today (UTC); None if a price is not known. `queue`: runs that wait.
    `served`: whether a daemon is running. `troubled`: runs of the last day that failed, or that have discarded items.
    """

    at: float
    awake: Sequence[AwakeWindow]
    spent: float | None
    executing: Sequence[LiveRun]
    queue: Sequence[Queued]
    served: bool
    troubled: Sequence[RunReport]


async def overview_of(store: Store, causes: CausesOf) -> Overview:
    """Return what happens now. Costs the same however many runs have ended."""
    await reap(store)  # a run whose process was killed is not being executed
    now = time.time()
    executing = [await _with_readings(store, ran) for ran in await store.history.executing()]
    troubled = [
        replace(ran, causes=await causes(ran.id, _CAUSES) if ran.discarded else [])
        for ran in await store.history.troubled(now - _DAY, _TROUBLED)
    ]
    oldest = min([now, *(ran.created_at for ran in executing)])
    data = ReportData(
        now,
        now,
        [*executing, *troubled],
        await store.receipts.since(oldest - _DAY),
        await store.history.windows(now),
    )
    report = report_on(data)
    awake = [*report.debts, *report.awake]
    midnight, _ = day_of(now)
    spent = billed_since(await store.receipts.after(midnight), midnight, now)
    return Overview(
        now,
        awake,
        spent,
        [_live(run, awake) for run in report.runs[: len(executing)]],
        [one for one in await store.queue.listed(now) if not one.executing],
        await store.queue.served(),
        report.runs[len(executing) :],
    )


async def watched(store: Store, run_id: int, causes: CausesOf) -> tuple[LiveRun, float]:
    """Return one run as it is now, and the moment."""
    await reap(store)
    now = time.time()
    ran = await _with_readings(store, await store.history.run(run_id))
    asks = (await store.transcripts.totals([run_id])).get(run_id, [])
    latency = (await store.attempts.latency([run_id], _SAMPLED)).get(run_id)
    traffic = replace(ran.traffic, latency=latency)
    ran = replace(ran, causes=await causes(run_id, _CAUSES) if ran.discarded else [], asks=asks, traffic=traffic)
    receipts = await store.receipts.since(ran.created_at - _DAY)
    windows = await store.history.windows(0.0, run_id)
    report = report_on(ReportData(ran.created_at, now, [ran], receipts, windows, one_run=True))
    return _live(report.runs[0], [*report.debts, *report.awake]), now


def _live(run: RunReport, awake: Sequence[AwakeWindow]) -> LiveRun:
    used = [window for window in awake if any(user.run == run.ran.id for user in window.users)]
    return LiveRun(run, ahead(run.ran, used))


async def _with_readings(store: Store, ran: Ran) -> Ran:
    readings = await store.readings.of(ran.id, _READINGS)
    return replace(ran, readings=readings, traffic=traffic_of(readings, None, (), executing=ran.executing))
