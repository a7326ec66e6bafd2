"""What rollouts have asked: the asks of an item, and the totals of a run. Read only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from orchestrator import exact_json
from orchestrator.domain.ask_totals import AskTotal
from orchestrator.store.settled import SETTLED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.store.database import Database
    from orchestrator.store.row_classes import NewItem

_FAILURE = ("kind", "status", "message", "seconds", "at", "available_at")  # as column `failures` has them
# The later one of two asks at the same place is that of the edited rollout.
_ASKS = """
SELECT number, endpoint, step, request, outcome, answer, attempts, seconds, at, tokens_in, tokens_out, notes, failures
FROM ask WHERE job_id = (SELECT job_id FROM run WHERE id = :run) AND item_id = :item ORDER BY number, at, key
"""
_TOTALS = """
SELECT run_id, endpoint, step, asks, discarded, retried, tokens_in, tokens_out, seconds FROM ask_total
WHERE run_id IN (SELECT value FROM json_each(:runs)) ORDER BY run_id, endpoint = '', endpoint, step
"""
_UNSETTLED = f"""
SELECT v.value ->> 0 FROM json_each(:rows) v
LEFT JOIN item i ON i.job_id = :job AND i.item_id = v.value ->> 0 AND i.hash = v.value ->> 1
LEFT JOIN result r ON r.item_key = i.key WHERE NOT {SETTLED} AND NOT EXISTS (
    SELECT 1 FROM json_each(:others) j
    CROSS JOIN item o ON o.job_id = j.value AND o.item_id = v.value ->> 0 AND o.hash = v.value ->> 1
    CROSS JOIN result s ON s.item_key = o.key AND s.outcome = 'completed')
"""


class Transcripts:
    """Queries about asks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, run_id: int, item_id: str) -> list[dict[str, object]]:
        """All asks of an item of a run's job, in the order of the rollout, as plain values.

        They belong to the id, so those that only an earlier version of the rollout has made are among them.
        """
        async with self._database.read() as connection:
            rows = (await connection.execute(_ASKS, {"run": run_id, "item": item_id})).all()
        return [_as_ask(row.as_dict()) for row in rows]

    async def totals(self, run_ids: Sequence[int]) -> dict[int, list[AskTotal]]:
        """What each of these runs has asked, by endpoint and step; functions are the last."""
        found: dict[int, list[AskTotal]] = {}
        async with self._database.read() as connection:
            for run, *total in await connection.execute(_TOTALS, {"runs": orjson.dumps(list(run_ids)).decode()}):
                found.setdefault(run, []).append(AskTotal(*total))
        return found

    async def unsettled(self, job_id: int | None, others: Sequence[int], rows: Sequence[NewItem]) -> list[str]:
        """Return the ids of those of these rows that a run of the job would have to process.

        `others`: jobs whose answers it takes over.
        """
        slim = orjson.dumps([[row.item_id, row.hash] for row in rows]).decode()
        values = {"job": job_id, "others": orjson.dumps(list(others)).decode(), "rows": slim}
        async with self._database.read() as connection:
            return list((await connection.execute(_UNSETTLED, values)).scalars())


def _as_ask(row: dict[str, object]) -> dict[str, object]:
    failures = orjson.loads(str(row["failures"])) if row["failures"] else []
    return row | {
        "request": exact_json.loads(str(row["request"])),
        "answer": None if row["answer"] is None else exact_json.loads(str(row["answer"])),
        "notes": str(row["notes"] or "").split(),
        "failures": [dict(zip(_FAILURE, failure, strict=True)) for failure in failures],
    }
