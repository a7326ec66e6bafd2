"""Chunks: how they open and close, and their counters, which only this module writes.

The counters always say what `result` says of the chunk's items, in every run that has them: whoever changes results
calls `add` or `recount` in the same transaction. A forgiven discard counts as discarded only if the chunk is done,
because its run does not ask the item.

Counters have one writer, this module. A transaction that writes results calls `add` (none of the items had a
result: add to every chunk that has them, in every run) or `recount` (anything else: count those chunks again). At
every commit, the counters of each chunk agree with its results, and `status` of ten million items adds up 20,000
rows. Triggers would do the same, but nearly doubled the cost of writing an answer; this costs one index lookup
each.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Literal, NamedTuple

import orjson

from orchestrator.store.settled import SETTLED
from orchestrator.store.sqlite import total

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from orchestrator.store.connection import AsyncConnection

POSITION_BITS = 32  # a member's id is `run << POSITION_BITS | position`


class NewResult(NamedTuple):  # a tuple, because one is made for each answer
    """A result of an item that had none, and the chunk of the lease under which it was asked."""

    key: int
    chunk: int
    outcome: Literal["completed", "discarded"]
    tokens_in: int | None
    tokens_out: int | None


_POSITION = f"m.id & {(1 << POSITION_BITS) - 1}"
_CHUNK_OF_MEMBER = (
    f"(SELECT d.id FROM chunk d WHERE d.run_id = m.run_id AND d.lo <= {_POSITION} ORDER BY d.lo DESC LIMIT 1)"
)
# The chunks that have one of these items, in every run.
WITH_ITEMS = f"SELECT {_CHUNK_OF_MEMBER} FROM json_each(:keys) v CROSS JOIN member m ON m.item_key = v.value"


def _recount(chunks: str) -> str:
    return f"""
UPDATE chunk SET completed = s.completed, tokens_in = s.tokens_in, tokens_out = s.tokens_out,
                 discarded = iif(chunk.state = 'done', chunk.hi - chunk.lo, s.settled) - s.completed
FROM (SELECT c.id, sum({SETTLED}) AS settled, coalesce(sum(r.outcome = 'completed'), 0) AS completed,
             {total("r.tokens_in")} AS tokens_in, {total("r.tokens_out")} AS tokens_out
      FROM chunk c CROSS JOIN member m ON m.id >= (c.run_id << {POSITION_BITS}) | c.lo
                         AND m.id < (c.run_id << {POSITION_BITS}) | c.hi
      LEFT JOIN result r ON r.item_key = m.item_key WHERE c.id IN ({chunks}) GROUP BY c.id) s
WHERE chunk.id = s.id
"""


RECOUNT = _recount(WITH_ITEMS)
RECOUNT_ONE = _recount(":chunk")
_MEMBERS = "SELECT count(*) FROM json_each(:keys) v CROSS JOIN member m ON m.item_key = v.value"
_ADD = """
UPDATE chunk SET completed = completed + :completed, discarded = discarded + :discarded,
    tokens_in = iif(:tokens_in IS NULL, tokens_in, coalesce(tokens_in, 0) + :tokens_in),
    tokens_out = iif(:tokens_out IS NULL, tokens_out, coalesce(tokens_out, 0) + :tokens_out)
WHERE id = :chunk
"""
_ADD_EVERYWHERE = f"""
UPDATE chunk SET completed = chunk.completed + s.completed, discarded = chunk.discarded + s.discarded,
    tokens_in = iif(s.tokens_in IS NULL, chunk.tokens_in, coalesce(chunk.tokens_in, 0) + s.tokens_in),
    tokens_out = iif(s.tokens_out IS NULL, chunk.tokens_out, coalesce(chunk.tokens_out, 0) + s.tokens_out)
FROM (SELECT c.id, sum(v.value ->> 1 = 'completed') AS completed, sum(v.value ->> 1 = 'discarded') AS discarded,
             sum(v.value ->> 2) AS tokens_in, sum(v.value ->> 3) AS tokens_out
      FROM json_each(:rows) v CROSS JOIN member m ON m.item_key = v.value ->> 0
      CROSS JOIN chunk c ON c.id = {_CHUNK_OF_MEMBER} AND c.hi > {_POSITION} GROUP BY c.id) s
WHERE chunk.id = s.id
"""
_OPEN = """
INSERT INTO chunk (run_id, lo, hi, state, strikes, texts)
VALUES (:run, :lo, :hi, 'available', :strikes, :texts) RETURNING id
"""
CLOSE_IF_SETTLED = """
UPDATE chunk SET state = 'done' WHERE id = :chunk AND state = 'available' AND completed + discarded = hi - lo
"""
CLOSE = """
UPDATE chunk SET holder = NULL, state = iif(completed + discarded = hi - lo, 'done', 'available')
WHERE id = :chunk AND token = :token AND state = 'leased'
"""


def add(connection: sqlite3.Connection, results: Sequence[NewResult]) -> None:
    """Count results of items that had none, in every chunk that has one of them.

    The usual case, in which no other run has any of these items, costs one look at an index for each item.
    """
    keys = [result.key for result in results]
    if connection.execute(_MEMBERS, {"keys": _json(keys)}).fetchone()[0] != len(keys):
        rows = [[one.key, one.outcome, one.tokens_in, one.tokens_out] for one in results]
        connection.execute(_ADD_EVERYWHERE, {"rows": _json(rows)})
        return
    by_chunk = defaultdict[int, list[NewResult]](list)
    for result in results:
        by_chunk[result.chunk].append(result)
    for chunk, some in by_chunk.items():
        completed = sum(one.outcome == "completed" for one in some)
        values: dict[str, int | None] = {"chunk": chunk, "completed": completed, "discarded": len(some) - completed}
        values |= {"tokens_in": _sum([one.tokens_in for one in some])}
        values |= {"tokens_out": _sum([one.tokens_out for one in some])}
        if connection.execute(_ADD, values).rowcount == 0:  # the lease was lost, and the chunk halved since
            recount(connection, keys)  # which includes the chunks that are still to come
            return


def recount(connection: sqlite3.Connection, keys: Sequence[int]) -> None:
    """Results of these items have changed: count again every chunk that has one of them."""
    connection.execute(RECOUNT, {"keys": _json(keys)})


async def open_chunk(connection: AsyncConnection, run_id: int, lo: int, hi: int, *, strikes: int = 0) -> None:
    """Make these positions of a run a chunk that can be leased, or a done one if all its items are settled."""
    values = {"run": run_id, "lo": lo, "hi": hi, "strikes": strikes, "texts": None}
    chunk = (await connection.execute(_OPEN, values)).scalar_one()
    await connection.execute(RECOUNT_ONE, {"chunk": chunk})
    await connection.execute(CLOSE_IF_SETTLED, {"chunk": chunk})


def open_new_chunk(
    connection: sqlite3.Connection, run_id: int, lo: int, hi: int, *, texts: bytes | None, recount: bool
) -> None:
    """The same for rows that a run has just got; `recount`: some of their items may be settled."""
    values = {"run": run_id, "lo": lo, "hi": hi, "strikes": 0, "texts": texts}
    (chunk,) = connection.execute(_OPEN, values).fetchone()
    if recount:
        connection.execute(RECOUNT_ONE, {"chunk": chunk})
        connection.execute(CLOSE_IF_SETTLED, {"chunk": chunk})


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


def _sum(numbers: Sequence[int | None]) -> int | None:
    """None if nobody counts."""
    counted = [number for number in numbers if number is not None]
    return sum(counted) if counted else None
