"""Budget: how long an endpoint may be awake for a run, and what finishing it would take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.domain.policy import Policy
    from orchestrator.domain.terms import Spent


def awake_limit(policy: Policy, price_per_hour: float | None) -> float | None:
    """Seconds that `max_awake` and `max_cost` allow together; None for no limit. `UsageError` without a price."""
    limits = [] if policy.max_awake is None else [policy.max_awake]
    if policy.max_cost is not None:
        if price_per_hour is None:
            raise UsageError(
                "policy.max_cost needs to know what the endpoint costs: set price_per_hour= on the endpoint, "
                "or limit the time with policy.max_awake"
            )
        if price_per_hour > 0:
            limits.append(policy.max_cost / price_per_hour * 3600)
    return min(limits, default=None)


def to_finish(left: int, settled: int, spent: Spent) -> float | None:
    """Seconds of work that `left` items would take at the pace of those settled; None before that can be said."""
    return None if not settled or not spent.work else left * spent.work / settled
