"""Metrics: what a monitoring system wants to know about a ledger, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.domain.running_totals import RunningTotals


@dataclass(frozen=True, slots=True)
class AwakeTotal:
    """For how many seconds an endpoint has been awake, and what that cost as far as prices are known.

    `awake`: whether it is awake now, or was not yet seen asleep.
    """

    seconds: float
    dollars: float | None
    awake: bool


@dataclass(frozen=True, slots=True)
class LedgerMetrics:
    """A ledger at one moment. `executing`: runs that a living process executes.

    `items`: those of runs that have not ended, "available" or "leased". `in_flight`: requests, as of a few seconds ago.
    `queue`: queued runs that are not executed, "due", "later" or "held". `debts`: endpoints that are owed a pause.
    """

    totals: RunningTotals
    items: Mapping[str, int]
    in_flight: int
    executing: int
    queue: Mapping[str, int]
    endpoints: Mapping[str, AwakeTotal]
    debts: int = 0
