"""Charges: what answers cost that are paid by the request or the token, by run, endpoint and day (UTC)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import orjson

from orchestrator.domain.budget import day_of
from orchestrator.domain.costs import Receipt
from orchestrator.domain.running_totals import Total
from orchestrator.domain.terms import Spent
from orchestrator.store.running_totals import grow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.domain.charges import Charge
    from orchestrator.store.connection import AsyncConnection
    from orchestrator.store.database import Database

_ADD = """
INSERT INTO charge (run_id, job, endpoint, day, at, requests, tokens_in, tokens_out, dollars)
SELECT r.id, j.name, v.value ->> 0, :day, :now, v.value ->> 1, v.value ->> 2, v.value ->> 3, v.value ->> 4
FROM json_each(:rows) v JOIN run r ON r.id = :run JOIN job j ON j.id = r.job_id
WHERE true ON CONFLICT DO UPDATE SET at = :now, requests = requests + excluded.requests,
    tokens_in = tokens_in + excluded.tokens_in, tokens_out = tokens_out + excluded.tokens_out,
    dollars = dollars + excluded.dollars
"""
_ADD_TO_COMMAND = """
INSERT INTO charge (run_id, job, endpoint, day, at, requests, tokens_in, tokens_out, dollars)
VALUES (0, :job, :endpoint, :day, :now, :requests, :tokens_in, :tokens_out, :dollars)
ON CONFLICT DO UPDATE SET at = :now, requests = requests + excluded.requests,
    tokens_in = tokens_in + excluded.tokens_in, tokens_out = tokens_out + excluded.tokens_out,
    dollars = dollars + excluded.dollars
"""
_SINCE = """
SELECT id, endpoint, job, nullif(run_id, 0), at, dollars FROM charge
WHERE at >= :moment AND (:endpoint IS NULL OR endpoint = :endpoint) ORDER BY id
"""


class Charges:
    """What runs are charged for single answers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, run_id: int, charges: Mapping[str, Charge]) -> None:
        """Add charges, by endpoint, to those of the run's present day."""
        rows = [
            [name, round(one.requests), round(one.tokens_in), round(one.tokens_out), one.dollars]
            for name, one in charges.items()
        ]
        now = time.time()
        values = {"run": run_id, "rows": orjson.dumps(rows).decode(), "now": now, "day": day_of(now)[0]}
        async with self._database.write() as connection:
            await connection.execute(_ADD, values)
            await grow(connection, {(Total.CHARGES, name): one.dollars for name, one in charges.items()})

    async def add_to_command(self, job: str, endpoint: str, charge: Charge) -> None:
        """Add a charge to those of the present day of a command of the user, which is no run: it has the number 0."""
        if not charge.requests:
            return
        now = time.time()
        values = {"job": job, "endpoint": endpoint, "day": day_of(now)[0], "now": now} | {
            "requests": round(charge.requests),
            "tokens_in": round(charge.tokens_in),
            "tokens_out": round(charge.tokens_out),
            "dollars": charge.dollars,
        }
        async with self._database.write() as connection:
            await connection.execute(_ADD_TO_COMMAND, values)
            await grow(connection, {(Total.CHARGES, endpoint): charge.dollars})


async def receipts_of_charges(connection: AsyncConnection, moment: float, endpoint: str | None = None) -> list[Receipt]:
    """Charges since a moment as receipts: dollars without any time awake. No two have the same window."""
    rows = await connection.execute(_SINCE, {"moment": moment, "endpoint": endpoint})
    return [
        Receipt(name, -number, job, run, at, at, Spent(), None, at, at, None, None, 0.0, dollars)
        for number, name, job, run, at, dollars in rows
    ]
