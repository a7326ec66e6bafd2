"""Gather what an estimate is made from: the earlier runs that are alike, and their awake windows.

`domain/measured_pace.py` knows a `Workload` (items and characters to ask), `Sample`s (answered requests) and the
`MeasuredPace` fitted to them, `domain/estimate.py` the `Billing` of each endpoint (seconds awake beside the asking,
price); `estimated` makes an `Estimate` of them, which says why where it says nothing. A plan's load is counted while
rows are classified (`store/snapshots.py`); samples and billing come from the ledger (`store/estimates.py`), from the
latest run that is alike. What a server got done in a time is fitted, not latencies, because these include waiting in
its queue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain.estimate import NOTHING_TO_ASK, Estimate, Usage, basis_of, estimated
from orchestrator.domain.measured_pace import pace_of
from orchestrator.domain.urls import shown
from orchestrator.ports import PricedByUse

if TYPE_CHECKING:
    from orchestrator.domain.measured_pace import Workload
    from orchestrator.job import Job
    from orchestrator.store import Store


async def estimate_for(load: Workload, job: Job, identity: object, job_id: int | None, store: Store) -> Estimate:
    """Estimate what asking this load would take, from the latest run of the job that says enough."""
    if not load.items:
        return NOTHING_TO_ASK
    if job.rollout is not None:
        return Estimate(reason="how much a rollout asks is not known before it runs")
    names = ", ".join(one.endpoint.name for one in job.endpoints)
    alike = [] if job_id is None else await store.estimates.alike(job_id, names, shown(identity))
    for run in alike:
        if (pace := pace_of(await store.estimates.samples(run))) is not None:
            billing, usage = await store.estimates.billing(run.run), await usage_of(job, run.run, store)
            return estimated(load, pace, billing, basis_of(run.run, pace.samples), usage)
    return estimated(load, None, [], "", await usage_of(job, None, store))


async def usage_of(job: Job, run_id: int | None, store: Store) -> Usage:
    """Return what limits and prices the job has, and the tokens of items in this run. With one endpoint, it may charge.

    Of several endpoints that charge, nobody knows beforehand which of them will answer how much.
    """
    policy, endpoints = job.policy, [one.endpoint for one in job.endpoints]
    prices = [one.use_price for one in endpoints if isinstance(one, PricedByUse) and one.use_price is not None]
    return Usage(
        None if policy.batch_size == "auto" else policy.batch_size or 1,
        policy.requests_per_minute,
        policy.tokens_per_minute,
        None if run_id is None else await store.estimates.tokens(run_id),
        prices[0] if len(endpoints) == 1 and prices else None,
    )
