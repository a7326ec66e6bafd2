"""Queries for people and deliveries: counts, items, failures by cause, and pages of items. Read only."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from orchestrator import exact_json
from orchestrator.domain.item import ItemState
from orchestrator.domain.run import Counts, Plan, Tokens
from orchestrator.domain.waiting import Waiting, after_failure
from orchestrator.store.causes import IS_ALIKE, cause_of, causes_of
from orchestrator.store.chunks import POSITION_BITS
from orchestrator.store.items import LEFT
from orchestrator.store.settled import SETTLED, forgiven
from orchestrator.store.sqlite import total

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from orchestrator.domain.run import Cause, Run
    from orchestrator.store.connection import BlockingConnection
    from orchestrator.store.database import Database

PAGE = 1000  # rows read at once: the read transaction is over before they are used


@dataclass(frozen=True, slots=True)
class ItemView:
    """One item of a run as a person or a delivery sees it. JSON columns are still text."""

    position: int
    id: str
    state: ItemState
    kept: str | None
    output: str | None
    attempts: int
    kind: str | None
    status: int | None
    message: str | None
    notes: str | None  # words with spaces between
    key: int  # as the ledger numbers items
    body: str | None  # what the server answered to the failed request, if the policy keeps that


CompletedRow: TypeAlias = tuple[str, str | None, str, int]  # id; kept columns and output, as JSON; position


@dataclass(frozen=True, slots=True)
class SettledPage:
    """Consecutive rows of a run: how many, those with an answer, and those that are discarded, in input order."""

    last: int  # its position
    rows: int
    completed: Sequence[CompletedRow]
    discarded: Sequence[ItemView]


_COUNTS = """
SELECT run_id, sum(completed), sum(discarded), sum(iif(state = 'leased', hi - lo - completed - discarded, 0))
FROM chunk WHERE run_id IN (SELECT value FROM json_each(:runs)) GROUP BY run_id
"""
_TOKENS = f"SELECT {total('tokens_in')}, {total('tokens_out')} FROM chunk WHERE run_id = :run"
_TOKENS_OF_ASKS = """
SELECT nullif(sum(tokens_in), 0), nullif(sum(tokens_out), 0) FROM ask_total WHERE run_id = :run HAVING count(*) > 0
"""
_TRIED = f"""
SELECT count(DISTINCT a.item_key) FROM attempt a
JOIN member m ON m.item_key = a.item_key AND m.run_id = :run AND m.id >> {POSITION_BITS} = :run
WHERE NOT EXISTS (SELECT 1 FROM result r WHERE r.item_key = a.item_key AND NOT ({forgiven("r")}))
"""
# An item waits as long as the item whose answer it shares. A first attempt does not wait.
_UNSETTLED = f"""
SELECT {LEFT} AS wait, a.kind, a.status FROM chunk c
CROSS JOIN member m ON m.id >= (c.run_id << {POSITION_BITS}) | c.lo AND m.id < (c.run_id << {POSITION_BITS}) | c.hi
LEFT JOIN result r ON r.item_key = m.item_key
LEFT JOIN attempt a ON a.item_key = coalesce(m.same_as, m.item_key)
     AND a.number = (SELECT max(l.number) FROM attempt l WHERE l.item_key = coalesce(m.same_as, m.item_key))
WHERE c.run_id = :run AND c.state <> 'done' AND NOT {SETTLED}
"""
_READY = f"SELECT 1 FROM ({_UNSETTLED}) WHERE coalesce(wait, 0) <= 0 LIMIT 1"
# the cause is that of the first
_WAITING = f"SELECT count(*), min(wait), kind, status FROM ({_UNSETTLED}) WHERE wait > 0"


# `state` is derived, not stored. A forgiven discard still counts in every run whose chunk is done.
def _items_in(members: str, chunk: str) -> str:
    return f"""
SELECT m.id & {(1 << POSITION_BITS) - 1} AS position, i.item_id,
       iif(c.id IS NULL OR c.state = 'done', r.outcome,
           iif(run.state = 'cancelled', 'cancelled', iif(c.state = 'leased', 'leased', 'available'))) AS item_state,
       m.kept, r.output, coalesce(r.attempts, a.number, 0), a.kind, a.status, a.message, r.notes,
       m.item_key, a.body
FROM {members}
JOIN item i ON i.key = m.item_key
JOIN run ON run.id = m.run_id
LEFT JOIN result r ON r.item_key = m.item_key
LEFT JOIN attempt a ON a.item_key = m.item_key AND a.number =
    iif(r.item_key IS NULL, (SELECT max(number) FROM attempt b WHERE b.item_key = m.item_key), r.attempts)
LEFT JOIN chunk c ON NOT {SETTLED} AND c.id = {chunk}
"""


_ITEMS = _items_in(
    "member m",
    f"""(SELECT d.id FROM chunk d
    WHERE d.run_id = m.run_id AND d.lo <= m.id & {(1 << POSITION_BITS) - 1} ORDER BY d.lo DESC LIMIT 1)""",
)
_PAGE_WHERE = f"{_ITEMS} WHERE m.id > :after AND m.id < (:run + 1) << {POSITION_BITS}"
_PAGE = f"{_PAGE_WHERE} ORDER BY m.id LIMIT :limit"
_PAGE_OF_NOTED = f"{_PAGE_WHERE} AND r.notes IS NOT NULL AND r.outcome = 'completed' ORDER BY m.id LIMIT :limit"
# What a delivery needs of most rows. The rest of an item is looked up only for those that are discarded.
_COMPLETED = f"""
SELECT i.item_id, m.kept, r.output, m.id & {(1 << POSITION_BITS) - 1}
FROM member m CROSS JOIN item i ON i.key = m.item_key LEFT JOIN result r ON r.item_key = m.item_key
WHERE m.id > :after AND m.id < (:run + 1) << {POSITION_BITS} ORDER BY m.id LIMIT {PAGE}
"""
_DISCARDED = f"""{_PAGE_WHERE} AND m.id <= (:run << {POSITION_BITS}) + :last
AND r.outcome = 'discarded' AND item_state = 'discarded' ORDER BY m.id"""
# By state, chunk by chunk: those without such an item are left out by their counters.
_IN_CHUNKS = _items_in(
    f"""chunk h CROSS JOIN member m ON m.id >= (h.run_id << {POSITION_BITS}) | h.lo
    AND m.id < (h.run_id << {POSITION_BITS}) | h.hi""",
    "h.id",
)
_CHUNKS_WITH = {
    ItemState.COMPLETED: "h.completed > 0 AND r.outcome = 'completed'",  # all that most members are looked at for
    ItemState.DISCARDED: "h.discarded > 0 AND r.outcome = 'discarded'",
    ItemState.LEASED: "h.state = 'leased'",
    ItemState.AVAILABLE: "h.state <> 'done'",
    ItemState.CANCELLED: "h.state <> 'done'",
}


def _listed(chunks: str, alike: str = "true") -> str:
    """Without the plus, SQLite would look for the members of each chunk from the first member of the run on."""
    return f"""{_IN_CHUNKS}
WHERE h.run_id = :run AND h.hi > :after AND {chunks} AND +m.id > (:run << {POSITION_BITS}) + :after
AND item_state = :state AND {alike} ORDER BY h.lo, m.id LIMIT :limit"""


_LISTED = {state: _listed(chunks) for state, chunks in _CHUNKS_WITH.items()}
_LISTED_ALIKE = _listed(_CHUNKS_WITH[ItemState.DISCARDED], IS_ALIKE)
PAGE_OF = f"{_PAGE_WHERE} AND r.outcome = :outcome ORDER BY m.id LIMIT {PAGE}"  # discards to be asked again, too
ROWS_OF = f"{_ITEMS} WHERE m.run_id = :run AND m.item_key IN (SELECT value FROM json_each(:keys))"
_ONE = f"""{_ITEMS} WHERE m.run_id = :run AND m.item_key IN
(SELECT key FROM item WHERE job_id = (SELECT job_id FROM run WHERE id = :run) AND item_id = :item)"""
_ATTEMPTS = """
SELECT a.number, a.outcome, a.kind, a.status, a.message, a.seconds, a.at, a.available_at, a.body FROM attempt a
WHERE a.item_key = :key ORDER BY a.number
"""
_DETAIL = """
SELECT i.key, i.request, r.outcome, r.attempts, r.seconds, r.finished_at, r.output, r.answer
FROM item i JOIN member m ON m.item_key = i.key LEFT JOIN result r ON r.item_key = i.key
WHERE m.run_id = :run AND i.item_id = :item AND i.job_id = (SELECT job_id FROM run WHERE id = :run)
"""
_NOTED = """
SELECT m.run_id, r.notes, count(*) FROM result r INDEXED BY ix_result_noted CROSS JOIN member m
ON m.item_key = r.item_key AND m.run_id IN (SELECT value FROM json_each(:runs))
WHERE r.notes IS NOT NULL AND r.outcome = 'completed' GROUP BY m.run_id, r.notes
"""


class Views:
    """Queries whose cost does not grow with what is already done, except for what is asked for."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def counts(self, run_id: int, total: int) -> Counts:
        """How many items are in each state: a sum over chunks, not over items."""
        return (await self.counts_of({run_id: total}))[run_id]

    async def counts_of(self, totals: Mapping[int, int]) -> dict[int, Counts]:
        """The counts of several runs, given how many items each of them has."""
        async with self._database.read() as connection:
            rows = await connection.execute(_COUNTS, {"runs": orjson.dumps(list(totals)).decode()})
            counted = {run: counts for run, *counts in rows}
        return {run: Counts(total, *counted.get(run, ())) for run, total in totals.items()}

    async def waiting(self, run_id: int, now: float) -> Waiting | None:
        """What all unsettled items of the run wait for, and until when; None if one can be asked now."""
        values = {"run": run_id, "now": now}
        async with self._database.read() as connection:
            if (await connection.execute(_READY, values)).one_or_none() is not None:
                return None
        return await self.later(run_id, now)

    async def later(self, run_id: int, now: float) -> Waiting | None:
        """How many unsettled items cannot be asked now, until when the first of them waits, and why."""
        async with self._database.read() as connection:
            row = (await connection.execute(_WAITING, {"run": run_id, "now": now})).one()
        items, wait, kind, status = row
        return Waiting(items, now + wait, after_failure(kind, status)) if items else None

    async def tokens(self, run_id: int) -> Tokens:
        """How many tokens the run's answers took: a sum over chunks, not over items; of rollouts, what they asked."""
        async with self._database.read() as connection:
            asked = (await connection.execute(_TOKENS_OF_ASKS, {"run": run_id})).one_or_none()
            return Tokens(*(asked or (await connection.execute(_TOKENS, {"run": run_id})).one()))

    async def noted(self, run_id: int) -> dict[str, int]:
        """How many of the run's answers have each note."""
        return (await self.noted_in([run_id])).get(run_id, {})

    async def noted_in(self, run_ids: Sequence[int]) -> dict[int, dict[str, int]]:
        """The same for each of these runs that has such answers."""
        found: dict[int, Counter[str]] = {}
        async with self._database.read() as connection:
            for run, notes, number in await connection.execute(_NOTED, {"runs": orjson.dumps(run_ids).decode()}):
                for note in notes.split():
                    found.setdefault(run, Counter())[note] += number
        return {run: dict(sorted(counts.items())) for run, counts in found.items()}

    async def plan_left(self, run: Run) -> Plan:
        """What a continued run still has to do. Rows edited before it began count as new."""
        counts = await self.counts(run.id, run.total)
        async with self._database.read() as connection:
            tried = (await connection.execute(_TRIED, {"run": run.id})).scalar_one()
        return Plan(new=counts.unfinished - tried, reused=counts.completed, retry=tried, discarded=counts.discarded)

    async def pages(self, run_id: int, *, noted: bool = False) -> AsyncIterator[list[ItemView]]:
        """All items of a run in input order, or only those whose answers have notes."""
        after = -1
        while page := await self.page(run_id, after, noted=noted):
            yield page
            after = page[-1].position

    async def page(self, run_id: int, after: int, *, noted: bool = False, limit: int = PAGE) -> list[ItemView]:
        """The items that follow a position; empty if there are none."""
        values = {"run": run_id, "after": (run_id << POSITION_BITS) + after, "limit": limit}
        async with self._database.read() as connection:
            rows = (await connection.execute(_PAGE_OF_NOTED if noted else _PAGE, values)).all()
        return [as_view(row) for row in rows]

    async def settled(self, run_id: int) -> AsyncIterator[SettledPage]:
        """All rows of a run, settled or not, in pages; what is not settled is only counted."""
        page = await self._settled_after(run_id, -1)
        while page is not None:
            yield page
            page = await self._settled_after(run_id, page.last)

    async def _settled_after(self, run_id: int, after: int) -> SettledPage | None:
        def read(connection: BlockingConnection) -> SettledPage | None:
            values = {"run": run_id, "after": (run_id << POSITION_BITS) + after}
            rows = connection.driver.execute(_COMPLETED, values).fetchall()  # rows with names cost more
            if not rows:
                return None
            last: int = rows[-1][3]
            completed: list[CompletedRow] = [row for row in rows if row[2] is not None]
            discarded: list[ItemView] = []
            if len(completed) < len(rows):
                discarded = [as_view(row) for row in connection.execute(_DISCARDED, {**values, "last": last})]
            return SettledPage(last, len(rows), completed, discarded)

        return await self._database.read_in_one_trip(read)

    async def in_state(self, run_id: int, state: ItemState, after: int, limit: int) -> list[ItemView]:
        """At most `limit` items in one state that follow a position."""
        values = {"run": run_id, "after": after, "state": state, "limit": limit}
        async with self._database.read() as connection:
            return [as_view(row) for row in await connection.execute(_LISTED[state], values)]

    async def alike(self, run_id: int, item_id: str, after: int, limit: int) -> list[ItemView]:
        """The same for items discarded for the same cause as this one. `UsageError` if it is not discarded."""
        values = {"run": run_id, "after": after, "state": ItemState.DISCARDED, "limit": limit}
        async with self._database.read() as connection:
            cause = await cause_of(connection, run_id, item_id)
            return [as_view(row) for row in await connection.execute(_LISTED_ALIKE, {**values, **cause})]

    async def item(self, run_id: int, item_id: str) -> dict[str, object] | None:
        """One item with its request, every attempt, and its answer."""
        which = {"run": run_id, "item": item_id}
        async with self._database.read() as connection:
            seen = (await connection.execute(_ONE, which)).first()
            row = (await connection.execute(_DETAIL, which)).first()
            if seen is None or row is None:
                return None
            failed = (await connection.execute(_ATTEMPTS, {"key": row.key})).all()
        attempts: list[dict[str, object]] = [
            {name: value for name, value in attempt.as_dict().items() if name != "body" or value is not None}
            for attempt in failed
        ]
        if row.outcome == "completed":
            attempts.append(
                {"number": row.attempts, "outcome": "completed", "seconds": row.seconds, "at": row.finished_at}
            )
        view = as_view(seen)
        return {
            "id": view.id,
            "position": view.position,
            "state": view.state,
            "kept": _loads(view.kept),
            "request": _loads(row.request),
            "attempts": attempts,
            "answer": _loads(row.answer if row.answer is not None else row.output),
            "output": _loads(row.output),
        }

    async def causes(self, run_id: int, limit: int = 10) -> list[Cause]:
        """Discarded items grouped by cause, the most frequent first."""
        return (await self.causes_in([run_id], limit)).get(run_id, [])

    async def causes_in(self, run_ids: Sequence[int], limit: int = 10) -> dict[int, list[Cause]]:
        """The same for each of these runs that has discarded items."""
        async with self._database.read() as connection:
            return await causes_of(connection, run_ids, limit)


def as_view(row: Sequence[Any]) -> ItemView:
    """The item in this row."""
    position, name, state, *rest = row
    return ItemView(position, name, ItemState(state), *rest)


def _loads(text_: str | None) -> object:
    return None if text_ is None else exact_json.loads(text_)
