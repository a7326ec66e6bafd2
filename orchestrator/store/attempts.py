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
_FAILED_ITEMS = f"""
SELECT q.id, a.kind, a.status, count(*) AS attempts, sum(a.outcome = 'retry_later') FROM run q
CROSS JOIN attempt a ON a.item_key BETWEEN (SELECT min(item_key) FROM member WHERE {_OF_RUN})
                                       AND (SELECT max(item_key) FROM member WHERE {_OF_RUN})
CROSS JOIN member m ON m.item_key = a.item_key AND m.run_id = q.id
WHERE q.id IN (SELECT value FROM json_each(:runs)) AND a.seconds > 0 AND a.at >= q.created_at
AND q.spec ->> 'routes' IS NULL GROUP BY q.id, a.kind, a.status
"""
# Asks keep their failed attempts themselves. The attempt of a rollout itself is none of a request.
_FAILED_ASKS = """
SELECT q.id, f.value ->> 0, f.value ->> 1, count(*), sum(f.value ->> 5 IS NOT NULL) FROM run q
CROSS JOIN ask a INDEXED BY ix_ask_failed ON a.job_id = q.job_id AND a.failures IS NOT NULL
CROSS JOIN json_each(a.failures) f
WHERE q.id IN (SELECT value FROM json_each(:runs)) AND q.spec ->> 'routes' IS NOT NULL AND f.value ->> 4 >= q.created_at
AND EXISTS (SELECT 1 FROM item i JOIN member m ON m.item_key = i.key AND m.run_id = q.id
            WHERE i.job_id = a.job_id AND i.item_id = a.item_id)
GROUP BY 1, 2, 3
"""
_FAILED = f"{_FAILED_ITEMS} UNION ALL {_FAILED_ASKS} ORDER BY 1, 4 DESC, 2, 3"


def _took(table: str, joined: str, at: str, more: str) -> str:
    """SQL: how long answers took, in an even sample of chunks."""
    return f"""
SELECT c.run_id, {table}.seconds FROM (
    SELECT run_id, lo, hi, row_number() OVER (PARTITION BY run_id ORDER BY id) AS number,
           count(*) OVER (PARTITION BY run_id) AS chunks
    FROM chunk WHERE run_id IN (SELECT value FROM json_each(:runs)) AND completed > 0) c
CROSS JOIN run q ON q.id = c.run_id
CROSS JOIN member m ON m.id >= (c.run_id << {POSITION_BITS}) | c.lo AND m.id < (c.run_id << {POSITION_BITS}) | c.hi
{joined}
WHERE c.number % (c.chunks / :sampled + 1) = 0 AND {table}.outcome = 'completed' AND {table}.seconds > 0
AND {table}.{at} >= q.created_at AND {more}
"""


_OF_ITEMS = _took("r", "CROSS JOIN result r ON r.item_key = m.item_key", "finished_at", "q.spec ->> 'routes' IS NULL")
_OF_ASKS = _took(
    "a",
    "CROSS JOIN item i ON i.key = m.item_key CROSS JOIN ask a ON a.job_id = i.job_id AND a.item_id = i.item_id",
    "at",
    "q.spec ->> 'routes' IS NOT NULL AND a.endpoint IS NOT NULL",
)
_TOOK = f"{_OF_ITEMS} UNION ALL {_OF_ASKS} ORDER BY 1, 2"


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
