"""What counts as settled, for every run that shares an item: results, forgiven discards, and chunks' counters.

No result is ever taken away. An item that was discarded and is to be asked again (forgiven) keeps its result until it
is settled anew: the run that asks it counts it as unsettled, and every other run still has it in its failures. So a
finished run stays whole whatever becomes of a retry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from sqlalchemy import text

from orchestrator.store.tables import POSITION_BITS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection


def forgiven(result: str) -> str:
    """SQL: whether this row of `result` is a discard that was forgiven, by a `retry` or because of its endpoint."""
    return f"{result}.outcome = 'discarded' AND {_to_be_asked(result)}"


def _to_be_asked(result: str) -> str:
    return (
        f"EXISTS (SELECT 1 FROM item f WHERE f.key = {result}.item_key "
        f"AND f.forgiven > 0 AND f.forgiven >= {result}.attempts)"
    )


# whether an item needs nothing more, its row of `result`, if any, being joined as `r`
SETTLED = f"iif(r.outcome = 'discarded', NOT {_to_be_asked('r')}, r.item_key IS NOT NULL)"
# where an answer or a discard meets a row: the first writer wins, except over a forgiven discard
REPLACE_FORGIVEN = f"""
ON CONFLICT (item_key) DO UPDATE SET
    outcome = excluded.outcome, attempts = excluded.attempts, seconds = excluded.seconds,
    finished_at = excluded.finished_at, output = excluded.output, answer = excluded.answer,
    tokens_in = excluded.tokens_in, tokens_out = excluded.tokens_out, notes = excluded.notes
WHERE {forgiven("result")}
"""
_MEMBERS_OF = f"""
FROM chunk c
CROSS JOIN member m ON m.id >= (c.run_id << {POSITION_BITS}) | c.lo AND m.id < (c.run_id << {POSITION_BITS}) | c.hi
LEFT JOIN result r ON r.item_key = m.item_key
WHERE c.id = :chunk
"""
# a chunk that is done counts a forgiven discard as discarded: its run does not ask the item
RECOUNT = f"""
UPDATE chunk SET counted = 0, completed = s.completed,
                 discarded = iif(chunk.state = 'done', hi - lo, s.settled) - s.completed
FROM (SELECT coalesce(sum({SETTLED}), 0) AS settled, coalesce(sum(r.outcome = 'completed'), 0) AS completed
      {_MEMBERS_OF}) s
WHERE chunk.id = :chunk
"""
REOPEN = f"""
UPDATE chunk SET state = iif(state = 'done', 'available', state), counted = 0,
                 completed = s.completed, discarded = s.settled - s.completed
FROM (SELECT coalesce(sum({SETTLED}), 0) AS settled, coalesce(sum(r.outcome = 'completed'), 0) AS completed
      {_MEMBERS_OF}) s
WHERE chunk.id = :chunk
"""
DONE_BUT_UNSETTLED = text(f"""
SELECT DISTINCT c.id FROM chunk c
CROSS JOIN member m ON m.id >= (c.run_id << {POSITION_BITS}) | c.lo AND m.id < (c.run_id << {POSITION_BITS}) | c.hi
LEFT JOIN result r ON r.item_key = m.item_key
WHERE c.run_id = :run AND c.state = 'done' AND r.item_key IS NULL
""")
_CHUNKS_WITH = f"""
SELECT DISTINCT c.id, c.run_id FROM json_each(:keys) v
CROSS JOIN member m ON m.item_key = v.value
CROSS JOIN chunk c ON c.run_id = m.run_id AND c.lo = (SELECT max(d.lo) FROM chunk d
    WHERE d.run_id = m.run_id AND d.lo <= m.id & {(1 << POSITION_BITS) - 1})
"""
# what could not be read stays discarded: nothing but a changed source can help it
_FORGIVABLE = f"""
JOIN item i ON i.key = r.item_key AND i.request IS NOT NULL
JOIN member m ON m.item_key = r.item_key AND m.run_id = :run AND m.id >> {POSITION_BITS} = :run
WHERE r.outcome = 'discarded'
"""
_FORGIVABLE_OF_RUN = text(f"SELECT r.item_key FROM result r {_FORGIVABLE}")
_FORGIVABLE_OF_THESE = text(
    f"SELECT r.item_key FROM json_each(:keys) v CROSS JOIN result r ON r.item_key = v.value {_FORGIVABLE}"
)
_FORGIVE = text("""
UPDATE item SET forgiven = coalesce((SELECT max(number) FROM attempt a WHERE a.item_key = item.key), 0)
WHERE key IN (SELECT value FROM json_each(:keys))
""")
_FORGET = text("""
DELETE FROM known WHERE (job_id, item_id, hash) IN
(SELECT i.job_id, i.item_id, i.hash FROM item i WHERE i.key IN (SELECT value FROM json_each(:keys)))
""")


async def forgivable(connection: AsyncConnection, run_id: int, keys: Sequence[int] | None = None) -> list[int]:
    """Discarded items (all of the run, or of these) that can be asked again."""
    which: dict[str, object] = {"run": run_id}
    if keys is None:
        return list((await connection.execute(_FORGIVABLE_OF_RUN, which)).scalars())
    which["keys"] = orjson.dumps(list(keys)).decode()
    return list((await connection.execute(_FORGIVABLE_OF_THESE, which)).scalars())


async def forgive(connection: AsyncConnection, keys: Sequence[int], asked_by: int) -> bool:
    """Have discarded items asked again, with a fresh count of attempts, by this run as far as it has them.

    Runs whose snapshot is made later ask them, too. Gives whether there is something for this run to do.
    """
    which = {"keys": orjson.dumps(list(keys)).decode()}
    await connection.execute(_FORGIVE, which)
    await connection.execute(_FORGET, which)
    chunks = (await connection.execute(text(_CHUNKS_WITH), which)).all()
    for chunk, run_id in chunks:
        await connection.exec_driver_sql(REOPEN if run_id == asked_by else RECOUNT, {"chunk": chunk})
    return any(run_id == asked_by for _, run_id in chunks)


def recount_shared(connection: sqlite3.Connection, keys: Sequence[int]) -> None:
    """Results of these items have changed: count again in every run that has them."""
    which = {"keys": orjson.dumps(list(keys)).decode()}
    for chunk, _ in connection.execute(_CHUNKS_WITH, which).fetchall():
        connection.execute(RECOUNT, {"chunk": chunk})
