"""Snapshots: rows of a source become items of a job and members of a run, in chunks that can be leased.

Rows are compared with what the ledger has by one statement for each chunk, which gives nothing for new ones; those go
to the driver as one INSERT of many rows, with their keys.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import orjson

from orchestrator.domain.estimate import Workload
from orchestrator.domain.run import Plan
from orchestrator.store.chunks import POSITION_BITS, RECOUNT, open_new_chunk
from orchestrator.store.known_chunks import (
    Earlier,
    KnownChunk,
    Twins,
    Unlike,
    changed_twins,
    completed_in,
    earlier,
    forget_texts,
    mark_twins,
    possible_twins,
    take_over,
    unanswered,
    undo,
)
from orchestrator.store.settled import SETTLED

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from orchestrator.store.connection import Connection
    from orchestrator.store.database import Database

Rows: TypeAlias = "Sequence[NewItem] | KnownChunk"
Class: TypeAlias = Literal["new", "edited", "reused", "retry", "discarded"]


@dataclass(slots=True)  # not frozen: one is made for each row, and a frozen one takes three times as long
class NewItem:
    """One row, prepared for the ledger. `request` is None if the row is unreadable; `unreadable` then says why.

    `shares` identifies the request as it is sent, if the row may share the answer of another row with the same request.
    """

    item_id: str
    hash: str
    request: str | None
    kept: str | None
    unreadable: str | None = None
    shares: bytes | None = None


class Chunk(list[NewItem]):
    """Rows that are leased together. `texts`: the hash of their texts, if these alone made the rows."""

    texts: bytes | None = None


class RepeatedId(Exception):
    """Two rows of a run have the same id. Positions are counted from 0."""

    def __init__(self, item_id: str, first: int, position: int) -> None:
        super().__init__(item_id, first, position)
        self.item_id = item_id
        self.first = first
        self.position = position


class _Version(NamedTuple):
    """An item of the job that has the id of a row. `place`: its position in the run; `earlier`: in the run before."""

    key: int
    hash: str
    request: str | None
    outcome: str | None
    settled: bool
    tried: bool
    place: int | None
    earlier: int | None


_VERSIONS = f"""
SELECT v.key, i.key, i.hash, i.request, r.outcome, {SETTLED},
       EXISTS (SELECT 1 FROM attempt a WHERE a.item_key = i.key),
       m.id & {(1 << POSITION_BITS) - 1}, e.id & {(1 << POSITION_BITS) - 1}
FROM json_each(:ids) v CROSS JOIN item i ON i.job_id = :job AND i.item_id = v.value
LEFT JOIN result r ON r.item_key = i.key LEFT JOIN member m ON m.item_key = i.key AND m.run_id = :run
LEFT JOIN member e ON e.item_key = i.key AND e.run_id = :earlier
"""
_ANSWERED_ELSEWHERE = """
SELECT v.key FROM json_each(:rows) v WHERE EXISTS (
    SELECT 1 FROM json_each(:others) j
    CROSS JOIN item o ON o.job_id = j.value AND o.item_id = v.value ->> 0 AND o.hash = v.value ->> 1
    CROSS JOIN result s ON s.item_key = o.key AND s.outcome = 'completed')
"""
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

        def work(connection: Connection) -> Earlier | None:
            return earlier(connection.driver, job_id, run_id, made_as)

        return await self._database.read_in_one_trip(work)

    async def classify(
        self,
        job_id: int | None,
        rows: Rows,
        reuse: Sequence[int] = (),
        position: int = 0,
        before: Earlier | None = None,
    ) -> tuple[Plan, Workload]:
        """What these rows would be to a run of this job that reuses answers of other jobs; changes nothing.

        Also how much of them would be asked. `before`: the run before, if its chunks are taken over. Raises `Unlike` as
        `ingest` does.
        """
        which = _Which(job_id, None, before, reuse)

        def work(connection: Connection) -> tuple[Plan, Workload]:
            if isinstance(rows, KnownChunk):
                return _known_classified(connection.driver, which, rows)
            versions = _versions(connection.driver, which, position, rows)
            return _classified(which, connection.driver, rows, versions)

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
        which = _Which(job_id, run_id, before, reuse)
        return await self._database.write_in_one_trip(partial(_ingest, which, run_id, position, chunks))

    async def last_key(self) -> int:
        """The highest key of an item."""

        def work(connection: Connection) -> int:
            return int(connection.driver.execute(_LAST_KEY).fetchone()[0])

        return await self._database.read_in_one_trip(work)

    async def empty(self, run_id: int, job_id: int, last_key: int) -> None:
        """Undo what was added to a run's snapshot, with the job's items that are new since that was the last key."""
        while await self._database.write_in_one_trip(partial(undo, run_id, job_id, last_key)):
            pass

    async def mark_same_anew(self, run_id: int, job_id: int, hashes: Sequence[str]) -> None:
        """Mark all members again that share an answer with an added row, of these hashes, or with one that is gone."""

        def find(connection: Connection) -> Twins:
            return possible_twins(connection.driver, run_id, job_id, hashes)

        def page(connection: Connection) -> tuple[list[tuple[int | None, int]], str]:
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


@dataclass(frozen=True, slots=True)
class _Which:
    """What rows are compared with."""

    job_id: int | None
    run_id: int | None
    before: Earlier | None
    reuse: Sequence[int]


def _ingest(which: _Which, run_id: int, position: int, chunks: Sequence[Rows], connection: sqlite3.Connection) -> Plan:
    plan = Plan()
    for rows in chunks:
        if isinstance(rows, KnownChunk):
            plan += _known_classified(connection, which, rows)[0]
            take_over(connection, rows, which.before, run_id, position)
        else:
            versions = _versions(connection, which, position, rows)
            _check_ids(rows, versions, position)
            plan += _classified(which, connection, rows, versions)[0]
            _add_chunk(connection, which, run_id, position, rows, versions)
        position += len(rows)
    return plan


def _versions(
    connection: sqlite3.Connection, which: _Which, position: int, rows: Sequence[NewItem]
) -> dict[int, list[_Version]]:
    """The items that have the ids of these rows, by the row's index."""
    found: dict[int, list[_Version]] = {}
    before = None if which.before is None else which.before.run_id
    values = {"job": which.job_id, "run": which.run_id, "earlier": before}
    for index, *version in connection.execute(_VERSIONS, values | {"ids": _json([row.item_id for row in rows])}):
        found.setdefault(index, []).append(_Version(*version))
    if before is not None:
        for index, versions in found.items():
            _check_alike(rows[index], versions, position + index)
    return found


def _check_alike(row: NewItem, versions: Sequence[_Version], position: int) -> None:
    """Raise `Unlike` if the run before has the row elsewhere, or a request that is the same item but not the same text.

    Such a row may be a second one with its id, or share its answer with others than their texts say.
    """
    for version in versions:
        moved = version.earlier not in {None, position}
        if moved or (version.hash == row.hash and version.request != row.request):
            raise Unlike


def _known_classified(connection: sqlite3.Connection, which: _Which, known: KnownChunk) -> tuple[Plan, Workload]:
    """What the rows of a chunk of the run before are. Only those without an answer have to be looked at."""
    if which.before is None:
        raise Unlike
    completed = completed_in(connection, known)
    if completed == known.rows:
        return Plan(reused=completed), Workload()
    left = [NewItem(*row, None) for row in unanswered(connection, which.before, known)]
    unlike = replace(which, before=None)
    plan, load = _classified(unlike, connection, left, _versions(connection, unlike, 0, left))
    return Plan(reused=known.rows - len(left)) + plan, load


def _check_ids(rows: Sequence[NewItem], versions: Mapping[int, Sequence[_Version]], position: int) -> None:
    """Raise `RepeatedId` for the first row whose id an earlier row of the run has."""
    places = {
        index: min(places)
        for index, some in versions.items()
        if (places := [version.place for version in some if version.place is not None])
    }
    if not places and len({row.item_id for row in rows}) == len(rows):
        return
    firsts: dict[str, int] = {}
    for index, row in enumerate(rows):
        first = places.get(index, firsts.setdefault(row.item_id, position + index))
        if first != position + index:
            raise RepeatedId(row.item_id, first, position + index)


def _classified(
    which: _Which,
    connection: sqlite3.Connection,
    rows: Sequence[NewItem],
    versions: Mapping[int, Sequence[_Version]],
) -> tuple[Plan, Workload]:
    """How many of the rows are what, and how much of them is to be asked."""
    elsewhere: set[int] = set()
    if which.reuse:
        slim = _json([[row.item_id, row.hash] for row in rows])
        found = connection.execute(_ANSWERED_ELSEWHERE, {"rows": slim, "others": _json(list(which.reuse))})
        elsewhere = {index for (index,) in found}
    special = versions.keys() | elsewhere
    classes = {index: class_of(rows[index], versions.get(index, ()), index in elsewhere) for index in special}
    counts = Counter[Class](classes.values())
    counts["new"] += len(rows) - len(special)
    asked = [row for index, row in enumerate(rows) if classes.get(index, "new") not in {"reused", "discarded"}]
    plan = Plan(**{str(name): number for name, number in counts.items()})
    return plan, Workload(len(asked), sum(len(row.request or "") for row in asked))


def class_of(row: NewItem, versions: Sequence[_Version], elsewhere: bool) -> Class:  # noqa: FBT001 - three facts
    """What a row is, given the items with its id, and whether a job whose answers are reused has answered it."""
    same = next((version for version in versions if version.hash == row.hash), None)
    if same is not None and same.outcome == "completed":
        return "reused"
    if same is not None and same.settled:
        return "discarded"
    if elsewhere:
        return "reused"
    if same is not None and same.tried:
        return "retry"
    edited = any(version.hash != row.hash and (same is None or version.key < same.key) for version in versions)
    return "edited" if edited else "new"


def _add_chunk(
    connection: sqlite3.Connection,
    which: _Which,
    run_id: int,
    position: int,
    rows: Sequence[NewItem],
    versions: Mapping[int, Sequence[_Version]],
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


def _asked_as_given(rows: Sequence[NewItem], known: Mapping[int, _Version]) -> bool:
    """Whether the ledger has the requests as they are given now: an answered one may have its keys in another order."""
    return all(
        version.request == rows[index].request or version.outcome != "completed" for index, version in known.items()
    )


def _add_items(
    connection: sqlite3.Connection, job_id: int | None, rows: Sequence[NewItem], known: Mapping[int, _Version]
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
