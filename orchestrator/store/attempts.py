"""Attempts: how often and why a run's attempts failed, and how long answers took. Read only."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

import orjson

from orchestrator.domain.traffic import SAMPLED, Failed, Latency, latency_of
from orchestrator.store.chunks import POSITION_BITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.store.database import Database

_OF_RUN = f"id >= q.id << {POSITION_BITS} AND id < (q.id + 1) << {POSITION_BITS}"
# Items of a run mostly have neighbouring keys, so this looks at few attempts of others. What took no time was not
# asked: a row that could not be read, or an item that shares the answer to another one.
_FAILED = f"""
SELECT q.id, a.kind, a.status, count(*) AS attempts, sum(a.outcome = 'retry_later') FROM run q
CROSS JOIN attempt a ON a.item_key BETWEEN (SELECT min(item_key) FROM member WHERE {_OF_RUN})
                                       AND (SELECT max(item_key) FROM member WHERE {_OF_RUN})
CROSS JOIN member m ON m.item_key = a.item_key AND m.run_id = q.id
WHERE q.id IN (SELECT value FROM json_each(:runs)) AND a.seconds > 0 AND a.at >= q.created_at
GROUP BY q.id, a.kind, a.status ORDER BY q.id, attempts DESC, a.kind, a.status
"""
_TOOK = f"""
SELECT c.run_id, r.seconds FROM (
    SELECT run_id, lo, hi, row_number() OVER (PARTITION BY run_id ORDER BY id) AS number,
           count(*) OVER (PARTITION BY run_id) AS chunks
    FROM chunk WHERE run_id IN (SELECT value FROM json_each(:runs)) AND completed > 0) c
CROSS JOIN run q ON q.id = c.run_id
CROSS JOIN member m ON m.id >= (c.run_id << {POSITION_BITS}) | c.lo AND m.id < (c.run_id << {POSITION_BITS}) | c.hi
CROSS JOIN result r ON r.item_key = m.item_key
WHERE c.number % (c.chunks / :sampled + 1) = 0 AND r.outcome = 'completed' AND r.seconds > 0
AND r.finished_at >= q.created_at
ORDER BY c.run_id, r.seconds
"""


class Attempts:
    """Summaries of the attempts made since a run was created."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def failed(self, run_ids: Sequence[int]) -> dict[int, list[Failed]]:
        """Failed attempts of each run by cause, the most frequent first, even if a later attempt succeeded."""
        async with self._database.read() as connection:
            rows = await connection.execute(_FAILED, {"runs": orjson.dumps(run_ids).decode()})
        return {run: [Failed(*row[1:]) for row in failed] for run, failed in groupby(rows, itemgetter(0))}

    async def latency(self, run_ids: Sequence[int], sampled: int = SAMPLED) -> dict[int, Latency]:
        """How long answers of each run took. If there are more, an even sample of up to twice so many chunks."""
        async with self._database.read() as connection:
            rows = await connection.execute(_TOOK, {"runs": orjson.dumps(run_ids).decode(), "sampled": sampled})
        found = {run: latency_of([row[1] for row in took]) for run, took in groupby(rows, itemgetter(0))}
        return {run: latency for run, latency in found.items() if latency is not None}
