"""After the canary of a run: what asking the rest would cost, and whether the run may cost so much."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from orchestrator.domain.errors import TooExpensive
from orchestrator.domain.estimate import basis_of, estimated, without_waking
from orchestrator.domain.events import RestEstimated
from orchestrator.domain.measured_pace import pace_of
from orchestrator.domain.phrases import count, money
from orchestrator.engine.asking.canary import Canary
from orchestrator.engine.run.estimate import usage_of
from orchestrator.store.estimates import Alike

if TYPE_CHECKING:
    from orchestrator.domain.run import Run
    from orchestrator.engine.awake.budget_monitor import BudgetMonitor
    from orchestrator.job import Job
    from orchestrator.ports import EventListener
    from orchestrator.store import Store


class AfterCanary:
    """Decides after the canary of one run. `too_expensive` is set if the rest is not to be asked for its price."""

    def __init__(
        self, run: Run, job: Job, store: Store, budget_monitor: BudgetMonitor, events: EventListener, *, ask: bool
    ) -> None:
        """`ask`: whether the rest is to be asked at all."""
        self._run = run
        self._job = job
        self._store = store
        self._budget_monitor = budget_monitor
        self._events = events
        self._ask = ask
        self._since = time.time()
        self.too_expensive: TooExpensive | None = None

    async def canary(self, items: int) -> Canary:
        """Choose the items that are asked first."""
        return Canary(await self._store.canaries.choose(self._run.id, items), self._goes_on)

    async def _goes_on(self) -> bool:
        """Whether the rest is asked. If its cost cannot be told, it is: the budget holds in any case."""
        if not self._ask:
            return False
        estimates, run = self._store.estimates, self._run.id
        samples, load = await estimates.samples(Alike(run, self._since, time.time())), await estimates.left(run)
        pace, billing = pace_of(samples), without_waking(await estimates.billing(run))
        if pace is None or not load.items:
            return True
        found = estimated(load, pace, billing, basis_of(run, len(samples)), await usage_of(self._job, run, self._store))
        self._events.emit(RestEstimated(load.items, found))
        most, spent = self._job.policy.max_cost, await self._budget_monitor.dollars()
        if most is not None and found.cost is not None and spent + found.cost > most:
            self.too_expensive = TooExpensive(
                f"{count(load.items, 'more item')} would cost about {money(found.cost)}, and {money(spent)} are spent, "
                f"but policy.max_cost is {money(most)}; the answers of the canary are kept: raise it, and run the same "
                "command again to continue"
            )
        return self.too_expensive is None
