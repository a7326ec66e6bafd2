"""Chunks that a run takes over from the run before, because the texts of their rows are the same.

Their members are copied inside SQLite, and nothing is parsed. A chunk keeps its positions; so ids, and which members
share an answer, are as they were, unless a row that is not taken over changes them: see `Unlike`, `changed_twins`.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import orjson

from orchestrator.store.chunks import CLOSE_IF_SETTLED, POSITION_BITS, RECOUNT_ONE, WITH_ITEMS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence

_Request = tuple[str, bytes]  # an item's hash, and a hash of its request

_STEP = 20_000  # members that are deleted in one transaction


class Unlike(Exception):
    """The rows are too unlike those of the run before for its chunks to be taken over."""


@dataclass(frozen=True, slots=True)
class KnownChunk:
    """A chunk of the run before. `texts`: the hash of the texts of its rows; None if it cannot be taken over."""

    chunk: int
    lo: int
    rows: int
    texts: bytes | None

    def __len__(self) -> int:
        return self.rows


@dataclass(frozen=True, slots=True)
class Earlier:
    """The run before, and its chunks in order."""

    run_id: int
    chunks: Sequence[KnownChunk]


_EARLIER = """
SELECT id FROM run WHERE job_id = :job AND id IS NOT :run AND made_as = :made_as ORDER BY id DESC LIMIT 1
"""
_CHUNKS = "SELECT id, lo, hi - lo, texts FROM chunk WHERE run_id = :run ORDER BY lo"
_FORGET_TEXTS = f"UPDATE chunk SET texts = NULL WHERE texts IS NOT NULL AND id IN ({WITH_ITEMS})"
_COMPLETED = "SELECT completed FROM chunk WHERE id = ?"
_IN_CHUNK = f"m.id >= (:run << {POSITION_BITS}) | :lo AND m.id < (:run << {POSITION_BITS}) | :hi"
_UNANSWERED = f"""
SELECT i.item_id, i.hash, i.request FROM member m CROSS JOIN item i ON i.key = m.item_key
LEFT JOIN result r ON r.item_key = m.item_key WHERE {_IN_CHUNK} AND r.outcome IS NOT 'completed'
"""
_COPY_MEMBERS = f"""
INSERT INTO member (id, run_id, item_key, kept, same_as)
SELECT m.id + ((:new - :run) << {POSITION_BITS}), :new, m.item_key, m.kept, m.same_as FROM member m WHERE {_IN_CHUNK}
"""
_COPY_CHUNK = """
INSERT INTO chunk (run_id, lo, hi, state, texts, completed, tokens_in, tokens_out)
SELECT :new, lo, hi, iif(completed = hi - lo, 'done', 'available'), texts, completed, tokens_in, tokens_out
FROM chunk WHERE id = :chunk RETURNING id, state
"""
_OF_RUN = f"m.id >= :run << {POSITION_BITS} AND m.id < (:run + 1) << {POSITION_BITS}"
_DROP_CHUNKS = "DELETE FROM chunk WHERE run_id = :run"
_DROP_MEMBERS = f"DELETE FROM member WHERE id IN (SELECT m.id FROM member m WHERE {_OF_RUN} LIMIT {_STEP})"
_DROP_ITEMS = (
    *(
        f"DELETE FROM {table} WHERE item_key IN (SELECT key FROM item WHERE key > :last AND job_id = :job)"
        for table in ("attempt", "result")
    ),
    "DELETE FROM item WHERE key > :last AND job_id = :job",
)
# whose first one with the same request is not in the run any more
_ORPHANED = f"""
SELECT DISTINCT i.hash FROM member m CROSS JOIN item i ON i.key = m.item_key WHERE {_OF_RUN}
AND m.same_as IS NOT NULL AND NOT EXISTS (SELECT 1 FROM member f WHERE f.item_key = m.same_as AND f.run_id = :run)
"""
# the hash is compared in the index, which has this order, and only items that have it are looked up
_WITH_HASHES = """
SELECT i.item_id, m.id, i.key, i.hash, i.request, m.same_as
FROM item i CROSS JOIN member m ON m.item_key = i.key AND m.run_id = :run
WHERE i.job_id = :job AND i.item_id >= :from AND i.hash IN (SELECT value FROM json_each(:hashes)) ORDER BY i.item_id
"""


def earlier(connection: sqlite3.Connection, job_id: int | None, run_id: int | None, made_as: str) -> Earlier | None:
    """The job's latest run besides this one whose items were made in the same way; None if there is none."""
    found = connection.execute(_EARLIER, {"job": job_id, "run": run_id, "made_as": made_as}).fetchone()
    if found is None:
        return None
    return Earlier(found[0], [KnownChunk(*row) for row in connection.execute(_CHUNKS, {"run": found[0]})])


def forget_texts(connection: sqlite3.Connection, key: int) -> None:
    """The request of this item is no longer what the texts of its chunks say."""
    connection.execute(_FORGET_TEXTS, {"keys": f"[{key}]"})


def completed_in(connection: sqlite3.Connection, known: KnownChunk) -> int:
    """How many of its items have an answer. Raises `Unlike` if it has been pruned."""
    found = connection.execute(_COMPLETED, (known.chunk,)).fetchone()
    if found is None:
        raise Unlike
    return int(found[0])


def unanswered(connection: sqlite3.Connection, before: Earlier, known: KnownChunk) -> list[tuple[str, str, str | None]]:
    """The ids, hashes and requests of its items without an answer."""
    return connection.execute(_UNANSWERED, _range(before, known)).fetchall()


def take_over(
    connection: sqlite3.Connection, known: KnownChunk, before: Earlier | None, run_id: int, position: int
) -> None:
    """Give the run this chunk of the run before, which has to have the same position."""
    if before is None or known.lo != position:
        raise Unlike
    members = connection.execute(_COPY_MEMBERS, {"new": run_id, **_range(before, known)}).rowcount
    copied = connection.execute(_COPY_CHUNK, {"new": run_id, "chunk": known.chunk}).fetchone()
    if copied is None or members != known.rows:  # it has been pruned
        raise Unlike
    chunk, state = copied
    if state == "available":
        connection.execute(RECOUNT_ONE, {"chunk": chunk})
        connection.execute(CLOSE_IF_SETTLED, {"chunk": chunk})


def undo(run_id: int, job_id: int, last_key: int, connection: sqlite3.Connection) -> bool:
    """Empty a run's snapshot, and delete the job's items that are new since that was the last key.

    Returns whether there is more to delete.
    """
    values = {"run": run_id, "job": job_id, "last": last_key}
    connection.execute(_DROP_CHUNKS, values)
    if connection.execute(_DROP_MEMBERS, values).rowcount == _STEP:
        return True
    for statement in _DROP_ITEMS:
        connection.execute(statement, values)
    return False


@dataclass(frozen=True, slots=True)
class Twins:
    """Members of a run that may share an answer with another one than they are marked with.

    `which`: the run, its job and the hashes. `firsts`: by request, the number and item of the first member with it.
    """

    which: Mapping[str, object]
    firsts: Mapping[_Request, tuple[int, int]]


def possible_twins(connection: sqlite3.Connection, run_id: int, job_id: int, hashes: Sequence[str]) -> Twins:
    """Find the members of the run whose `same_as` may be wrong.

    Only members with one of these hashes, and those whose first one is gone, can be wrong: all others were taken over
    together with the first one.
    """
    which: dict[str, object] = {"run": run_id, "job": job_id}
    orphaned = [found for (found,) in connection.execute(_ORPHANED, which)]
    wanted = {*hashes, *orphaned}
    which |= {"hashes": orjson.dumps(list(wanted)).decode()}
    firsts: dict[_Request, tuple[int, int]] = {}
    for _, number, key, same, _ in _alike(connection, which, "") if wanted else ():
        firsts[same] = min(firsts.get(same, (number, key)), (number, key))
    return Twins(which, firsts)


def changed_twins(
    connection: sqlite3.Connection, twins: Twins, first_id: str, most: int
) -> tuple[list[tuple[int | None, int]], str]:
    """Find up to so many members whose `same_as` is wrong, with what it has to be, among the items from this id on.

    Also returns the id from which on the next ones are, once these are marked. If there are fewer, they were the last.
    """
    changed: list[tuple[int | None, int]] = []
    for id_, number, key, same, now in _alike(connection, twins.which, first_id) if twins.firsts else ():
        first = twins.firsts[same][1]
        right = None if first == key else first
        if now != right:
            changed.append((right, number))
            if len(changed) == most:
                return changed, id_
    return changed, first_id


def mark_twins(changed: Sequence[tuple[int | None, int]], connection: sqlite3.Connection) -> None:
    """Write what `changed_twins` has found."""
    connection.executemany("UPDATE member SET same_as = ? WHERE id = ?", changed)


def _alike(
    connection: sqlite3.Connection, which: Mapping[str, object], first_id: str
) -> Iterator[tuple[str, int, int, _Request, int | None]]:
    rows = connection.execute(_WITH_HASHES, {**which, "from": first_id})
    for id_, number, key, digest, request, same_as in rows:
        if request is not None:
            yield id_, number, key, (digest, blake2b(request.encode(), digest_size=16).digest()), same_as


def _range(before: Earlier, known: KnownChunk) -> dict[str, int]:
    return {"run": before.run_id, "lo": known.lo, "hi": known.lo + known.rows}
