"""Retention: old runs go, then items that no run holds any more, then the space; in steps that never block for long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from orchestrator.store.runs import delete_run, ended_before

if TYPE_CHECKING:
    from orchestrator.store.store import Store

_STEP = 2000  # rows in one transaction: tens of milliseconds
_ORPHANS = """
SELECT i.key FROM item i WHERE i.key > :after AND i.key <= :last
AND NOT EXISTS (SELECT 1 FROM member m WHERE m.item_key = i.key)
"""


async def prune(store: Store, moment: float) -> tuple[int, int]:
    """Delete runs that ended before `moment` and items no other run holds; gives how many of each.

    The freed pages go back to the file system.
    """
    async with store.database.read() as connection:
        runs = await ended_before(connection, moment)
        last_item = (await connection.execute(text("SELECT coalesce(max(key), 0) FROM item"))).scalar_one()
    for run_id in runs:
        left = True
        while left:
            async with store.database.write() as connection:
                left = await delete_run(connection, run_id, _STEP)
    items = 0
    # an item that is being ingested right now has its member row in the same transaction, so it is never an orphan
    for after in range(0, last_item, _STEP) if runs else ():
        items += await _delete_orphans(store, after, min(after + _STEP, last_item))
    while await store.database.give_space_back():
        pass
    return len(runs), items


async def _delete_orphans(store: Store, after: int, last: int) -> int:
    bounds = {"after": after, "last": last}
    async with store.database.write() as connection:
        for table in ("result", "attempt"):
            await connection.execute(text(f"DELETE FROM {table} WHERE item_key IN ({_ORPHANS})"), bounds)
        return (await connection.execute(text(f"DELETE FROM item WHERE key IN ({_ORPHANS})"), bounds)).rowcount
