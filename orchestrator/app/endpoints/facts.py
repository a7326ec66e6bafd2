"""What is known about an endpoint: its state, hardware, price, current users, and cost this month."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from orchestrator.app.endpoints.lookup import address, management
from orchestrator.app.endpoints.sagemaker import facts_of_sagemaker
from orchestrator.domain.costs import bill
from orchestrator.endpoints import (
    HuggingFaceEndpoint,
    HuggingFaceJobEndpoint,
    HuggingFaceSpaceEndpoint,
    SageMakerEndpoint,
)
from orchestrator.engine.awake.by_hand import absent, holders

if TYPE_CHECKING:
    from orchestrator.endpoints.hf_jobs_api import JobDescription, Jobs
    from orchestrator.endpoints.hf_spaces_api import SpaceRuntime, Spaces
    from orchestrator.ports import Endpoint
    from orchestrator.store import Store
    from orchestrator.store.windows import Holder

Facts = dict[str, object]


async def facts_of(endpoint: Endpoint, store: Store) -> tuple[Facts, list[Holder]]:
    """Return what the provider and the ledger say about an endpoint, and the processes that use it."""
    match endpoint:
        case HuggingFaceEndpoint():
            facts = await _of_hugging_face(endpoint)
        case HuggingFaceJobEndpoint():
            facts = await _of_jobs(endpoint)
        case HuggingFaceSpaceEndpoint():
            facts = await _of_space(endpoint)
        case SageMakerEndpoint():
            facts = await facts_of_sagemaker(endpoint)
        case _:
            facts = await _of_others(endpoint)
    name = str(facts["endpoint"])
    using = await holders(store, name)
    return facts | await _from_the_ledger(store, name), using


async def _of_hugging_face(endpoint: HuggingFaceEndpoint) -> Facts:
    async with management(endpoint) as (api, name):
        found = await api.get(name)
        if found is None:
            raise absent(f"{api.namespace}/{name}")
        price = endpoint.price_per_hour
        price = await api.price(found.hardware) if price is None else price
    scaling = found.scaling
    return {
        "endpoint": f"{api.namespace}/{name}",
        "kind": "HuggingFaceEndpoint",
        "state": found.state,
        "message": found.message or None,
        "url": found.url,
        "serves": found.repository,
        "hardware": asdict(found.hardware),
        "price_per_hour": price,
        "replicas": {
            "ready": found.ready,
            "target": found.target,
            "min": scaling.min_replica,
            "max": scaling.max_replica,
        },
        "scale_to_zero_minutes": scaling.scale_to_zero_timeout,
    }


async def _of_jobs(endpoint: HuggingFaceJobEndpoint) -> Facts:
    """Return the jobs that are running or starting, else the last one."""
    async with endpoint.jobs() as jobs:
        found = await jobs.newest()
        shown = [await job_facts(jobs, job, endpoint.price_per_hour) for job in found]
        name = f"{jobs.calls.namespace}/{endpoint.name.rpartition('/')[2]}"
    alive = [one for one, job in zip(shown, found, strict=True) if not job.ended]
    prices = [price for one in alive if isinstance(price := one["price_per_hour"], float | int)]
    wanted = f" of {endpoint.replicas}" if endpoint.image else ""  # the ledger does not say how many
    return {
        "endpoint": name,
        "kind": "HuggingFaceJobEndpoint",
        "state": f"{len(alive)}{wanted} jobs" if alive else "no job",
        "jobs": shown,
        "price_per_hour": sum(prices) if prices and len(prices) == len(alive) else None,
    }


async def job_facts(jobs: Jobs, job: JobDescription, price: float | None = None) -> Facts:
    """Return what the provider says about a job. `price`: dollars per hour, if the user has set it."""
    return {
        "job": job.id,
        "replica": job.replica,
        "stage": job.stage,
        "message": job.message or None,
        "url": job.urls[0] if job.urls else None,
        "hardware": job.flavor,
        "price_per_hour": await jobs.price(job.flavor) if price is None else price,
        "billed_seconds": job.billed_seconds,
    }


async def _of_space(endpoint: HuggingFaceSpaceEndpoint) -> Facts:
    name = endpoint.space.partition("/")[2]
    async with endpoint.spaces() as spaces:
        runtime = await spaces.runtime(name)
        if runtime is None:
            raise absent(endpoint.name)
        facts = await space_facts(spaces, runtime, endpoint.price_per_hour)
        address = await spaces.address(name)
    kind = "HuggingFaceSpaceEndpoint"
    return {"endpoint": endpoint.name, "kind": kind, **facts, "url": address.url, "private": address.private}


async def space_facts(spaces: Spaces, runtime: SpaceRuntime, price: float | None = None) -> Facts:
    """Return what the provider says about a Space. `price`: dollars per hour, if the user has set it."""
    return {
        "state": runtime.stage,
        "message": runtime.message or None,
        "hardware": runtime.hardware,
        "price_per_hour": await spaces.price(runtime.hardware) if price is None else price,
        "sleep_seconds": runtime.sleep_seconds,
    }


async def _of_others(endpoint: Endpoint) -> Facts:
    async with endpoint.control() as control:
        state = await control.state()
        terms = control.terms
        return {
            "endpoint": terms.endpoint if terms else endpoint.name,
            "kind": type(endpoint).__name__,
            "state": str(state) if terms else "kept running by somebody else",
            "message": control.status_text if terms else None,
            "url": address(endpoint),
            "answers": None if state.asleep and terms else await control.answers(),
            "price_per_hour": terms.price_per_hour if terms else None,
        }


async def _from_the_ledger(store: Store, name: str) -> Facts:
    now = time.time()
    month = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    lines = bill(await store.receipts.since(month.timestamp(), name), "endpoint", now)
    cost = {"seconds": lines[0].seconds, "dollars": lines[0].dollars} if lines else {"seconds": 0.0, "dollars": 0.0}
    owed = any(debt.owed for debt in await store.windows.debts() if debt.endpoint == name)
    kept = await store.lasting_holds.of(name)
    return {"this_month": cost, "pause_owed": owed, "kept_awake": None if kept is None else asdict(kept)}
