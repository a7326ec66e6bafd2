"""Report: gather what the ledger says about a period, or about one run."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.domain.report import DAYS, Report, report_on
from orchestrator.domain.report_data import Before, QueuedRun, Ran, ReportData
from orchestrator.domain.traffic import SAMPLED, Traffic, traffic_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from orchestrator.domain.readings import Reading
    from orchestrator.store import Store

_CAUSES = 10  # the most frequent causes shown for each run
_GROUP = 100_000  # items of the runs that are looked at with one query
_DAY = 86_400.0


async def report_since(store: Store, since: float) -> Report:
    """Report on everything since a moment, in seconds since 1970 UTC."""
    now = time.time()
    runs, oldest = await _in_full(store, await store.history.runs(since))
    found = ReportData(
        since,
        now,
        runs,
        await store.receipts.since(min(oldest, since, now - DAYS * _DAY) - _DAY),
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
        await store.receipts.since(min(oldest, now - DAYS * _DAY) - _DAY),
        await store.history.windows(0.0, run_id),
        [queued for queued in await _waiting(store, now) if queued.run == run_id],
        one_run=True,
    )
    return report_on(found)


async def traffic_in(
    store: Store, run_id: int, readings: Sequence[Reading], *, executing: bool, sampled: int = SAMPLED
) -> Traffic:
    """Return latency and failures of a run's requests. `sampled`: as in `Attempts.latency`."""
    latency, failed = await store.attempts.latency([run_id], sampled), await store.attempts.failed([run_id])
    return traffic_of(readings, latency.get(run_id), failed.get(run_id, []), executing=executing)


async def _in_full(store: Store, runs: Sequence[Ran]) -> tuple[list[Ran], float]:
    """Return the runs with their readings, causes and predecessors, and when the oldest of them was created."""
    before = await store.history.before([run.id for run in runs])
    found: list[Ran] = []
    for group in _groups(runs):
        found += await _group_in_full(store, group, before)
    created = [run.created_at for run in runs] + [created_at for _, created_at in before.values()]
    return found, min(created, default=time.time())


async def _group_in_full(store: Store, runs: Sequence[Ran], before: Mapping[int, tuple[int, float]]) -> list[Ran]:
    ids = [run.id for run in runs]
    earlier = {before[run][0] for run in ids if run in before}
    readings = await store.readings.of_runs([*earlier.union(ids)])
    causes = await store.views.causes_in(ids, _CAUSES)
    noted = await store.views.noted_in(ids)
    latency, failed = await store.attempts.latency(ids), await store.attempts.failed(ids)
    asks = await store.transcripts.totals(ids)
    return [
        replace(
            run,
            readings=(own := readings.get(run.id, [])),
            causes=causes.get(run.id, []),
            noted=noted.get(run.id, {}),
            asks=asks.get(run.id, []),
            traffic=traffic_of(own, latency.get(run.id), failed.get(run.id, []), executing=run.executing),
            before=None if run.id not in before else Before(before[run.id][0], readings.get(before[run.id][0], [])),
        )
        for run in runs
    ]


def _groups(runs: Sequence[Ran]) -> Iterator[list[Ran]]:
    """Yield the runs in groups, each of which is read with one query of a kind: by items, to limit the memory."""
    group: list[Ran] = []
    items = 0
    for run in runs:
        if group and items + run.total > _GROUP:
            yield group
            group, items = [], 0
        group.append(run)
        items += run.total
    if group:
        yield group


async def _waiting(store: Store, now: float) -> list[QueuedRun]:
    return [
        QueuedRun(one.id, one.job, one.due_at, one.deadline, one.why, one.waits_for)
        for one in await store.queue.listed(now)
        if not one.executing
    ]
