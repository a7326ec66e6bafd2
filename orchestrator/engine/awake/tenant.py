"""Tenant: the user of an endpoint, as `Awake` needs to know it."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from orchestrator.engine.awake.budget_monitor import BudgetMonitor
    from orchestrator.engine.awake.guarding import Guard
    from orchestrator.ports import EventListener
    from orchestrator.store import Store


async def endless() -> float:
    """Return the lifetime of a server that nothing limits."""
    return inf


@dataclass(frozen=True, slots=True)
class Tenant:
    """The user of an endpoint. While the context from `guard` is open, the endpoint is paused if this process dies.

    `lifetime`: returns the most seconds for which a server that is started now can be needed.
    """

    store: Store
    process_id: int
    events: EventListener
    guard: Guard
    run_id: int | None
    job: str
    budget_monitor: BudgetMonitor | None = None  # limits the cost of endpoints that bill; None: no limit
    lifetime: Callable[[], Awaitable[float]] = endless
