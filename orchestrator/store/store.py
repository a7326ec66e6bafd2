"""Store: the ledger as the engine sees it. A method that writes is one transaction and one named transition."""

from __future__ import annotations

from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from orchestrator.store.database import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from orchestrator.store.answers import Answers
    from orchestrator.store.asks import Asks
    from orchestrator.store.attempts import Attempts
    from orchestrator.store.batches import Batches
    from orchestrator.store.canaries import Canaries
    from orchestrator.store.charges import Charges
    from orchestrator.store.delivered_items import DeliveredItems
    from orchestrator.store.estimates import Estimates
    from orchestrator.store.files import Files
    from orchestrator.store.finished_runs import FinishedRuns
    from orchestrator.store.history import History
    from orchestrator.store.items import Items
    from orchestrator.store.lasting_holds import LastingHolds
    from orchestrator.store.metrics import Metrics
    from orchestrator.store.notifications import Notifications
    from orchestrator.store.queue import Queue
    from orchestrator.store.readings import Readings
    from orchestrator.store.receipts import Receipts
    from orchestrator.store.retries import Retries
    from orchestrator.store.reuse import Reuse
    from orchestrator.store.runs import Runs
    from orchestrator.store.schedules import Schedules
    from orchestrator.store.snapshots import Snapshots
    from orchestrator.store.transcripts import Transcripts
    from orchestrator.store.views import Views
    from orchestrator.store.windows import Windows


class Store:
    """The ledger, by what changes state in it; the package's docstring says which module has which transitions.

    Each part is the class of this name in the module of its own name, imported when it is first used: most commands
    need a few.
    """

    runs: Runs
    finished_runs: FinishedRuns
    queue: Queue
    retries: Retries
    schedules: Schedules
    snapshots: Snapshots
    items: Items
    answers: Answers
    asks: Asks
    reuse: Reuse
    canaries: Canaries
    charges: Charges
    delivered_items: DeliveredItems
    estimates: Estimates
    windows: Windows
    receipts: Receipts
    lasting_holds: LastingHolds
    views: Views
    transcripts: Transcripts
    attempts: Attempts
    readings: Readings
    history: History
    metrics: Metrics
    notifications: Notifications
    files: Files
    batches: Batches

    def __init__(self, database: Database) -> None:
        self.database = database

    if not TYPE_CHECKING:  # so that a type checker reports names that do not exist

        def __getattr__(self, name: str) -> object:
            if name not in Store.__annotations__:
                raise AttributeError(name)
            part = getattr(import_module(f"orchestrator.store.{name}"), Store.__annotations__[name])(self.database)
            setattr(self, name, part)
            return part

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str,
        *,
        busy_seconds: float = 30.0,
        create: bool = True,
        say: Callable[[str], None] = lambda _line: None,
    ) -> AsyncIterator[Store]:
        """Open a ledger as `Database.open` does: upgraded first if need be, and created unless `create` is false."""
        async with Database.open(url, busy_seconds=busy_seconds, create=create, say=say) as database:
            yield cls(database)
