"""Effort: how one endpoint is used in one session."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.domain.pace import Pace
from orchestrator.engine.asking.machine import Machine
from orchestrator.engine.asking.outage import Outage
from orchestrator.engine.asking.run_controls import ConcurrencyShare

if TYPE_CHECKING:
    from orchestrator.domain.charges import UsePrice
    from orchestrator.domain.limiter import Limiter
    from orchestrator.domain.sizing import Sizer
    from orchestrator.engine.asking.run_controls import RunControls
    from orchestrator.engine.progress import Presence
    from orchestrator.engine.stop import Stop


@dataclass(slots=True)
class Leave:
    """When endpoints leave what is left to the fallback: once fewer items than this are left."""

    below: int = 0


@dataclass(frozen=True, slots=True)
class Effort:
    """How one endpoint is used. `weight`: its share of the requests at once, relative to other endpoints.

    `leave`: when this endpoint leaves items to others. `blames_large`: a loss may be blamed
    on large items, since proxies answer 503 to a body beyond the server's limit. `pace`: of the whole run, across
    endpoints. `cold_start`: seconds that waking the endpoint took. `machine`: how many connections this machine allows.
    `outage`: what is known about whether the endpoint is down. `use_price`: what the endpoint charges for answers.
    """

    presence: Presence
    controls: RunControls
    stop: Stop  # of this endpoint
    limiter: Limiter | None = None  # if the policy's concurrency is "auto"
    sizer: Sizer | None = None  # if a request may hold several items
    weight: float = 1.0
    leave: Leave = field(default_factory=Leave)
    blames_large: bool = False
    pace: Pace = field(default_factory=Pace)
    cold_start: float = 0.0
    use_price: UsePrice | None = None
    machine: Machine = field(default_factory=Machine)
    outage: Outage = field(default_factory=Outage)
    share: ConcurrencyShare = field(default_factory=ConcurrencyShare)  # one for all members of an endpoint
