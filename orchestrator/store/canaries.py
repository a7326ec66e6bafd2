"""Canaries: unsettled items of a run, spread over the lengths of their requests, become chunks of their own."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from orchestrator.store.chunks import POSITION_BITS, open_chunk

if TYPE_CHECKING:
    from orchestrator.store.connection import AsyncConnection
    from orchestrator.store.database import Database

# The items by length, divided into `:number` groups of the same size: the middle one of each.
_SPREAD = f"""
SELECT position FROM (
    SELECT m.id & {(1 << POSITION_BITS) - 1} AS position, length(i.request) AS size,
           row_number() OVER (ORDER BY length(i.request), m.id) - 1 AS place, count(*) OVER () AS items
    FROM member m CROSS JOIN item i ON i.key = m.item_key LEFT JOIN result s ON s.item_key = m.item_key
    WHERE m.id >= :run << {POSITION_BITS} AND m.id < (:run + 1) << {POSITION_BITS}
    AND s.item_key IS NULL AND m.same_as IS NULL)
WHERE ((place + 1) * 2 * :number + items) / (2 * items) > (place * 2 * :number + items) / (2 * items)
ORDER BY size, position
"""
_CHUNK_AT = """
SELECT id, lo, hi, strikes FROM chunk
WHERE run_id = :run AND lo <= :position AND hi > :position AND state = 'available' ORDER BY lo DESC LIMIT 1
"""
_NEW_CHUNK = "SELECT id FROM chunk WHERE run_id = :run AND lo = :position"


class Canaries:
    """Chooses the items of a run that are asked before all others."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def choose(self, run_id: int, number: int) -> list[int]:
        """Divide chunks so that `number` items have chunks of their own; return these, by length of request.

        Which items share an answer is known, so that none of them is asked twice. Reads all rows of the run.
        """
        async with self._database.read() as connection:
            rows = await connection.execute(_SPREAD, {"run": run_id, "number": number})
            chosen = [position for (position,) in rows]
        async with self._database.write() as connection:
            placed = []
            for position in sorted(chosen):
                found = (await connection.execute(_CHUNK_AT, {"run": run_id, "position": position})).one_or_none()
                placed += [] if found is None else [(*found, position)]
            for chunk, group in groupby(placed, itemgetter(slice(0, 4))):
                await _divide(connection, run_id, chunk, [one[4] for one in group])
            kept = {one[4] for one in placed}
            return [
                (await connection.execute(_NEW_CHUNK, {"run": run_id, "position": position})).scalar_one()
                for position in chosen
                if position in kept
            ]


async def _divide(
    connection: AsyncConnection, run_id: int, chunk: tuple[int, int, int, int], positions: list[int]
) -> None:
    """Replace a chunk (id, lo, hi, strikes) by chunks of one item at these positions, and of what lies between."""
    number, lo, hi, strikes = chunk
    await connection.execute("DELETE FROM chunk WHERE id = :chunk", {"chunk": number})
    for position in positions:
        if lo < position:
            await open_chunk(connection, run_id, lo, position, strikes=strikes)
        await open_chunk(connection, run_id, position, position + 1, strikes=strikes)
        lo = position + 1
    if lo < hi:
        await open_chunk(connection, run_id, lo, hi, strikes=strikes)
