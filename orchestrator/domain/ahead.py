"""What is ahead of a run that is being executed: how long it will take, and what that will cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.domain.terms import cost_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.domain.report_data import AwakeWindow, Ran


@dataclass(frozen=True, slots=True)
class Ahead:
    """The seconds and dollars until all items are settled, at the present pace.

    `seconds` is None while the pace is not known. `dollars` is None then, if no billed endpoint is awake for the run,
    or if the price of one is not known.
    """

    seconds: float | None = None
    dollars: float | None = None


def ahead(ran: Ran, windows: Sequence[AwakeWindow]) -> Ahead:
    """Return what is ahead of a run. It pays an equal share of each endpoint that it uses with other runs."""
    if not ran.executing or not ran.rate:
        return Ahead()
    seconds = (ran.total - ran.completed - ran.discarded) / ran.rate
    runs = [(window, [user.run for user in window.users if user.run is not None]) for window in windows]
    costs = [
        None if (whole := cost_of(seconds, window.price_per_hour)) is None else whole / len(users)
        for window, users in runs
        if ran.id in users
    ]
    known = [cost for cost in costs if cost is not None]
    return Ahead(seconds, sum(known) if known and len(known) == len(costs) else None)
