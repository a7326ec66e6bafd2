"""Store: the ledger as the engine sees it. One method is one transaction and one named transition."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from orchestrator.store.answers import Answers
from orchestrator.store.attempts import Attempts
from orchestrator.store.database import Database
from orchestrator.store.delivered_items import DeliveredItems
from orchestrator.store.history import History
from orchestrator.store.items import Items
from orchestrator.store.lasting_holds import LastingHolds
from orchestrator.store.notifications import Notifications
from orchestrator.store.queue import Queue
from orchestrator.store.readings import Readings
from orchestrator.store.reuse import Reuse
from orchestrator.store.runs import Runs
from orchestrator.store.schedules import Schedules
from orchestrator.store.snapshots import Snapshots
from orchestrator.store.views import Views
from orchestrator.store.windows import Windows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Store:
    """`runs`: who executes what. `queue`: what is to be executed. `schedules`: when.

    `snapshots`, `items`, `answers`: rows become items, these are settled, a changed `parse` looks at them again.
    `reuse`: what other jobs have answered.
    `windows`, `lasting_holds`: who keeps what awake. `readings`, `known`, `telling`: how runs went, what incremental
    jobs delivered, who was told. `views`, `attempts`, `history`: only looks.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.runs = Runs(database)
        self.queue = Queue(database)
        self.schedules = Schedules(database)
        self.snapshots = Snapshots(database)
        self.items = Items(database)
        self.answers = Answers(database)
        self.reuse = Reuse(database)
        self.known = DeliveredItems(database)
        self.windows = Windows(database)
        self.lasting_holds = LastingHolds(database)
        self.views = Views(database)
        self.attempts = Attempts(database)
        self.readings = Readings(database)
        self.history = History(database)
        self.notifications = Notifications(database)

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
        """Open the ledger, upgrading it first. `LedgerError` in plain words where that is impossible.

        Where there is none, it is created, or `UsageError` says so. `say`: gets a line while another process keeps a
        write waiting.
        """
        async with Database.open(url, busy_seconds=busy_seconds, create=create, say=say) as database:
            yield cls(database)
