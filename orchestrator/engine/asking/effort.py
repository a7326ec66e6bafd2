"""Effort: how one endpoint is to be used in one session."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.domain.pace import Pace
from orchestrator.engine.asking.machine import Machine
from orchestrator.engine.asking.outage import Outage
from orchestrator.engine.asking.run_controls import ConcurrencyShare

if TYPE_CHECKING:
    from orchestrator.domain.limiter import Limiter
    from orchestrator.domain.sizing import Sizer
    from orchestrator.engine.asking.run_controls import RunControls
    from orchestrator.engine.progress import Presence
    from orchestrator.engine.stop import Stop


@dataclass(frozen=True, slots=True)
class Effort:
    """How one endpoint is to be used. `weight`: of it, how many times the requests that others get at once.

    `leave_below`: once fewer items are left, they are somebody else's. `blames_large`: a loss may be blamed on large
    items, for proxies answer 503 to a body beyond the server's limit. `pace`: of the whole run, whoever is asked.
    `cold_start`: seconds that waking the endpoint has taken. `machine`: what ours has room for. `outage`: what is known
    of whether the endpoint is down.
    """

    presence: Presence
    controls: RunControls
    stop: Stop  # of this endpoint
    limiter: Limiter | None = None  # where the policy's concurrency is "auto"
    sizer: Sizer | None = None  # where the policy's batch size is
    weight: float = 1.0
    leave_below: int = 0
    blames_large: bool = False
    pace: Pace = field(default_factory=Pace)
    cold_start: float = 0.0
    machine: Machine = field(default_factory=Machine)
    outage: Outage = field(default_factory=Outage)
    share: ConcurrencyShare = field(default_factory=ConcurrencyShare)  # one for all members of an endpoint
