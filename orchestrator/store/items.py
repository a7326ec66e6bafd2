"""Transitions of items: lease, settle, release, expire.

Rows travel as one JSON parameter and are unpacked by `json_each`: one constant statement, run inside SQLite without
Python's interpreter lock, however many rows. Answers, the hot path, travel as one INSERT of many rows. What `settle`
executes goes to the driver itself and is plain text; the rest goes through SQLAlchemy.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from typing import TYPE_CHECKING, Any, assert_never

import anyio.lowlevel
import orjson

from orchestrator.domain.attempt import Completed, Discarded, Outcome, RetryLater
from orchestrator.domain.errors import FailureKind
from orchestrator.domain.failpoints import reached
from orchestrator.domain.item import Item, Lease
from orchestrator.domain.waiting import LONGEST
from orchestrator.store.chunks import (
    CLOSE,
    CLOSE_IF_SETTLED,
    POSITION_BITS,
    RECOUNT,
    NewResult,
    add,
    open_chunk,
    recount,
)
from orchestrator.store.forgive import forgivable
from orchestrator.store.settled import REPLACE_FORGIVEN, SETTLED

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from orchestrator.domain.errors import RequestFailed
    from orchestrator.store.connection import AsyncConnection
    from orchestrator.store.database import Database

MESSAGE_LENGTH = 2000  # characters of a failure's message that are kept
_BODY_LENGTH = 65_536  # characters of an error response that are kept, if the policy keeps them
_VALUES = 500  # rows in one INSERT
MOST_CHUNKS = 64  # claimed in one transaction: looking at the items of so many takes tens of milliseconds
STRIKES = 3  # leases lost without progress before a chunk is halved, to isolate the item that kills its process


@dataclass(frozen=True, slots=True)
class Leased:
    """A claimed chunk and its items that still have to be settled."""

    lease: Lease
    items: list[Item]


@dataclass(frozen=True, slots=True)
class Settlement:
    """How one attempt of one item ended, after how many seconds."""

    item: Item
    outcome: Outcome
    seconds: float


# Of chunks that are settled for the most part, as in a retry, so many are claimed that their items fill `:chunks`.
_LEASE = f"""
UPDATE chunk SET state = 'leased', holder = :process, token = token + 1
WHERE id IN (SELECT id FROM (
    SELECT id, sum(part) OVER (ORDER BY id) - part AS before FROM (
        SELECT id, 1.0 * (hi - lo - completed - discarded) / (hi - lo) AS part FROM chunk
        WHERE run_id = :run AND state = 'available'
        AND (:only IS NULL OR id IN (SELECT value FROM json_each(:only))) ORDER BY id LIMIT {MOST_CHUNKS}))
    WHERE before < :chunks)
RETURNING id, token
"""
# Seconds for which the item of an attempt still has to wait: never more than was written, so that no item waits longer
# because a clock was set back.
LEFT = f"min(a.available_at - :now, a.available_at - a.at, {LONGEST})"
# Chunk by chunk, each in input order, because `CROSS JOIN` fixes the order of the loops: nothing has to be sorted.
_ITEMS_OF_CHUNKS = f"""
SELECT c.id, i.key, i.item_id, i.request,
       (SELECT max(a.number) FROM attempt a WHERE a.item_key = i.key),
       (SELECT {LEFT} FROM attempt a WHERE a.item_key = i.key ORDER BY a.number DESC LIMIT 1),
       (SELECT group_concat(a.kind) FROM attempt a WHERE a.item_key = i.key AND a.number > i.forgiven),
       m.same_as, s.output, s.answer, s.notes, r.item_key IS NOT NULL
FROM chunk c
CROSS JOIN member m ON m.id >= (c.run_id << {POSITION_BITS}) | c.lo AND m.id < (c.run_id << {POSITION_BITS}) | c.hi
CROSS JOIN item i ON i.key = m.item_key LEFT JOIN result r ON r.item_key = i.key
LEFT JOIN result s ON s.item_key = m.same_as AND s.outcome = 'completed'
WHERE c.id IN (SELECT value FROM json_each(:chunks)) AND NOT {SETTLED}
"""
# A process that lost its lease may add an answer (inference is idempotent) but no failure: its token must be current.
_HELD = "JOIN chunk c ON c.id = v.value ->> 6 AND c.token = v.value ->> 7 AND c.state = 'leased'"
_RECORD_FAILURES = f"""
INSERT INTO attempt (item_key, number, outcome, kind, status, message, seconds, at, available_at, body)
SELECT v.value ->> 0, v.value ->> 1, iif(v.value ->> 8 IS NULL, 'discarded', 'retry_later'),
       v.value ->> 3, v.value ->> 4, v.value ->> 5, v.value ->> 2, :now, v.value ->> 8,
       v.value ->> 9
FROM json_each(:rows) v {_HELD}
WHERE true ON CONFLICT DO NOTHING
"""
_DISCARD = f"""
INSERT INTO result (item_key, outcome, attempts, seconds, finished_at, answer, notes)
SELECT v.value ->> 0, 'discarded', v.value ->> 1, v.value ->> 2, :now, v.value ->> 10, v.value ->> 11
FROM json_each(:rows) v {_HELD}
WHERE v.value ->> 8 IS NULL
"""
_KEEP = "ON CONFLICT DO NOTHING"
_PROGRESS = """
UPDATE chunk SET strikes = 0 WHERE id = :chunk AND token = :token AND state = 'leased' AND strikes > 0
"""
_ANSWERED = f"""
SELECT i.request FROM member m JOIN result r ON r.item_key = m.item_key AND r.outcome = 'completed'
JOIN item i ON i.key = m.item_key
WHERE m.id >= :run << {POSITION_BITS} AND m.id < (:run + 1) << {POSITION_BITS} LIMIT :most
"""
_RELEASE = "UPDATE chunk SET state = 'available', holder = NULL WHERE holder = :process AND state = 'leased'"
_EXPIRE = """
UPDATE chunk SET state = 'available', holder = NULL, strikes = strikes + 1
WHERE holder = :process AND state = 'leased'
RETURNING id, run_id, lo, hi, strikes
"""


class Items:
    """The transitions of items."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def lease(self, run_id: int, process_id: int, chunks: int, only: Sequence[int] | None = None) -> list[Leased]:
        """Claim available chunks for this process with as many unsettled items as `chunks` new chunks would have.

        An empty list if none is left. `only`: claim none but these.
        """
        claimed = await self._claim(run_id, process_id, chunks, only)
        while claimed and not any(part.items for part in claimed):
            await anyio.lowlevel.checkpoint()  # the rest is shielded
            claimed = await self._claim(run_id, process_id, chunks, only)
        return [part for part in claimed if part.items]

    async def _claim(self, run_id: int, process_id: int, chunks: int, only: Sequence[int] | None) -> list[Leased]:
        """Claim chunks, and close those without unsettled items: other processes or runs have settled them all."""
        async with self._database.write() as connection:
            which = {
                "run": run_id,
                "process": process_id,
                "chunks": chunks,
                "only": None if only is None else _json(only),
            }
            leased = await connection.execute(_LEASE, which)
            claimed = {chunk: Leased(Lease(chunk, token), []) for chunk, token in sorted(leased.all())}
            values = {"chunks": _json(list(claimed)), "now": time.time()}
            for chunk, *row in await connection.execute(_ITEMS_OF_CHUNKS, values):
                claimed[chunk].items.append(_item(claimed[chunk].lease, row))
            for part in claimed.values():
                if not part.items:
                    await connection.execute(CLOSE, {"chunk": part.lease.chunk, "token": part.lease.token})
            reached("before lease")
        reached("after lease")
        return list(claimed.values())

    async def settle(self, settlements: Sequence[Settlement], close: Sequence[Lease] = ()) -> None:
        """Write outcomes, and close the leased chunks of which nothing is left. One transaction, replayable."""
        await self._database.write_in_one_trip(partial(settle_items, settlements, close), rows=len(settlements))
        reached("after commit")

    async def release(self, process_id: int) -> None:
        """Release every lease of this process without counting an attempt."""
        async with self._database.write() as connection:
            await connection.execute(_RELEASE, {"process": process_id})

    async def expire(self, process_id: int) -> int:
        """Revoke the leases of a dead process. A chunk whose holders keep dying is halved, down to one item."""
        async with self._database.write() as connection:
            lost = (await connection.execute(_EXPIRE, {"process": process_id})).all()
            for chunk, run_id, lo, hi, strikes in lost:
                if strikes >= STRIKES:
                    await _isolate(connection, run_id, chunk, lo, hi)
        return len(lost)

    async def forgivable(self, run_id: int, like: str | None = None) -> int:
        """How many of the run's discarded items can be asked again: all, or those that failed as item `like` did."""
        async with self._database.read() as connection:
            return len(await forgivable(connection, run_id, like))

    async def answered(self, run_id: int, most: int) -> list[bytes]:
        """The requests of up to `most` answered items of this run."""
        async with self._database.read() as connection:
            requests = await connection.execute(_ANSWERED, {"run": run_id, "most": most})
            return [request.encode() for request in requests.scalars()]


def _json(rows: object) -> str:
    return orjson.dumps(rows).decode()


def _item(lease: Lease, row: Sequence[Any]) -> Item:
    key, name, request, attempts, wait, kinds, same_as, output, answer, notes, forgiven = row
    shared_answer = None if output is None else Completed(output, answer, notes=frozenset((notes or "").split()))
    number = (attempts or 0) + 1
    ready_at = time.monotonic() + max(0.0, wait or 0.0)
    return Item(
        key, name, request.encode(), number, lease, _kinds(kinds), ready_at, same_as, shared_answer, bool(forgiven)
    )


def _kinds(joined: str | None) -> list[FailureKind]:
    return [FailureKind(kind) for kind in joined.split(",")] if joined else []


def settle_items(settlements: Sequence[Settlement], close: Sequence[Lease], connection: sqlite3.Connection) -> None:
    """Write outcomes of items, and close leased chunks, within a transaction."""
    completed, failed, results = _rows(settlements)
    failures = {"now": time.time(), "rows": _json(failed)} if failed else None
    if failures:
        connection.execute(_RECORD_FAILURES, failures)
    if _write(connection, completed, failures, _KEEP) == len(results):
        add(connection, results)
    else:  # a replay, or some have a result already: another process settled them, or they are forgiven discards
        _write(connection, completed, failures, REPLACE_FORGIVEN)
        recount(connection, [result.key for result in results])
    for lease in {one.item.lease for one in settlements}:
        connection.execute(_PROGRESS, {"chunk": lease.chunk, "token": lease.token})
    for lease in close:
        connection.execute(CLOSE, {"chunk": lease.chunk, "token": lease.token})
    reached("before commit")


def _write(
    connection: sqlite3.Connection,
    completed: Sequence[tuple[object, ...]],
    failures: Mapping[str, object] | None,
    on_conflict: str,
) -> int:
    """Add answers and discards; return how many rows of `result` were written.

    Answers go in one statement for many rows. It is the cheapest way there is, and made once per number of rows.
    """
    written = 0
    for at in range(0, len(completed), _VALUES):
        rows = completed[at : at + _VALUES]
        statement = _insert_completed(len(rows), on_conflict)
        written += connection.execute(statement, tuple(chain.from_iterable(rows))).rowcount
    if failures:
        written += connection.execute(f"{_DISCARD}{on_conflict}", failures).rowcount
    return written


@cache
def _insert_completed(rows: int, on_conflict: str) -> str:
    values = ", ".join(["(?, 'completed', ?, ?, ?, ?, ?, ?, ?, ?)"] * rows)
    return (
        "INSERT INTO result (item_key, outcome, attempts, seconds, finished_at, output, answer, tokens_in, tokens_out, "
        f"notes) VALUES {values} {on_conflict}"
    )


def _rows(
    settlements: Sequence[Settlement],
) -> tuple[list[tuple[object, ...]], list[list[object]], list[NewResult]]:
    """Rows of answers, rows of failed attempts, and what the answers and discards add to the counters."""
    completed: list[tuple[object, ...]] = []
    failed: list[list[object]] = []
    results: list[NewResult] = []
    now = time.time()
    for settlement in settlements:
        item, outcome = settlement.item, settlement.outcome
        match outcome:
            case Completed(output, answer, tokens_in, tokens_out, notes):
                rest = (output, answer, tokens_in, tokens_out, words(notes))
                completed.append((item.key, item.attempt, settlement.seconds, now, *rest))
                results.append(NewResult(item.key, item.lease.chunk, "completed", tokens_in, tokens_out))
            case RetryLater(delay, failure):
                failed.append(_failure_row(settlement, failure, now + delay))
            case Discarded(failure, answer, notes):
                failed.append([*_failure_row(settlement, failure, None), answer, words(notes)])
                results.append(NewResult(item.key, item.lease.chunk, "discarded", None, None))
            case _:
                assert_never(outcome)
    return completed, failed, results


def words(notes: frozenset[str]) -> str | None:
    """Return notes as a row stores them."""
    return " ".join(sorted(notes)) or None


def _failure_row(settlement: Settlement, failure: RequestFailed, available_at: float | None) -> list[object]:
    item = settlement.item
    shown = failure.message[:MESSAGE_LENGTH].encode(errors="replace").decode()
    what = [failure.kind, failure.status, shown]
    body = None if failure.body is None else failure.body[:_BODY_LENGTH]
    return [item.key, item.attempt, settlement.seconds, *what, item.lease.chunk, item.lease.token, available_at, body]


async def _isolate(connection: AsyncConnection, run_id: int, chunk: int, lo: int, hi: int) -> None:
    """Halve a chunk whose holders keep dying. If it has one item, that item is to blame: discard it."""
    if hi - lo > 1:
        middle = (lo + hi) // 2
        await connection.execute("DELETE FROM chunk WHERE id = :chunk", {"chunk": chunk})
        for part in ((lo, middle), (middle, hi)):
            await open_chunk(connection, run_id, *part, strikes=STRIKES - 1)
        return
    values = {"chunks": _json([chunk]), "now": time.time()}
    for _, key, _, _, attempts, *_ in (await connection.execute(_ITEMS_OF_CHUNKS, values)).all():
        what = {
            "key": key,
            "number": (attempts or 0) + 1,
            "kind": FailureKind.CRASHED,
            "message": f"the orchestrator's own process died {STRIKES} times with this item alone in its hands",
            "now": values["now"],
        }
        await connection.execute(_CRASHED_ATTEMPT, what)
        await connection.execute(_CRASHED_RESULT, what)
        await connection.execute(RECOUNT, {"keys": _json([key])})
    await connection.execute(CLOSE_IF_SETTLED, {"chunk": chunk})


_CRASHED_ATTEMPT = """
INSERT INTO attempt (item_key, number, outcome, kind, message, seconds, at)
VALUES (:key, :number, 'discarded', :kind, :message, 0.0, :now)
"""
_CRASHED_RESULT = f"""
INSERT INTO result (item_key, outcome, attempts, seconds, finished_at) VALUES (:key, 'discarded', :number, 0.0, :now)
{REPLACE_FORGIVEN}
"""
