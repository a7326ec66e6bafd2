"""Store: the ledger as the engine sees it. A method that writes is one transaction and one named transition."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from orchestrator.store.answers import Answers
from orchestrator.store.attempts import Attempts
from orchestrator.store.batches import Batches
from orchestrator.store.database import Database
from orchestrator.store.delivered_items import DeliveredItems
from orchestrator.store.files import Files
from orchestrator.store.finished_runs import FinishedRuns
from orchestrator.store.history import History
from orchestrator.store.items import Items
from orchestrator.store.lasting_holds import LastingHolds
from orchestrator.store.metrics import Metrics
from orchestrator.store.notifications import Notifications
from orchestrator.store.queue import Queue
from orchestrator.store.readings import Readings
from orchestrator.store.retries import Retries
from orchestrator.store.reuse import Reuse
from orchestrator.store.runs import Runs
from orchestrator.store.schedules import Schedules
from orchestrator.store.snapshots import Snapshots
from orchestrator.store.views import Views
from orchestrator.store.windows import Windows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Store:
    """The ledger, by what changes state in it; the package's docstring says which module has which transitions."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.runs = Runs(database)
        self.finished_runs = FinishedRuns(database)
        self.queue = Queue(database)
        self.retries = Retries(database)
        self.schedules = Schedules(database)
        self.snapshots = Snapshots(database)
        self.items = Items(database)
        self.answers = Answers(database)
        self.reuse = Reuse(database)
        self.delivered_items = DeliveredItems(database)
        self.windows = Windows(database)
        self.lasting_holds = LastingHolds(database)
        self.views = Views(database)
        self.attempts = Attempts(database)
        self.readings = Readings(database)
        self.history = History(database)
        self.metrics = Metrics(database)
        self.notifications = Notifications(database)
        self.files = Files(database)
        self.batches = Batches(database, self.files)

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
