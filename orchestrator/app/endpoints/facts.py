"""What is known about an endpoint: its state, hardware, price, current users, and cost this month."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from orchestrator.app.endpoints.lookup import address, management
from orchestrator.domain.costs import bill
from orchestrator.endpoints import HuggingFaceEndpoint
from orchestrator.engine.awake.by_hand import absent, holders

if TYPE_CHECKING:
    from orchestrator.ports import Endpoint
    from orchestrator.store import Store
    from orchestrator.store.windows import Holder

Facts = dict[str, object]


async def facts_of(endpoint: Endpoint, store: Store) -> tuple[Facts, list[Holder]]:
    """Return what the provider and the ledger say about an endpoint, and the processes that use it."""
    facts = await (_of_hugging_face(endpoint) if isinstance(endpoint, HuggingFaceEndpoint) else _of_others(endpoint))
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
    lines = bill(await store.windows.receipts(month.timestamp(), name), "endpoint", now)
    cost = {"seconds": lines[0].seconds, "dollars": lines[0].dollars} if lines else {"seconds": 0.0, "dollars": 0.0}
    owed = any(debt.owed for debt in await store.windows.debts() if debt.endpoint == name)
    kept = await store.lasting_holds.of(name)
    return {"this_month": cost, "pause_owed": owed, "kept_awake": None if kept is None else asdict(kept)}
