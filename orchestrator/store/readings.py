"""Readings of live runs: written every few seconds, read by the report."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import orjson

from orchestrator.domain.latency_histogram import LatencyHistogram
from orchestrator.domain.readings import Reading
from orchestrator.store.running_totals import grow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.domain.running_totals import TotalKey
    from orchestrator.store.database import Database

MOST = 4000  # readings of a run that are looked at: five and a half hours of them; of a longer one, every second ...

_COLUMNS = """at, process_id, completed, discarded, requests, tokens_in, tokens_out, in_flight, latency, latency_counts,
commits, commit_seconds, lost, statuses"""
# If a clock was set back to exactly this moment, the first reading stays.
_NOTE = f"""
INSERT INTO reading (run_id, {_COLUMNS})
VALUES (:run, :at, :process_id, :completed, :discarded, :requests, :tokens_in, :tokens_out, :in_flight, :latency,
        :latency_counts, :commits, :commit_seconds, :lost, :statuses)
ON CONFLICT DO NOTHING
"""
# Each process's first and last one are always among them: the counters must add up.
# Their moments are chosen first, because a row is long.
_OF = f"""
SELECT run_id, {_COLUMNS} FROM (
    SELECT run_id, at FROM (
        SELECT run_id, at, row_number() OVER (PARTITION BY run_id ORDER BY at) AS number,
               count(*) OVER (PARTITION BY run_id) AS readings
        FROM reading WHERE run_id IN (SELECT value FROM json_each(:runs)))
    WHERE number % (readings / :most + 1) = 0
    UNION SELECT run_id, min(at) FROM reading WHERE run_id IN (SELECT value FROM json_each(:runs))
        GROUP BY run_id, process_id
    UNION SELECT run_id, max(at) FROM reading WHERE run_id IN (SELECT value FROM json_each(:runs))
        GROUP BY run_id, process_id)
JOIN reading USING (run_id, at) ORDER BY run_id, at
"""
_AFTER = f"SELECT {_COLUMNS} FROM reading WHERE run_id = :run AND at > :at ORDER BY at"


class Readings:
    """Measurements of runs over time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def note(self, run_id: int, reading: Reading, grown: Mapping[TotalKey, float] | None = None) -> None:
        """Store a reading, and increase the running totals by what is new."""
        jsons = {name: _json(getattr(reading, name)) for name in ("latency_counts", "lost", "statuses")}
        values = asdict(reading) | jsons
        async with self._database.write() as connection:
            await connection.execute(_NOTE, {"run": run_id, **values})
            await grow(connection, grown or {})

    async def after(self, run_id: int, at: float) -> list[Reading]:
        """A run's readings after a moment, oldest first, however many."""
        async with self._database.read() as connection:
            return [_reading(row) for row in await connection.execute(_AFTER, {"run": run_id, "at": at})]

    async def of(self, run_id: int, most: int = MOST) -> list[Reading]:
        """A run's readings, oldest first; if there are more than `most`, an even sample."""
        return (await self.of_runs([run_id], most)).get(run_id, [])

    async def of_runs(self, run_ids: Sequence[int], most: int = MOST) -> dict[int, list[Reading]]:
        """The same for each of these runs that has readings."""
        values = {"runs": orjson.dumps(run_ids).decode(), "most": most}
        async with self._database.read() as connection:
            rows = await connection.execute(_OF, values)
        return {run: [_reading(row[1:]) for row in readings] for run, readings in groupby(rows, itemgetter(0))}


def _json(value: LatencyHistogram | Mapping[str, int] | None) -> str | None:
    return orjson.dumps(value).decode() if value else None


def _reading(row: Sequence[Any]) -> Reading:
    *numbers, latency_counts, commits, commit_seconds, lost, statuses = row
    histogram = None if latency_counts is None else LatencyHistogram(**orjson.loads(latency_counts))
    counts = [{} if text is None else orjson.loads(text) for text in (lost, statuses)]
    values = [*numbers, histogram, commits, commit_seconds, *counts]
    return Reading(*values)
