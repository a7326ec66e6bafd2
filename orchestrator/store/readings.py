"""Readings of live runs: written every few seconds, read by the report."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from sqlalchemy import text

from orchestrator.domain.readings import Reading

if TYPE_CHECKING:
    from orchestrator.store.database import Database

MOST = 4000  # readings of a run that are looked at: five and a half hours of them; of a longer one, every second ...

# If a clock was set back to exactly this moment, the first reading stays.
_NOTE = text("""
INSERT INTO reading (run_id, at, process_id, completed, discarded, requests, tokens_in, tokens_out, in_flight, latency)
VALUES (:run, :at, :process_id, :completed, :discarded, :requests, :tokens_in, :tokens_out, :in_flight, :latency)
ON CONFLICT DO NOTHING
""")
_COLUMNS = "at, process_id, completed, discarded, requests, tokens_in, tokens_out, in_flight, latency"
# Each process's first and last one are always among them: the counters must add up.
_OF = text(f"""
SELECT {_COLUMNS} FROM (
    SELECT *, row_number() OVER (PARTITION BY process_id ORDER BY at) AS number,
           count(*) OVER (PARTITION BY process_id) AS last, count(*) OVER () AS readings
    FROM reading WHERE run_id = :run
) WHERE number = 1 OR number = last OR number % (readings / :most + 1) = 0 ORDER BY at
""")
_AFTER = text(f"SELECT {_COLUMNS} FROM reading WHERE run_id = :run AND at > :at ORDER BY at")


class Readings:
    """Measurements of runs over time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def note(self, run_id: int, reading: Reading) -> None:
        """Store a reading."""
        async with self._database.write() as connection:
            await connection.execute(_NOTE, {"run": run_id, **asdict(reading)})

    async def after(self, run_id: int, at: float) -> list[Reading]:
        """A run's readings after a moment, oldest first, however many."""
        async with self._database.read() as connection:
            return [Reading(*row) for row in await connection.execute(_AFTER, {"run": run_id, "at": at})]

    async def of(self, run_id: int, most: int = MOST) -> list[Reading]:
        """A run's readings, oldest first; if there are more than `most`, an even sample."""
        async with self._database.read() as connection:
            return [Reading(*row) for row in await connection.execute(_OF, {"run": run_id, "most": most})]
