"""Receipts: what awake windows cost, use by use, and what endpoints charged by use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from orchestrator.domain.costs import Receipt
from orchestrator.domain.terms import Spent
from orchestrator.store.charges import receipts_of_charges

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from orchestrator.store.database import Database


class Receipts:
    """What the uses of endpoints cost."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def since(self, moment: float = 0.0, endpoint: str | None = None) -> list[Receipt]:
        """Every use of every window opened since that moment, oldest first, and what was charged by use."""
        where = "w.opened_at >= :moment AND (:endpoint IS NULL OR w.endpoint = :endpoint)"
        return await self._where(where, {"moment": moment, "endpoint": endpoint}, charged_since=moment)

    async def after(self, moment: float) -> list[Receipt]:
        """Every use of every window that is open or was closed after that moment, and what was charged by use."""
        where = "w.state <> 'closed' OR w.closed_at >= :moment"
        return await self._where(where, {"moment": moment}, charged_since=moment)

    async def of(self, windows: Collection[int]) -> list[Receipt]:
        """Every use of these windows, oldest first."""
        where = "w.id IN (SELECT value FROM json_each(:windows))"
        return await self._where(where, {"windows": orjson.dumps(list(windows)).decode()})

    async def _where(
        self, where: str, values: Mapping[str, Any], *, charged_since: float | None = None
    ) -> list[Receipt]:
        statement = f"""
            SELECT w.endpoint, w.id, h.job, h.run_id, h.since, h.until, h.cold_start, h.work, h.idle, h.pausing,
                   w.price_per_hour, coalesce(w.resumed_at, w.opened_at), w.closed_at, w.closed_by, w.said,
                   w.billed_seconds, w.billed_dollars
            FROM awake_window w JOIN hold h ON h.window_id = w.id WHERE {where} ORDER BY h.id
        """
        async with self._database.read() as connection:
            rows = await connection.execute(statement, values)
            found = [
                Receipt(row[0], row[1], row[2], row[3], row[4], row[5], Spent(*row[6:10]), *row[10:]) for row in rows
            ]
            if charged_since is not None:
                found += await receipts_of_charges(connection, charged_since, values.get("endpoint"))
            return found
