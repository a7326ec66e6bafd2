"""Items that incremental jobs have delivered. Later runs leave them out, even after the run and item are pruned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from orchestrator.store.chunks import POSITION_BITS
from orchestrator.store.settled import forgiven

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.domain.run import Run
    from orchestrator.store.database import Database
    from orchestrator.store.row_classes import NewItem

_STEP = 2000  # items in one transaction: tens of milliseconds
_ADD = """
INSERT INTO delivered_item (job_id, item_id, hash)
SELECT i.job_id, i.item_id, i.hash FROM member m JOIN item i ON i.key = m.item_key
WHERE m.id >= :first AND m.id < :last
ON CONFLICT DO NOTHING
"""
# or delivered before the job became incremental, and not forgiven since
_DELIVERED = f"""
SELECT v.key FROM json_each(:rows) v WHERE EXISTS (
    SELECT 1 FROM delivered_item d WHERE d.job_id = :job AND d.item_id = v.value ->> 0 AND d.hash = v.value ->> 1
) OR EXISTS (
    SELECT 1 FROM item i CROSS JOIN result s ON s.item_key = i.key CROSS JOIN member m ON m.item_key = i.key
    CROSS JOIN run r ON r.id = m.run_id
    WHERE i.job_id = :job AND i.item_id = v.value ->> 0 AND i.hash = v.value ->> 1 AND r.delivered_at IS NOT NULL
    AND NOT ({forgiven("s")})
)
"""


class DeliveredItems:
    """What incremental jobs have delivered."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, run: Run) -> None:
        """Remember the items of a delivered run. Safe to repeat."""
        begin, end = run.id << POSITION_BITS, (run.id << POSITION_BITS) + run.total
        for first in range(begin, end, _STEP):
            async with self._database.write() as connection:
                await connection.execute(_ADD, {"first": first, "last": min(first + _STEP, end)})

    async def delivered(self, job_id: int | None, rows: Sequence[NewItem]) -> frozenset[int]:
        """The indices of those rows that an earlier run of the job has delivered."""
        slim = orjson.dumps([[row.item_id, row.hash] for row in rows]).decode()
        async with self._database.read() as connection:
            return frozenset((await connection.execute(_DELIVERED, {"job": job_id, "rows": slim})).scalars())
