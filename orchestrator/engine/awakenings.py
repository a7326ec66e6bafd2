"""Awakenings: when each endpoint was awake in a period, what used it, what it cost, and how it was left."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.domain.costs import Receipt
from orchestrator.domain.terms import cost_of
from orchestrator.engine.awake.reaper import reap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.domain.report_data import AwakeWindow
    from orchestrator.store import Store

_MOST = 1000  # windows of a period


@dataclass(frozen=True, slots=True)
class Awakening:
    """An awake window with all its uses, oldest first."""

    window: AwakeWindow
    uses: Sequence[Receipt]

    def seconds(self, now: float) -> float:
        """Return for how long the endpoint was, or has been, awake."""
        return max(0.0, (self.window.billed_to or now) - self.window.billed_from)

    def cost(self, now: float) -> float | None:
        """Return its cost in dollars; None if the price is not known."""
        if self.uses:
            return self.uses[0].dollars_in(0.0, now)
        return cost_of(self.seconds(now), self.window.price_per_hour)


@dataclass(frozen=True, slots=True)
class Awakenings:
    """The awake windows of the period from `since` to `until`, the latest first. `all_shown`: none is left out."""

    since: float
    until: float
    windows: Sequence[Awakening]
    all_shown: bool

    @property
    def debts(self) -> list[AwakeWindow]:
        """The windows whose endpoint must be paused, and no process will do that."""
        return [one.window for one in self.windows if one.window.is_debt]


async def awakenings_since(store: Store, since: float) -> Awakenings:
    """Return the windows that were open at any time since a moment, and all that are open now."""
    await reap(store)  # what a killed process held is a debt
    found = await store.history.latest_windows(since, _MOST)
    uses = {number: list[Receipt]() for number, _ in found}
    for use in await store.receipts.of(uses):
        uses[use.window_id].append(use)
    windows = [Awakening(window, uses[number]) for number, window in found]
    return Awakenings(since, time.time(), windows, all_shown=len(found) < _MOST)
