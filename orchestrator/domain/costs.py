"""Costs: the sums over the receipts of awake windows."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from orchestrator.domain.terms import cost_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator.domain.terms import Spent

By = Literal["job", "endpoint", "day"]
SWEEP = "(sweep)"  # the payer of a window that only a sweep has used
_LEAST_HELD = 0.001  # seconds: every use of a window gets some share of its cost
_NO_RUN = 0  # stands for uses by a command of the user


@dataclass(frozen=True, slots=True)
class Receipt:
    """One use of a window by one run. `billed_from` and `billed_to` are the window's, `spent` is the run's.

    `billed_seconds`, `billed_dollars`: what the provider bills for the window, for all servers together; None if it
    does not say. Then the time and the price count. What is charged by use has dollars, and a window of no length.
    """

    endpoint: str
    window_id: int
    job: str | None
    run_id: int | None
    since: float
    until: float | None
    spent: Spent
    price_per_hour: float | None
    billed_from: float
    billed_to: float | None
    closed_by: str | None
    said: str | None
    billed_seconds: float | None = None
    billed_dollars: float | None = None

    def awake_in(self, since: float, until: float) -> float:
        """Return for how many seconds the window was billed between these moments."""
        return max(0.0, min(until, self.billed_to or until) - max(since, self.billed_from))

    def dollars_in(self, since: float, until: float) -> float | None:
        """Return what the window cost between these moments; None if the price is unknown."""
        seconds = self.awake_in(since, until)
        if self.billed_dollars is None or self.billed_to is None:
            return cost_of(seconds, self.price_per_hour)
        whole = self.billed_to - self.billed_from
        within = since <= self.billed_to <= until
        return self.billed_dollars * (seconds / whole if whole > 0 else float(within))


@dataclass(frozen=True, slots=True)
class Cost:
    """One line of a bill. `dollars` is None if any price is unknown."""

    what: str
    seconds: float
    dollars: float | None


def bill(receipts: Iterable[Receipt], by: By, now: float, *, since: float = 0.0) -> list[Cost]:
    """Add up windows by endpoint, by job, or by day (UTC) of opening: what they cost since a moment.

    A window is billed from its resume until it was seen asleep (until now if it is still awake), however many runs
    share it, or as its provider says; jobs share the cost in proportion to how long they held it.
    """
    windows: dict[int, list[Receipt]] = defaultdict(list)
    for receipt in receipts:
        windows[receipt.window_id].append(receipt)
    seconds: dict[str, float] = defaultdict(float)
    dollars: dict[str, float | None] = defaultdict(float)
    for sharing in windows.values():
        awake, cost = sharing[0].awake_in(since, now), sharing[0].dollars_in(since, now)
        for what, share in _shares(sharing, by, now):
            seconds[what] += awake * share
            before = dollars[what]
            dollars[what] = None if before is None or cost is None else before + cost * share
    return [Cost(what, seconds[what], dollars[what]) for what in sorted(seconds)]


def billed_since(receipts: Iterable[Receipt], moment: float, now: float) -> float | None:
    """Return the dollars that all windows together have cost since a moment; None if a price is not known."""
    dollars = 0.0
    for window in {receipt.window_id: receipt for receipt in receipts}.values():
        cost = window.dollars_in(moment, now)
        if cost is None:
            return None
        dollars += cost
    return dollars


def bill_runs(receipts: Iterable[Receipt], now: float) -> dict[int, Cost]:
    """Return the cost of each run; runs share windows as in `bill`."""
    named = (replace(use, job=use.job and str(use.run_id or _NO_RUN)) for use in receipts)
    return {int(cost.what): cost for cost in bill(named, "job", now) if cost.what not in {SWEEP, str(_NO_RUN)}}


def _shares(sharing: list[Receipt], by: By, now: float) -> Iterable[tuple[str, float]]:
    first = sharing[0]
    if by == "endpoint":
        yield first.endpoint, 1.0
    elif by == "day":
        yield f"{datetime.fromtimestamp(first.billed_from, UTC):%Y-%m-%d}", 1.0
    else:
        for use, share in shared(sharing, now):
            yield use.job or SWEEP, share


def shared(sharing: Sequence[Receipt], now: float, *, since: float = 0.0) -> list[tuple[Receipt, float]]:
    """Return the fraction of one window that each use pays for, in proportion to how long it held it since then.

    A sweep only cleans up, so it pays only for a window that no run has used. The fractions add up to 1.
    """
    working = [use for use in sharing if use.job is not None] or sharing
    held = [max(_LEAST_HELD, (use.until or now) - max(since, use.since)) for use in working]
    return [(use, length / sum(held)) for use, length in zip(working, held, strict=True)]
