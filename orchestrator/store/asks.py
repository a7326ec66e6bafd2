"""Asks of rollouts: each is a row once it was answered or has failed, so that a rollout that runs again finds it."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import closing
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, assert_never

import orjson

from orchestrator.domain.asks import FailedAsk, OpenAsk, RecordedAsk
from orchestrator.domain.attempt import Completed, Discarded, RetryLater
from orchestrator.domain.errors import FailureKind
from orchestrator.domain.failpoints import reached
from orchestrator.store.items import settle_items, words

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from orchestrator.domain.item import Lease
    from orchestrator.store.connection import BlockingConnection
    from orchestrator.store.database import Database
    from orchestrator.store.items import Settlement

_ROWS = 200  # in one INSERT
_LATEST = 10_000  # of all asks, among which those of a job are looked for that others may share
_NAME = "job_id, item_id, hash, nth, number, endpoint, step, request"
_OUTCOME = "outcome, answer, tokens_in, tokens_out, notes, attempts, seconds, at, failures"
_COUNT = """
INSERT INTO ask_total (run_id, endpoint, step, asks, discarded, retried, tokens_in, tokens_out, seconds)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run_id, endpoint, step) DO UPDATE SET
    asks = asks + excluded.asks, discarded = discarded + excluded.discarded, retried = retried + excluded.retried,
    tokens_in = tokens_in + excluded.tokens_in, tokens_out = tokens_out + excluded.tokens_out,
    seconds = seconds + excluded.seconds
"""
_LEASED = "SELECT 1 FROM chunk WHERE id = ? AND token = ? AND state = 'leased'"
_OF_ITEMS = """
SELECT a.item_id, a.hash, a.nth, a.outcome, a.answer, a.attempts, a.tokens_in, a.tokens_out, a.notes, a.failures
FROM json_each(:items) v CROSS JOIN ask a ON a.job_id = :job AND a.item_id = v.value
"""
_ANSWERED = """
SELECT request FROM ask WHERE job_id = :job AND endpoint = :endpoint AND outcome = 'completed' LIMIT :most
"""
# A job's latest asks are at the end of the table, where looking costs little however long it is.
_LATELY = f"""
SELECT endpoint, hash, nth, request, answer, notes FROM ask
WHERE key > (SELECT max(key) FROM ask) - {_LATEST} AND job_id = :job AND outcome = 'completed' ORDER BY key DESC
"""
Known = dict[tuple[bytes, int], RecordedAsk]


class LateAsk(NamedTuple):
    """An answered ask of some item, as `OpenAsk` describes it."""

    endpoint: str | None
    hash: bytes
    nth: int
    request: bytes
    answer: Completed


class Asks:
    """The transitions of asks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, job_id: int, items: Sequence[str]) -> Mapping[str, Known]:
        """Return the asks of these items of a job (their ids), by what identifies an ask within its item."""
        values = {"job": job_id, "items": orjson.dumps(items).decode()}

        def read(connection: BlockingConnection) -> dict[str, Known]:
            found = defaultdict[str, Known](dict)
            for item, hashed, nth, *row in connection.driver.execute(_OF_ITEMS, values):
                found[item][hashed, nth] = _recorded(row)
            return found

        return await self._database.read_in_one_trip(read)

    async def lately(self, job_id: int, most: int) -> list[LateAsk]:
        """Return what a job asked lately and was answered, the latest last.

        `most`: about how many bytes of requests and answers.
        """

        def read(connection: BlockingConnection) -> list[LateAsk]:
            found, left = list[LateAsk](), most
            with closing(connection.driver.execute(_LATELY, {"job": job_id})) as rows:
                for endpoint, hashed, nth, request, answer, notes in rows:
                    left -= len(request) + len(answer)
                    if left < 0:
                        break
                    answered = Completed(answer, notes=_notes(notes))
                    found.append(LateAsk(endpoint, hashed, nth, request.encode(), answered))
            return found[::-1]

        return await self._database.read_in_one_trip(read)

    async def answered(self, job_id: int, endpoint: str, most: int) -> list[bytes]:
        """Return requests of up to `most` answered asks of an endpoint, by the name under which rollouts ask it."""
        async with self._database.read() as connection:
            values = {"job": job_id, "endpoint": endpoint, "most": most}
            return [request.encode() for request in (await connection.execute(_ANSWERED, values)).scalars()]

    async def settle(
        self,
        run_id: int,
        job_id: int,
        asks: Sequence[tuple[OpenAsk, Settlement]],
        items: Sequence[Settlement],
        close: Sequence[Lease],
    ) -> None:
        """Write outcomes of asks and of items, and close leased chunks. One transaction, replayable."""

        def work(connection: sqlite3.Connection) -> None:
            _settle(run_id, job_id, asks, connection)
            settle_items(items, close, connection)

        await self._database.write_in_one_trip(work, rows=len(asks) + len(items))
        reached("after commit")


def _recorded(row: Sequence[Any]) -> RecordedAsk:
    outcome, answer, attempts, tokens_in, tokens_out, notes, failures = row
    failed = () if failures is None else tuple(map(_failed, orjson.loads(failures)))
    return RecordedAsk(outcome, answer, attempts, tokens_in, tokens_out, _notes(notes), failed)


def _notes(words: str | None) -> frozenset[str]:
    return frozenset((words or "").split())


def _failed(row: Sequence[Any]) -> FailedAsk:
    kind, *rest = row
    return FailedAsk(FailureKind(kind), *rest)


def _settle(
    run_id: int, job_id: int, asks: Sequence[tuple[OpenAsk, Settlement]], connection: sqlite3.Connection
) -> None:
    """Add asks. One that has an outcome keeps it; a process that lost the lease may add an answer, but no failure."""
    failed = {one.item.lease for _, one in asks if not isinstance(one.outcome, Completed)}
    held = {lease for lease in failed if connection.execute(_LEASED, (lease.chunk, lease.token)).fetchone()}
    now = time.time()
    rows = [
        (job_id, *_row(ask, settlement, now))
        for ask, settlement in asks
        if isinstance(settlement.outcome, Completed) or settlement.item.lease in held
    ]
    for at in range(0, len(rows), _ROWS):
        some = rows[at : at + _ROWS]
        connection.execute(_insert(len(some)), tuple(chain.from_iterable(some)))
    if asks:
        connection.executemany(_COUNT, _totals(run_id, asks))


@cache
def _insert(rows: int) -> str:
    columns = f"{_NAME}, {_OUTCOME}"
    values = ", ".join([f"({', '.join('?' * (columns.count(',') + 1))})"] * rows)
    later = ", ".join(f"{column} = excluded.{column}" for column in ["number", "step", *_OUTCOME.split(", ")])
    return (
        f"INSERT INTO ask ({columns}) VALUES {values} ON CONFLICT (job_id, item_id, hash, nth) "
        f"DO UPDATE SET {later} WHERE ask.outcome IS NULL"
    )


def _row(ask: OpenAsk, settlement: Settlement, now: float) -> tuple[object, ...]:
    """Return the row of an ask, whose last failure is in `ask.failed` already."""
    how: tuple[object, ...]
    match settlement.outcome:
        case Completed(output, _, tokens_in, tokens_out, notes):
            how = ("completed", output, tokens_in, tokens_out, words(notes) if notes else None)
        case Discarded(_, _, notes):
            how = ("discarded", None, None, None, words(notes))
        case RetryLater():
            how = (None, None, None, None, None)
        case _:
            assert_never(settlement.outcome)
    failures = _failures(ask.failed) if ask.failed else None
    what = (ask.rollout, ask.hash, ask.nth, ask.number, ask.endpoint, ask.step, ask.request.decode())
    return (*what, *how, ask.attempt, settlement.seconds, now, failures)


def _failures(failed: Sequence[FailedAsk]) -> str:
    rows = [[one.kind, one.status, one.message, one.seconds, one.at, one.available_at] for one in failed]
    return orjson.dumps(rows).decode()


def _totals(run_id: int, asks: Sequence[tuple[OpenAsk, Settlement]]) -> list[tuple[object, ...]]:
    """Return what these asks add to the totals of each endpoint and step."""
    totals = defaultdict[tuple[str, str], list[float]](lambda: [0, 0, 0, 0, 0, 0.0])
    for ask, settlement in asks:
        total, outcome = totals[ask.endpoint or "", ask.step or ""], settlement.outcome
        settled = not isinstance(outcome, RetryLater)
        total[0] += settled
        total[1] += isinstance(outcome, Discarded)
        total[2] += not settled
        if isinstance(outcome, Completed):
            total[3] += outcome.tokens_in or 0
            total[4] += outcome.tokens_out or 0
        total[5] += settlement.seconds
    return [(run_id, *key, *total) for key, total in totals.items()]
