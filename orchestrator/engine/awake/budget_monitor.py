"""allowance: what endpoints that bill may still cost a run, by the ledger, with all processes that spend from it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.budget import Budgets, BudgetStanding, day_of, standing
from orchestrator.domain.errors import BudgetSpent

if TYPE_CHECKING:
    from orchestrator.domain.run import Run
    from orchestrator.store import Store

LOOK = 2.0  # seconds between two looks at the ledger at the most: others may spend, too
_SOON = 0.02  # and at the least


class BudgetMonitor:
    """The budgets of one run. They are the ledger's affair: several runs and processes share those of a day."""

    def __init__(self, store: Store, run: Run, budgets: Budgets) -> None:
        self._store = store
        self._run = run
        self._budgets = budgets
        self._is_spent = anyio.Event()
        self._stirred = anyio.Event()
        self.standing: BudgetStanding | None = None  # once something is spent

    def check_price(self, price_per_hour: float | None) -> None:
        """`UsageError` where dollars are to be counted, and the endpoint's price is not known."""
        self._budgets.check_price(price_per_hour)

    async def watch(self) -> None:
        """Look every few seconds until something is spent."""
        while self._budgets and not (found := await self._look()).whose:
            with anyio.move_on_after(max(_SOON, min(found.lasts, LOOK))):
                await self._stirred.wait()
                self._stirred = anyio.Event()

    def stir(self) -> None:
        """Something more costs from now on."""
        self._stirred.set()

    async def spent(self) -> None:
        """Return when something is spent, as long as somebody watches."""
        await self._is_spent.wait()

    async def check(self) -> None:
        """Before an endpoint is woken: `BudgetSpent` where it may not be."""
        if self._budgets and (found := await self._look()).whose:
            raise BudgetSpent(f"{found}; {found.remedy}", found.until)

    async def _look(self) -> BudgetStanding:
        now = time.time()
        # a run may be older than the day, but no window that it has held can have ended before it began
        receipts = await self._store.windows.receipts_after(min(self._run.created_at, day_of(now)[0]))
        found = standing(self._budgets, receipts, self._run.id, self._run.job, now)
        if found.whose is not None:
            self.standing = found
            self._is_spent.set()
        return found
