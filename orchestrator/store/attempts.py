"""Attempts: how often and why a run's attempts failed, and how long answers took. Read only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain.traffic import Failed, Latency, latency_of
from orchestrator.store.chunks import POSITION_BITS

if TYPE_CHECKING:
    from orchestrator.store.database import Database

_SAMPLED = 40  # chunks whose answers tell how long answers take: 20,000 of them

_OF_RUN = f"id >= :run << {POSITION_BITS} AND id < (:run + 1) << {POSITION_BITS}"
# Items of a run mostly have neighbouring keys, so this looks at few attempts of others. What took no time was not
# asked: a row that could not be read, or an item that shares the answer to another one.
_FAILED = f"""
SELECT a.kind, a.status, count(*) AS attempts, sum(a.outcome = 'retry_later') FROM attempt a
CROSS JOIN member m ON m.item_key = a.item_key AND m.run_id = :run
WHERE a.item_key BETWEEN (SELECT min(item_key) FROM member WHERE {_OF_RUN})
                     AND (SELECT max(item_key) FROM member WHERE {_OF_RUN})
AND a.seconds > 0 AND a.at >= (SELECT created_at FROM run WHERE id = :run)
GROUP BY a.kind, a.status ORDER BY attempts DESC, a.kind, a.status
"""
_TOOK = f"""
SELECT r.seconds FROM (
    SELECT lo, hi, row_number() OVER (ORDER BY id) AS number, count(*) OVER () AS chunks
    FROM chunk WHERE run_id = :run AND completed > 0) c
CROSS JOIN member m ON m.id >= (:run << {POSITION_BITS}) | c.lo AND m.id < (:run << {POSITION_BITS}) | c.hi
CROSS JOIN result r ON r.item_key = m.item_key
WHERE c.number % (c.chunks / :sampled + 1) = 0 AND r.outcome = 'completed' AND r.seconds > 0
AND r.finished_at >= (SELECT created_at FROM run WHERE id = :run)
ORDER BY r.seconds
"""


class Attempts:
    """Summaries of the attempts made since a run was created."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def failed(self, run_id: int) -> list[Failed]:
        """Failed attempts by cause, the most frequent first, even if a later attempt succeeded."""
        async with self._database.read() as connection:
            return [Failed(*row) for row in await connection.execute(_FAILED, {"run": run_id})]

    async def latency(self, run_id: int, sampled: int = _SAMPLED) -> Latency | None:
        """How long answers took; an even sample if there are very many."""
        async with self._database.read() as connection:
            return latency_of(list((await connection.execute(_TOOK, {"run": run_id, "sampled": sampled})).scalars()))
