"""Budget monitor: how much endpoints that bill may still cost a run, across all processes that spend the budget."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.budget import Budgets, BudgetStanding, day_of, standing, used
from orchestrator.domain.errors import BudgetSpent

if TYPE_CHECKING:
    from orchestrator.domain.run import Run
    from orchestrator.store import Store

LOOK = 2.0  # at most this many seconds between two checks of the ledger, since others spend from the budget as well
_SOON = 0.02  # and at least this many


@dataclass(frozen=True, slots=True)
class Payer:
    """What a budget is for, if it is not a run: a command of the user, since a moment in seconds since 1970 UTC."""

    id: None
    job: str
    created_at: float


class BudgetMonitor:
    """The budgets of one run, or of a command of the user.

    They are kept in the ledger, as several runs and processes share those of a day.
    """

    def __init__(self, store: Store, run: Run | Payer, budgets: Budgets) -> None:
        self._store = store
        self._run = run
        self._budgets = budgets
        self._is_spent = anyio.Event()
        self._stirred = anyio.Event()
        self.standing: BudgetStanding | None = None  # set once a budget is spent

    def check_price(self, price_per_hour: float | None) -> None:
        """Raise `UsageError` if a budget is in dollars and the endpoint's price is not known."""
        self._budgets.check_price(price_per_hour)

    async def watch(self) -> None:
        """Check every few seconds until a budget is spent."""
        while self._budgets and not (latest := await self._look()).whose:
            with anyio.move_on_after(max(_SOON, min(latest.lasts, LOOK))):
                await self._stirred.wait()
                self._stirred = anyio.Event()

    def stir(self) -> None:
        """Check again at once, because something more costs money from now on."""
        self._stirred.set()

    async def spent(self) -> None:
        """Return when a budget is spent, as long as `watch` runs."""
        await self._is_spent.wait()

    async def left(self) -> float:
        """Return the seconds until a budget is spent if nothing else begins to cost money; infinite without one."""
        return (await self._look()).left if self._budgets else inf

    async def dollars(self) -> float:
        """Return what the run has cost so far."""
        receipts, now = await self._store.receipts.after(self._run.created_at), time.time()
        return used(receipts, 0.0, now, lambda receipt: receipt.run_id == self._run.id).dollars

    async def check(self) -> None:
        """Raise `BudgetSpent` if no endpoint may be woken any more."""
        if self._budgets and (latest := await self._look()).whose:
            raise BudgetSpent(f"{latest}; {latest.remedy}", latest.until)

    async def _look(self) -> BudgetStanding:
        now = time.time()
        # a run may have been created before today, but no window that it has held can have ended before it was created
        receipts = await self._store.receipts.after(min(self._run.created_at, day_of(now)[0]))
        latest = standing(self._budgets, receipts, self._run.id, self._run.job, now, begun=self._run.created_at)
        if latest.whose is not None:
            self.standing = latest
            self._is_spent.set()
        return latest
