"""Forgiving: discarded items become available again, with a fresh count of attempts.

A discard that will be asked again stays until the item is settled again (`item.forgiven` is not below
`result.attempts`). The run that asks again counts it as unsettled; every other run with that item still has its
result. A finished run stays whole whatever `retry`, edits and crashes do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from orchestrator.store.causes import IS_ALIKE, cause_of
from orchestrator.store.chunks import POSITION_BITS, RECOUNT, WITH_ITEMS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.store.connection import AsyncConnection

# A row that could not be read stays discarded: nothing but a changed source can help it.
_FORGIVABLE = f"""
SELECT r.item_key FROM result r
JOIN item i ON i.key = r.item_key AND i.request IS NOT NULL
JOIN member m ON m.item_key = r.item_key AND m.run_id = :run AND m.id >> {POSITION_BITS} = :run
"""
_ALL = f"{_FORGIVABLE} WHERE r.outcome = 'discarded'"
_ALIKE = f"""{_FORGIVABLE}
JOIN attempt a ON a.item_key = r.item_key AND a.number = r.attempts WHERE r.outcome = 'discarded' AND {IS_ALIKE}
"""
_FORGIVE = """
UPDATE item SET forgiven = coalesce((SELECT max(number) FROM attempt a WHERE a.item_key = item.key), 0)
WHERE key IN (SELECT value FROM json_each(:keys))
"""
_FORGET_DELIVERED = """
DELETE FROM delivered_item WHERE (job_id, item_id, hash) IN
(SELECT i.job_id, i.item_id, i.hash FROM item i WHERE i.key IN (SELECT value FROM json_each(:keys)))
"""
# What a rollout was answered stays; what failed, also in part, is asked anew.
_FORGET_ASKS = """
DELETE FROM ask WHERE outcome IS NOT 'completed' AND key IN (
    SELECT a.key FROM json_each(:keys) v JOIN item i ON i.key = v.value
    JOIN ask a ON a.job_id = i.job_id AND a.item_id = i.item_id)
"""
REOPEN = f"""
UPDATE chunk SET state = iif(state = 'done', 'available', state)
WHERE run_id = :run AND id IN ({WITH_ITEMS}) RETURNING id
"""


async def forgivable(connection: AsyncConnection, run_id: int, like: str | None = None) -> list[int]:
    """Return the keys of the run's discarded items that can be asked again.

    With `like`, only of those that failed for the same cause as the item with that id.
    """
    if like is None:
        return list((await connection.execute(_ALL, {"run": run_id})).scalars())
    cause = await cause_of(connection, run_id, like)
    return list((await connection.execute(_ALIKE, {"run": run_id, **cause})).scalars())


async def forgive(connection: AsyncConnection, keys: Sequence[int], asked_by: int) -> bool:
    """Have this run ask these discarded items again, if it has them; return whether it has any.

    Runs whose snapshot is made later ask them too.
    """
    values = {"keys": orjson.dumps(list(keys)).decode(), "run": asked_by}
    await connection.execute(_FORGIVE, values)
    await connection.execute(_FORGET_DELIVERED, values)
    await connection.execute(_FORGET_ASKS, values)
    reopened = (await connection.execute(REOPEN, values)).all()
    await connection.execute(RECOUNT, values)
    return bool(reopened)
