"""Snapshots: rows of a source become items of a job and members of a run, in chunks that can be leased.

New rows go to the driver as one INSERT of many rows, with their keys.
"""

from __future__ import annotations

import time
from functools import cache, partial
from itertools import chain
from typing import TYPE_CHECKING

import orjson

from orchestrator.domain.run import Plan
from orchestrator.store.chunks import POSITION_BITS, RECOUNT, open_new_chunk
from orchestrator.store.known_chunks import (
    Earlier,
    KnownChunk,
    Twins,
    changed_twins,
    earlier,
    forget_texts,
    mark_twins,
    possible_twins,
    take_over,
    undo,
)
from orchestrator.store.row_classes import Chunk, Which, check_ids, classified, classified_known, versions_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from orchestrator.store.connection import BlockingConnection
    from orchestrator.store.database import Database
    from orchestrator.store.row_classes import NewItem, Rows, Version

_LAST_KEY = "SELECT coalesce(max(key), 0) FROM item"
# Keys in another order are the same item. An item that is still to be asked is asked as it is given now.
_ASK_AS_GIVEN = "UPDATE item SET request = ? WHERE key = ?"
_ADD_BARE_MEMBERS = """
INSERT INTO member (id, run_id, item_key) SELECT :first + v.key, :run, v.value FROM json_each(:keys) v
"""
_MARK_SAME = f"""
UPDATE member SET same_as = f.item_key
FROM json_each(:pairs) v CROSS JOIN member f ON f.id = (:run << {POSITION_BITS}) | (v.value ->> 1)
WHERE member.id = (:run << {POSITION_BITS}) | (v.value ->> 0)
"""
# If the code that failed has changed and fails again, its latest message counts.
_ADD_UNREADABLE_ATTEMPTS = """
INSERT INTO attempt (item_key, number, outcome, kind, message, seconds, at)
SELECT value ->> 0, 0, 'discarded', 'unreadable', value ->> 1, 0.0, :now FROM json_each(:rows)
WHERE true ON CONFLICT DO UPDATE SET message = excluded.message WHERE message <> excluded.message
"""
_ADD_UNREADABLE_RESULTS = """
INSERT INTO result (item_key, outcome, attempts, seconds, finished_at)
SELECT value ->> 0, 'discarded', 0, 0.0, :now FROM json_each(:rows)
WHERE true ON CONFLICT DO NOTHING RETURNING item_key
"""
_PAIRS = 5000  # marked in one transaction


class Snapshots:
    """Adding rows to a run's snapshot."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def earlier(self, job_id: int | None, run_id: int | None, made_as: str) -> Earlier | None:
        """The job's latest run besides this one whose items were made in the same way; None if there is none."""

        def work(connection: BlockingConnection) -> Earlier | None:
            return earlier(connection.driver, job_id, run_id, made_as)

        return await self._database.read_in_one_trip(work)

    async def classify(
        self,
        job_id: int | None,
        rows: Rows,
        reuse: Sequence[int] = (),
        position: int = 0,
        before: Earlier | None = None,
    ) -> tuple[Plan, Sequence[NewItem]]:
        """What these rows would be to a run of this job that reuses answers of other jobs; changes nothing.

        Also those that would be asked. `before`: the run before, if its chunks are taken over. Raises `Unlike` as
        `ingest` does.
        """
        which = Which(job_id, None, before, reuse)

        def work(connection: BlockingConnection) -> tuple[Plan, Sequence[NewItem]]:
            if isinstance(rows, KnownChunk):
                return classified_known(connection.driver, which, rows)
            versions = versions_of(connection.driver, which, position, rows)
            return classified(which, connection.driver, rows, versions)

        return await self._database.read_in_one_trip(work)

    async def ingest(
        self,
        run_id: int,
        job_id: int,
        position: int,
        chunks: Sequence[Rows],
        reuse: Sequence[int] = (),
        before: Earlier | None = None,
    ) -> Plan:
        """Append rows to a run's snapshot, one chunk after the other, and return what they are.

        `reuse`: ids of other jobs whose answers will be reused. `before`: the run before, if its chunks are taken over.
        Raises `RepeatedId` if two rows of the run have one id, and `Unlike` if a row may change what is taken over.
        Then nothing is added.
        """
        which = Which(job_id, run_id, before, reuse)
        return await self._database.write_in_one_trip(partial(_ingest, which, run_id, position, chunks))

    async def last_key(self) -> int:
        """The highest key of an item."""

        def work(connection: BlockingConnection) -> int:
            return int(connection.driver.execute(_LAST_KEY).fetchone()[0])

        return await self._database.read_in_one_trip(work)

    async def empty(self, run_id: int, job_id: int, last_key: int) -> None:
        """Undo what was added to a run's snapshot, with the job's items that are new since that was the last key."""
        while await self._database.write_in_one_trip(partial(undo, run_id, job_id, last_key)):
            pass

    async def mark_same_anew(self, run_id: int, job_id: int, hashes: Sequence[str]) -> None:
        """Mark all members again that share an answer with an added row, of these hashes, or with one that is gone."""

        def find(connection: BlockingConnection) -> Twins:
            return possible_twins(connection.driver, run_id, job_id, hashes)

        def page(connection: BlockingConnection) -> tuple[list[tuple[int | None, int]], str]:
            return changed_twins(connection.driver, twins, first_id, _PAIRS)

        twins, first_id, more = await self._database.read_in_one_trip(find), "", True
        while more:
            changed, first_id = await self._database.read_in_one_trip(page)
            if changed:
                await self._database.write_in_one_trip(partial(mark_twins, changed))
            more = len(changed) == _PAIRS

    async def mark_same(self, run_id: int, pairs: Sequence[tuple[int, int]]) -> None:
        """Mark members that share the answer of an earlier one: pairs of its position and that one's."""
        for at in range(0, len(pairs), _PAIRS):
            values = {"run": run_id, "pairs": _json(pairs[at : at + _PAIRS])}
            await self._database.write_in_one_trip(partial(_execute, _MARK_SAME, values))


def _execute(statement: str, values: Mapping[str, object], connection: sqlite3.Connection) -> None:
    connection.execute(statement, values)


def _ingest(which: Which, run_id: int, position: int, chunks: Sequence[Rows], connection: sqlite3.Connection) -> Plan:
    plan = Plan()
    for rows in chunks:
        if isinstance(rows, KnownChunk):
            plan += classified_known(connection, which, rows)[0]
            take_over(connection, rows, which.before, run_id, position)
        else:
            versions = versions_of(connection, which, position, rows)
            check_ids(rows, versions, position)
            plan += classified(which, connection, rows, versions)[0]
            _add_chunk(connection, which, run_id, position, rows, versions)
        position += len(rows)
    return plan


def _add_chunk(
    connection: sqlite3.Connection,
    which: Which,
    run_id: int,
    position: int,
    rows: Sequence[NewItem],
    versions: Mapping[int, Sequence[Version]],
) -> None:
    known = {index: version for index, some in versions.items() for version in some if version.hash == rows[index].hash}
    keys = _add_items(connection, which.job_id, rows, known)
    _add_members(connection, run_id, position, keys, [row.kept for row in rows])
    unreadable = [(key, row.unreadable) for key, row in zip(keys, rows, strict=True) if row.unreadable is not None]
    if unreadable:
        what = {"now": time.time(), "rows": _json(unreadable)}
        connection.execute(_ADD_UNREADABLE_ATTEMPTS, what)
        settled = [key for (key,) in connection.execute(_ADD_UNREADABLE_RESULTS, what)]
        connection.execute(RECOUNT, {"keys": _json(settled)})
    texts = rows.texts if isinstance(rows, Chunk) and _asked_as_given(rows, known) else None
    recount = bool(known or unreadable)
    open_new_chunk(connection, run_id, position, position + len(rows), texts=texts, recount=recount)


def _asked_as_given(rows: Sequence[NewItem], known: Mapping[int, Version]) -> bool:
    """Whether the ledger has the requests as they are given now: an answered one may have its keys in another order."""
    return all(
        version.request == rows[index].request or version.outcome != "completed" for index, version in known.items()
    )


def _add_items(
    connection: sqlite3.Connection, job_id: int | None, rows: Sequence[NewItem], known: Mapping[int, Version]
) -> list[int]:
    """Add the rows that are not known as items; return all keys."""
    last: int = connection.execute(_LAST_KEY).fetchone()[0]
    keys: list[int] = []
    new: list[tuple[object, ...]] = []
    for index, row in enumerate(rows):
        version = known.get(index)
        if version is None:
            last += 1
            keys.append(last)
            new.append((last, job_id, row.item_id, row.hash, row.request))
            continue
        keys.append(version.key)
        differs = None not in {row.request, version.request} and row.request != version.request
        if differs and version.outcome != "completed":
            connection.execute(_ASK_AS_GIVEN, (row.request, version.key))
            forget_texts(connection, version.key)
    _insert(connection, "item (key, job_id, item_id, hash, request)", new)
    return keys


def _add_members(
    connection: sqlite3.Connection, run_id: int, position: int, keys: Sequence[int], kept: Sequence[str | None]
) -> None:
    first = run_id << POSITION_BITS | position
    if any(kept):
        members = [(first + place, run_id, *one) for place, one in enumerate(zip(keys, kept, strict=True))]
        _insert(connection, "member (id, run_id, item_key, kept)", members)
    else:
        connection.execute(_ADD_BARE_MEMBERS, {"first": first, "run": run_id, "keys": _json(keys)})


def _insert(connection: sqlite3.Connection, into: str, rows: Sequence[tuple[object, ...]]) -> None:
    if rows:
        connection.execute(_insert_statement(into, len(rows), len(rows[0])), tuple(chain.from_iterable(rows)))


@cache
def _insert_statement(into: str, rows: int, columns: int) -> str:
    values = f"({', '.join('?' * columns)})"
    return f"INSERT INTO {into} VALUES {', '.join([values] * rows)}"


def _json(rows: object) -> str:
    return orjson.dumps(rows).decode()
