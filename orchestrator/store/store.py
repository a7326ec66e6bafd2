"""Store: the ledger as the engine sees it. One method is one transaction and one named transition."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from orchestrator.store.database import Database
from orchestrator.store.items import Items
from orchestrator.store.runs import Runs
from orchestrator.store.views import Views
from orchestrator.store.windows import Windows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Store:
    """`runs`: who executes what. `items`: ingest ... expire. `windows`: who keeps what awake. `views`: only looks."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.runs = Runs(database)
        self.items = Items(database)
        self.windows = Windows(database)
        self.views = Views(database)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, *, busy_seconds: float = 30.0) -> AsyncIterator[Store]:
        """Open the ledger, creating or upgrading it first. `LedgerError` in plain words where that is impossible."""
        async with Database.open(url, busy_seconds=busy_seconds) as database:
            yield cls(database)
