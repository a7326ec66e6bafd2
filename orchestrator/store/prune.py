"""Retention: old rows are deleted in steps so short that processes waiting for the ledger do not notice.

Every step is one transaction, so deletion can stop at any moment and continue later. Rows to delete are found by
reading, outside the transaction. A transaction deletes so few rows and bytes that it takes milliseconds; if it takes
longer, the next one deletes fewer.

Old runs are deleted in short steps. A run is first marked superseded, so that no process
continues one whose deletion was interrupted. Its chunks go before the members that they count; members go by ranges
of row ids, each with the items that no other run has. The deleting connection does not enforce foreign keys,
because deleting one run would otherwise check every member of all runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import orjson
from anyio import to_thread

from orchestrator.domain.moment import DAY
from orchestrator.run_log import forget_logs
from orchestrator.store.chunks import POSITION_BITS
from orchestrator.store.running_totals import KEEP_COSTS
from orchestrator.store.sqlite import OCTETS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from orchestrator.store.connection import BlockingConnection
    from orchestrator.store.database import Database
    from orchestrator.store.store import Store

FEWEST, MOST = 20, 1000  # rows of one table in one step
BYTES = 8_000_000  # of requests and answers in one step: each page of them has to be looked at
# What an ask counts for besides, so that a step has no more of them than rows of other tables
ASK_BYTES = BYTES // MOST
SLOW, QUICK = 0.025, 0.008  # seconds: a step that took longer is followed by a shorter one, a shorter one by a longer
SLOTS_FOR = 90 * DAY  # schedules' decisions are kept for that long at the least
COSTS_FOR = 400 * DAY  # a year's costs, and what was found best for an endpoint
_EVERY = DAY
_ROOMY = 0.25  # part of the file that may be free before some of it is given back
_SOME_PAGES = 1000
_RETENTION = "retention"


@dataclass(frozen=True, slots=True)
class Pruned:
    """How much was deleted. `others`: readings, slots, processes, awake windows and the like."""

    runs: int = 0
    items: int = 0
    others: int = 0

    def __str__(self) -> str:
        return f"{self.runs:,} runs, {self.items:,} items and {self.others:,} other rows deleted"


# Runs that a process may still take, that another run waits for, or whose answers a batch still needs, stay.
_ENDED = """
SELECT r.id FROM run r WHERE r.finished_at < :moment AND r.holder IS NULL AND r.due_at IS NULL
AND NOT EXISTS (SELECT 1 FROM wait w JOIN run q ON q.id = w.run_id WHERE w.for_run = r.id AND q.finished_at IS NULL)
AND NOT EXISTS (SELECT 1 FROM batch b WHERE b.id = r.key AND b.ended_at IS NULL)
"""
# What a job's next run reuses are the answers of its latest runs; one with a limit holds only a part of them.
_LATEST_OF_JOB = "SELECT k.id FROM run k WHERE k.job_id = r.job_id AND k.state {state} ORDER BY k.id DESC LIMIT 1"
_SPARED = " ".join(
    f"AND r.id IS NOT ({_LATEST_OF_JOB.format(state=state)})"
    for state in ("<> 'superseded'", "= 'finished'", "= 'finished' AND k.spec ->> 'limit' IS NULL")
)
_EVERY_ENDED = f"{_ENDED} ORDER BY r.id"
# A batch that names no job has one of its own, which has no next run. A user may give a run its job's name as its key.
_OWN_JOB = "r.key GLOB 'batch_*' AND r.key = (SELECT j.name FROM job j WHERE j.id = r.job_id)"
_EVERY_SPARE = f"{_ENDED} AND ({_OWN_JOB} OR (true {_SPARED})) ORDER BY r.id"
# From now on no process takes the run, so a run whose deletion was interrupted is never continued.
_CONDEMN = """
UPDATE run SET state = 'superseded' WHERE id = :run AND finished_at < :moment AND holder IS NULL AND due_at IS NULL
"""
_MEMBERS = f"""
SELECT m.id, coalesce({OCTETS}(i.request), 0) + coalesce({OCTETS}(s.output), 0) + coalesce({OCTETS}(s.answer), 0)
    + coalesce((SELECT sum({ASK_BYTES} + {OCTETS}(a.request) + coalesce({OCTETS}(a.answer), 0)) FROM ask a
                WHERE a.job_id = i.job_id AND a.item_id = i.item_id), 0)
FROM member m JOIN item i ON i.key = m.item_key LEFT JOIN result s ON s.item_key = m.item_key
WHERE m.id >= :run << {POSITION_BITS} AND m.id < (:run + 1) << {POSITION_BITS} ORDER BY m.id LIMIT :rows
"""
_KEYS = "SELECT item_key FROM member WHERE id >= :first AND id <= :last"
_DROP_MEMBERS = "DELETE FROM member WHERE id >= :first AND id <= :last"
_ORPHANS = """
SELECT v.value FROM json_each(:keys) v WHERE NOT EXISTS (SELECT 1 FROM member m WHERE m.item_key = v.value)
"""
# What a job delivered before it became incremental is recorded only by its runs; keep a record of its own.
_REMEMBERED = """
SELECT r.id FROM run r WHERE r.id = :run AND r.delivered_at IS NOT NULL
AND (SELECT k.spec ->> 'incremental' FROM run k WHERE k.job_id = r.job_id ORDER BY k.id DESC LIMIT 1)
"""
_REMEMBER = """
INSERT INTO delivered_item (job_id, item_id, hash)
SELECT i.job_id, i.item_id, i.hash FROM member m JOIN item i ON i.key = m.item_key
WHERE m.id >= :first AND m.id <= :last ON CONFLICT DO NOTHING
"""
# Asks belong to an id: they go with the last version of the item.
_DROP_ASKS = """
DELETE FROM ask WHERE key IN (
    SELECT a.key FROM json_each(:keys) v JOIN item i ON i.key = v.value
    JOIN ask a ON a.job_id = i.job_id AND a.item_id = i.item_id
    WHERE NOT EXISTS (SELECT 1 FROM item o WHERE o.job_id = i.job_id AND o.item_id = i.item_id
                      AND o.key NOT IN (SELECT value FROM json_each(:keys))))
"""
_DROP_ITEMS = (
    _DROP_ASKS,
    *(
        f"DELETE FROM {table} WHERE {column} IN (SELECT value FROM json_each(:keys))"
        for table, column in (("result", "item_key"), ("attempt", "item_key"), ("item", "key"))
    ),
)
_DROP_CHUNKS = "DELETE FROM chunk WHERE id IN (SELECT id FROM chunk WHERE run_id = :run LIMIT :rows)"
_DROP_READINGS = """
DELETE FROM reading WHERE run_id = :run AND at IN
(SELECT at FROM reading WHERE run_id = :run AND at < :moment ORDER BY at LIMIT :rows)
"""
_DROP_RUN = (
    f"""
    DELETE FROM job WHERE id = (SELECT r.job_id FROM run r WHERE r.id = :run AND {_OWN_JOB})
    AND NOT EXISTS (SELECT 1 FROM run o WHERE o.job_id = job.id AND o.id <> :run)
    AND NOT EXISTS (SELECT 1 FROM item i WHERE i.job_id = job.id)
    """,
    *(
        f"DELETE FROM {table} WHERE {column} = :run"
        for table, column in (
            ("uses", "run_id"),
            ("wait", "run_id"),
            ("wait", "for_run"),
            ("ask_total", "run_id"),
            ("run", "id"),
        )
    ),
)
_NEXT_READ = "SELECT min(run_id) FROM reading WHERE run_id > :after"
_SCHEDULES = "SELECT id, catch_up_window FROM schedule"
_DROP_SLOTS = """
DELETE FROM slot WHERE schedule_id = :schedule AND slot IN
(SELECT slot FROM slot WHERE schedule_id = :schedule AND slot < :moment ORDER BY slot LIMIT :rows)
"""
_WINDOWS = """
SELECT id FROM awake_window WHERE opened_at < :moment AND state = 'closed' AND closed_at < :moment
ORDER BY opened_at LIMIT :rows
"""
_DROP_WINDOWS = tuple(
    f"DELETE FROM {table} WHERE {column} IN (SELECT value FROM json_each(:keys))"
    for table, column in (("hold", "window_id"), ("awake_window", "id"))
)
_BATCHES = "SELECT number FROM batch WHERE ended_at < :moment ORDER BY number LIMIT :rows"
_DROP_BATCHES = (
    """
    DELETE FROM file WHERE expires_at IS NULL AND id IN (
        SELECT output_file_id FROM batch WHERE number IN (SELECT value FROM json_each(:keys))
        UNION SELECT error_file_id FROM batch WHERE number IN (SELECT value FROM json_each(:keys)))
    """,
    "DELETE FROM batch WHERE number IN (SELECT value FROM json_each(:keys))",
)
_DROP_UPLOADS = """
DELETE FROM upload WHERE number IN (
    SELECT number FROM upload WHERE state <> 'pending' AND expires_at < :moment LIMIT :rows)
"""
# Nothing is written any more in the name of a process that was silent for so long, so nothing can come to refer to it.
_SILENT = """
SELECT p.id FROM process p WHERE p.state <> 'live' AND p.lease_until < :moment AND p.started_at < :moment
AND p.id NOT IN (
    SELECT holder FROM run WHERE holder IS NOT NULL UNION SELECT holder FROM chunk WHERE state = 'leased'
    UNION SELECT process_id FROM hold UNION SELECT process_id FROM reading)
"""
_DROP_PROCESSES = ("DELETE FROM process WHERE id IN (SELECT value FROM json_each(:keys))",)
_DROP_TUNING = "DELETE FROM tuning WHERE shape IN (SELECT shape FROM tuning WHERE at < :moment LIMIT :rows)"
_DROP_CHARGES = "DELETE FROM charge WHERE id IN (SELECT id FROM charge WHERE at < :moment LIMIT :rows)"
_DROP_BROKEN = "DELETE FROM broken_file WHERE path IN (SELECT path FROM broken_file WHERE at < :moment LIMIT :rows)"
_DONE_BY = "SELECT at FROM upkeep WHERE what = :what"
# a mark from the future is one of a clock that has gone back since
_MARK = """
INSERT INTO upkeep (what, at) VALUES (:what, :now)
ON CONFLICT (what) DO UPDATE SET at = :now WHERE upkeep.at <= :now - :every OR upkeep.at > :now
"""
_UNMARK = "DELETE FROM upkeep WHERE what = :what"


async def retain(store: Store, keep_seconds: float, now: float) -> Pruned:
    """Delete what is older than that and costs nothing to lose.

    Kept whatever their age: a job's latest run, its latest finished one and its latest finished one without a limit, so
    that its next run reuses their answers; runs that have not ended, are queued or waited for; items that a kept run or
    an incremental job has; costs for 400 days. The output files of a batch go with it if nobody said how long they
    are kept.
    """
    pruning = _Pruning(store.database)
    moment = now - keep_seconds
    runs, items = await pruning.runs(_EVERY_SPARE, moment)
    others = await pruning.readings(moment)
    others += await pruning.slots(now, keep_seconds)
    others += await pruning.listed(_WINDOWS, _DROP_WINDOWS, now - max(keep_seconds, COSTS_FOR), first=KEEP_COSTS)
    others += await pruning.plain(_DROP_TUNING, now - max(keep_seconds, COSTS_FOR))
    others += await pruning.plain(_DROP_CHARGES, now - max(keep_seconds, COSTS_FOR))
    others += await pruning.plain(_DROP_BROKEN, moment)
    others += await pruning.listed(_BATCHES, _DROP_BATCHES, moment)
    others += await pruning.plain(_DROP_UPLOADS, moment)
    await store.files.drop_unused(await to_thread.run_sync(store.files.blobs.contents))
    others += await pruning.listed(_SILENT, _DROP_PROCESSES, moment)
    await pruning.give_space_back(_ROOMY)
    return Pruned(runs, items, others)


async def retain_daily(store: Store, keep_seconds: float | None, now: float, busy_timeout: float) -> Pruned | None:
    """Call `retain` unless it ran today or is off (None). Stop after `busy_timeout` seconds; a later call continues."""
    if keep_seconds is None:
        return None
    mark: dict[str, object] = {"what": _RETENTION, "now": now, "every": _EVERY}
    async with store.database.read() as connection:
        at = (await connection.execute(_DONE_BY, mark)).scalar_one_or_none()
    if at is not None and now - _EVERY < at <= now:
        return None
    async with store.database.write() as connection:
        if (await connection.execute(_MARK, mark)).rowcount == 0:
            return None  # another process was quicker
    with anyio.move_on_after(busy_timeout):
        return await retain(store, keep_seconds, now)
    async with store.database.write() as connection:
        await connection.execute(_UNMARK, mark)
    return None


async def prune(store: Store, moment: float) -> tuple[int, int]:
    """Delete every run that ended before `moment`, and items that no other run has; return how many of each.

    Freed pages are returned to the file system.
    """
    pruning = _Pruning(store.database)
    runs, items = await pruning.runs(_EVERY_ENDED, moment)
    await pruning.give_space_back(0.0)
    return runs, items


class _Pruning:
    """Steps of deletion. How many rows a step deletes depends on how long the last one took."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows = FEWEST

    async def runs(self, which: str, moment: float) -> tuple[int, int]:
        """Delete these runs, and what only they have; gives how many runs and items."""
        items = runs = 0
        for run_id in await self._found(which, {"moment": moment}):
            values = {"run": run_id, "moment": moment}
            if not await self._step(partial(_changed, _CONDEMN, values)):
                continue  # another process has taken it
            while await self._step(partial(_changed, _DROP_CHUNKS, values)):
                pass  # before the members that they count
            remember = bool(await self._found(_REMEMBERED, values))
            while bounds := await self._members(run_id):
                items += await self._step(partial(_drop_members, bounds, remember=remember))
            while await self._step(partial(_drop_rest, {"run": run_id, "moment": math.inf})):
                pass
            await to_thread.run_sync(forget_logs, self._database.real_path, run_id)
            runs += 1
        return runs, items

    async def readings(self, moment: float) -> int:
        """Delete old readings of runs that stay."""
        deleted, after = 0, 0
        while (await self._found(_NEXT_READ, {"after": after})) != [None]:
            (after,) = await self._found(_NEXT_READ, {"after": after})
            deleted += await self.plain(_DROP_READINGS, moment, run=after)
        return deleted

    async def slots(self, now: float, keep_seconds: float) -> int:
        """Delete decisions on slots so old that no schedule can fire them again."""
        async with self._database.read() as connection:
            schedules = (await connection.execute(_SCHEDULES)).all()
        return sum(
            [
                await self.plain(_DROP_SLOTS, now - max(keep_seconds, SLOTS_FOR, window), schedule=number)
                for number, window in schedules
            ]
        )

    async def plain(self, statement: str, moment: float, **which: int) -> int:
        """Delete what one statement selects, `:rows` at a time."""
        deleted = 0
        while step := await self._step(partial(_changed, statement, {"moment": moment, **which})):
            deleted += step
        return deleted

    async def listed(self, which: str, drop: Sequence[str], moment: float, *, first: Sequence[str] = ()) -> int:
        """Delete rows whose ids are read first, because finding them takes longer than deleting them.

        `first`: statements in the same transactions, before these rows are gone.
        """
        deleted = 0
        while keys := await self._found(which, {"moment": moment, "rows": MOST}):
            while keys:
                some, keys = keys[: self._rows], keys[self._rows :]
                deleted += await self._step(partial(_drop_all, drop, {"keys": _json(some)}, first=first))
        return deleted

    async def give_space_back(self, roomy: float) -> None:
        """Return freed pages to the file system until no more than that part of the file is free."""
        while True:
            async with self._database.read() as connection:
                free, pages = [
                    (await connection.execute(f"PRAGMA {name}")).scalar_one()
                    for name in ("freelist_count", "page_count")
                ]
            if not free or (roomy and free < max(pages * roomy, _SOME_PAGES)):
                return
            if not await self._step(_vacuum):
                return

    async def _members(self, run_id: int) -> Mapping[str, int] | None:
        """The first and last id of the next members to delete: few rows, and few bytes."""
        async with self._database.read() as connection:
            members = (await connection.execute(_MEMBERS, {"run": run_id, "rows": self._rows})).all()
        if not members:
            return None
        last, held = members[0][0], 0
        for number, octets in members:
            held += octets
            if held > BYTES:
                break
            last = number
        return {"first": members[0][0], "last": last}

    async def _found(self, statement: str, values: Mapping[str, object]) -> list[Any]:
        async with self._database.read() as connection:
            return list((await connection.execute(statement, values)).scalars())

    async def _step(self, work: Callable[[int, BlockingConnection], int]) -> int:
        """Run one transaction, then rest for as long as it took, so that others can write."""
        rows = self._rows
        changed, seconds = await self._database.tidy(partial(work, rows))
        if seconds > SLOW:
            self._rows = max(FEWEST, rows // 2)
        elif seconds < QUICK:
            self._rows = min(MOST, rows * 2)
        await anyio.sleep(seconds)
        return changed


def _changed(statement: str, values: Mapping[str, object], rows: int, connection: BlockingConnection) -> int:
    return connection.execute(statement, {**values, "rows": rows}).rowcount


def _drop_all(
    statements: Sequence[str],
    values: Mapping[str, object],
    _rows: int,
    connection: BlockingConnection,
    *,
    first: Sequence[str] = (),
) -> int:
    for statement in first:
        connection.execute(statement, values)
    return sum(connection.execute(statement, values).rowcount for statement in statements)


def _drop_rest(values: Mapping[str, object], rows: int, connection: BlockingConnection) -> int:
    """Delete a run's readings and, when it has no more, the run; return whether there may be more."""
    if _changed(_DROP_READINGS, values, rows, connection) == rows:
        return 1
    _drop_all(_DROP_RUN, values, rows, connection)
    return 0


def _drop_members(bounds: Mapping[str, int], _rows: int, connection: BlockingConnection, *, remember: bool) -> int:
    """Delete these members and the items that no other run has; return how many items."""
    if remember:
        connection.execute(_REMEMBER, bounds)
    keys = list(connection.execute(_KEYS, bounds).scalars())
    connection.execute(_DROP_MEMBERS, bounds)
    orphans = list(connection.execute(_ORPHANS, {"keys": _json(keys)}).scalars())
    for statement in _DROP_ITEMS:
        connection.execute(statement, {"keys": _json(orphans)})
    return len(orphans)


def _vacuum(pages: int, connection: BlockingConnection) -> int:
    """Return pages to the file system. Each fetched row frees one, so all must be fetched."""
    return len(connection.execute(f"PRAGMA incremental_vacuum({pages})").all())


def _json(keys: Sequence[int]) -> str:
    return orjson.dumps(keys).decode()
