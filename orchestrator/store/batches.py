"""Transitions of batches: created -> in progress -> ended, cancelled on the way. The rest is in each batch's run."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING

import orjson
from anyio import to_thread

from orchestrator.domain.batch import (
    BATCH_OUTPUT,
    SAME_WITHIN,
    Batch,
    BatchProgress,
    BatchStatus,
    BatchUsage,
    live_usage,
    window_seconds,
)
from orchestrator.domain.batch_lines import BatchError
from orchestrator.domain.failpoints import reached
from orchestrator.domain.run import Tokens
from orchestrator.store.chunks import POSITION_BITS
from orchestrator.store.files import Files, add_file
from orchestrator.store.run_rows import RUN_COLUMNS, as_run
from orchestrator.store.sqlite import total

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.domain.batch import NewBatch
    from orchestrator.store.blobs import NewBlob
    from orchestrator.store.connection import AsyncConnection, BlockingConnection, LedgerRow
    from orchestrator.store.database import Database

_PAGE = 200  # settled items read at once: an answer may be large
_COLUMNS = (
    "id",
    "owner",
    "endpoint",
    "input_file_id",
    "input_sha256",
    "completion_window",
    "metadata",
    "output_expires_after",
    "created_at",
    "expires_at",
    "model",
    "run_id",
    "in_progress_at",
    "cancelling_at",
    "finalizing_at",
    "ended_at",
    "ended_as",
    "errors",
    "total",
    "completed",
    "failed",
    "usage",
    "output_file_id",
    "error_file_id",
)
_BATCH_COLUMNS = ", ".join(f"b.{name} AS batch_{name}" for name in _COLUMNS)
_BATCH = f"SELECT {_BATCH_COLUMNS} FROM batch b"
# With its run, which is the one with its key until it ends: another run that takes that one's place inherits the key.
_PROGRESS = f"""
SELECT {_BATCH_COLUMNS}, {RUN_COLUMNS}, iif(b.ended_at IS NULL, (
    SELECT json_array(coalesce(sum(c.completed), 0), coalesce(sum(c.discarded), 0), {total("c.tokens_in")},
                      {total("c.tokens_out")})
    FROM chunk c WHERE c.run_id = r.id), NULL) AS counts
FROM batch b LEFT JOIN run r
    ON r.id = iif(b.ended_at IS NULL, (SELECT k.id FROM run k WHERE k.key = b.id), b.run_id)
LEFT JOIN job j ON j.id = r.job_id
"""
_VISIBLE = "(:owner IS NULL OR b.owner = :owner)"
_ONE = f"{_PROGRESS} WHERE b.id = :id AND {_VISIBLE}"
_LISTED = f"""
{_PROGRESS} WHERE {_VISIBLE} AND (:after IS NULL OR b.number < (SELECT number FROM batch WHERE id = :after))
ORDER BY b.number DESC LIMIT :limit
"""
_REFUSED = f"""
{_PROGRESS} WHERE b.ended_as = 'failed' AND b.run_id IS NULL AND b.ended_at >= :since AND {_VISIBLE}
ORDER BY b.number DESC LIMIT :limit
"""
_NEW = f"{_PROGRESS} WHERE b.ended_at IS NULL AND +b.run_id IS NULL ORDER BY b.number"
# thousands may be queued or executed, and these need nothing
_MAY_END = f"""
{_PROGRESS} WHERE b.ended_at IS NULL AND (b.cancelling_at IS NOT NULL OR b.expires_at <= :now OR (
    b.run_id IS NOT NULL AND coalesce(r.state NOT IN ('ingesting', 'open'), true))) ORDER BY b.number
"""
# a batch that was cancelled or failed is not given again
_SAME = f"""
{_BATCH} WHERE b.created_at BETWEEN :now - {SAME_WITHIN} AND :now AND b.owner = :owner AND b.endpoint = :endpoint
AND b.input_sha256 = :sha256 AND b.completion_window = :window AND b.metadata IS :metadata
AND b.output_expires_after IS :expires AND b.cancelling_at IS NULL AND coalesce(b.ended_as, 'completed') = 'completed'
ORDER BY b.number DESC LIMIT 1
"""
_ADD = """
INSERT INTO batch (id, owner, endpoint, input_file_id, input_sha256, completion_window, metadata, output_expires_after,
                   created_at, expires_at)
VALUES (:id, :owner, :endpoint, :file, :sha256, :window, :metadata, :expires, :now, :expires_at)
"""
_INPUT = """
SELECT f.sha256 FROM file f WHERE f.id = :file AND (:reader IS NULL OR f.owner = :reader)
AND (f.expires_at IS NULL OR f.expires_at > :now)
"""
_BEGIN = """
UPDATE batch SET run_id = :run, in_progress_at = :now, total = :total, model = :model
WHERE id = :id AND run_id IS NULL AND cancelling_at IS NULL AND ended_at IS NULL
"""
_CANCEL = "UPDATE batch SET cancelling_at = :now WHERE id = :id AND cancelling_at IS NULL AND ended_at IS NULL"
_FINALIZE = "UPDATE batch SET finalizing_at = :now WHERE id = :id AND finalizing_at IS NULL AND ended_at IS NULL"
_IS_UNFINISHED = "SELECT 1 FROM batch WHERE id = :id AND ended_at IS NULL"
_END = """
UPDATE batch SET ended_at = :now, ended_as = :status, errors = :errors, completed = :completed, failed = :failed,
    usage = :usage, output_file_id = :output, error_file_id = :error,
    run_id = iif(run_id IS NULL, NULL, coalesce((SELECT r.id FROM run r WHERE r.key = batch.id), run_id))
WHERE id = :id
"""
# a run that asks items of a cancelled batch again is another run of the same job
_BATCH_OF_RUN = """
SELECT b.owner, b.id FROM batch b WHERE b.run_id = :run OR b.id IN (
    SELECT same.key FROM run r JOIN job j ON j.id = r.job_id AND j.name LIKE 'batch%'
    JOIN run same ON same.job_id = r.job_id WHERE r.id = :run) LIMIT 1
"""
_SETTLED = f"""
SELECT m.id & {(1 << POSITION_BITS) - 1}, i.item_id, r.outcome, r.output,
       iif(json_valid(r.output), r.output -> '$.usage', NULL), a.kind, a.status, a.message,
       a.body
FROM member m JOIN item i ON i.key = m.item_key LEFT JOIN result r ON r.item_key = m.item_key
LEFT JOIN attempt a ON a.item_key = m.item_key AND a.number = r.attempts AND r.outcome = 'discarded'
WHERE m.id > :after AND m.id < (:run + 1) << {POSITION_BITS} ORDER BY m.id LIMIT {_PAGE}
"""


@dataclass(frozen=True, slots=True)
class SettledLine:
    """A request of a batch and what became of it. `outcome`: None if it was not settled.

    `output`: the answer as JSON. `usage`: what it says about tokens, as JSON.
    `kind`, `status`, `message`, `body`: of the last attempt of a discarded one.
    """

    position: int
    id: str
    outcome: str | None
    output: str | None
    usage: str | None
    kind: str | None
    status: int | None
    message: str | None
    body: str | None


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """What a batch has made. `output` and `error`: synced contents of its files; None if there is no line for one."""

    completed: int = 0
    failed: int = 0
    usage: BatchUsage | None = None
    errors: Sequence[BatchError] = ()
    output: NewBlob | None = None
    error: NewBlob | None = None


_NOTHING = BatchOutcome()


class Batches:
    """All batches. An `owner` of None means those of everybody."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._files = Files(database)

    async def add(self, new: NewBatch, *, reader: str | None) -> Batch:
        """Create a batch, or return an equal one of a moment ago, which the client's retry means.

        `reader`: whose files the input may be; None for everybody's. There may be no such file.
        """
        now = time.time()
        metadata = (
            None if new.metadata is None else orjson.dumps(dict(new.metadata), option=orjson.OPT_SORT_KEYS).decode()
        )
        values: dict[str, object] = {"owner": new.owner, "endpoint": new.endpoint, "file": new.input_file_id}
        values |= {"window": new.completion_window, "metadata": metadata, "expires": new.output_expires_after}
        values |= {"now": now, "reader": reader, "id": f"batch_{token_hex(16)}"}
        async with self._database.write() as connection:
            values["sha256"] = (await connection.execute(_INPUT, values)).scalar_one_or_none()
            same = (await connection.execute(_SAME, values)).one_or_none()
            if same is not None:
                return _as_batch(same)
            await connection.execute(_ADD, values | {"expires_at": now + window_seconds(new.completion_window)})
            batch = _as_batch((await connection.execute(_ONE, {"id": values["id"], "owner": None})).one())
            reached("before create batch")
        reached("after create batch")
        return batch

    async def find(self, id_: str, owner: str | None) -> BatchProgress | None:
        """A batch with its run and counts as they are now; None if there is none, or it is another owner's."""
        found = await self._database.read_in_one_trip(partial(_progress, _ONE, {"id": id_, "owner": owner}))
        return found[0] if found else None

    async def listed(
        self, owner: str | None, *, after: str | None = None, limit: int
    ) -> tuple[list[BatchProgress], bool]:
        """Batches, the newest first, from behind the batch `after`, and whether there are more."""
        values: dict[str, object] = {"owner": owner, "after": after, "limit": limit + 1}
        found = await self._database.read_in_one_trip(partial(_progress, _LISTED, values))
        return found[:limit], len(found) > limit

    async def refused(self, owner: str | None, *, since: float, limit: int) -> list[BatchProgress]:
        """Batches that failed their validation since then, the newest first."""
        values: dict[str, object] = {"owner": owner, "since": since, "limit": limit}
        return await self._database.read_in_one_trip(partial(_progress, _REFUSED, values))

    async def owner_of_run(self, run_id: int) -> str | None:
        """Whose batch the run is of; None if it is of none."""
        found = await self._batch_of_run(run_id)
        return None if found is None else found[0]

    async def id_of_run(self, run_id: int) -> str | None:
        """The batch that the run is of; None if it is of none."""
        found = await self._batch_of_run(run_id)
        return None if found is None else found[1]

    async def _batch_of_run(self, run_id: int) -> tuple[str, str] | None:
        async with self._database.read() as connection:
            found = (await connection.execute(_BATCH_OF_RUN, {"run": run_id})).one_or_none()
            return None if found is None else (found[0], found[1])

    async def new(self) -> list[BatchProgress]:
        """All batches that have not been validated and queued, the oldest first."""
        return await self._database.read_in_one_trip(partial(_progress, _NEW, {}))

    async def may_end(self, now: float) -> list[BatchProgress]:
        """All unfinished batches that are cancelled or late, or whose run is not at work, the oldest first."""
        return await self._database.read_in_one_trip(partial(_progress, _MAY_END, {"now": now}))

    async def begin(self, batch: Batch, run_id: int, total: int, model: str) -> bool:
        """Record that a validated batch is queued as this run; False if it was cancelled or has ended meanwhile."""
        values = {"id": batch.id, "run": run_id, "total": total, "model": model, "now": time.time()}
        async with self._database.write() as connection:
            begun = (await connection.execute(_BEGIN, values)).rowcount == 1
            reached("before begin batch")
        reached("after begin batch")
        return begun

    async def cancel(self, batch: Batch) -> None:
        """Ask for the end of a batch; do nothing if it has ended, or somebody has asked."""
        async with self._database.write() as connection:
            await connection.execute(_CANCEL, {"id": batch.id, "now": time.time()})

    async def finalize(self, batch: Batch) -> None:
        """Record that its run is done and its files are being written."""
        async with self._database.write() as connection:
            await connection.execute(_FINALIZE, {"id": batch.id, "now": time.time()})

    async def end(self, batch: Batch, status: BatchStatus, made: BatchOutcome = _NOTHING) -> bool:
        """End a batch and keep its files, all in one transaction; False if it has ended already."""
        values: dict[str, object] = {"id": batch.id, "now": time.time(), "status": status.value}
        values |= {
            "completed": made.completed,
            "failed": made.failed,
            "usage": _json(made.usage and asdict(made.usage)),
        }
        values["errors"] = _json([asdict(error) for error in made.errors] or None)
        async with self._database.write() as connection:
            if (await connection.execute(_IS_UNFINISHED, values)).one_or_none() is None:
                return False
            values["output"] = await self._output_file(connection, batch, "output", made.output)
            values["error"] = await self._output_file(connection, batch, "error", made.error)
            await connection.execute(_END, values)
            reached("before end batch")
        reached("after end batch")
        return True

    async def _output_file(
        self, connection: AsyncConnection, batch: Batch, what: str, blob: NewBlob | None
    ) -> str | None:
        if blob is None:
            return None
        await to_thread.run_sync(self._files.blobs.place, blob)
        about = {"owner": batch.owner, "filename": f"{batch.id}_{what}.jsonl", "purpose": BATCH_OUTPUT}
        return (await add_file(connection, about, blob.sha256, blob.size, batch.output_expires_after)).id

    async def lines(self, run_id: int, after: int = -1) -> list[SettledLine]:
        """The next requests of a run behind a position, in input order; empty if there are none."""
        values = {"run": run_id, "after": (run_id << POSITION_BITS) + after}
        async with self._database.read() as connection:
            return [SettledLine(*row) for row in await connection.execute(_SETTLED, values)]


def _progress(statement: str, values: dict[str, object], connection: BlockingConnection) -> list[BatchProgress]:
    return [_as_progress(row) for row in connection.execute(statement, values)]


def _as_progress(row: LedgerRow) -> BatchProgress:
    batch, run = _as_batch(row), None if row.id is None else as_run(row)
    if row.counts is None:
        return BatchProgress(batch, run, batch.completed or 0, batch.failed or 0, batch.usage)
    completed, failed, *tokens = orjson.loads(row.counts)
    return BatchProgress(batch, run, completed, failed, live_usage(Tokens(*tokens)))


def _as_batch(row: LedgerRow) -> Batch:
    found = row.as_dict()
    values = {name: found[f"batch_{name}"] for name in _COLUMNS}
    for name in ("metadata", "errors", "usage"):
        values[name] = None if values[name] is None else orjson.loads(values[name])
    values["errors"] = [BatchError(**error) for error in values["errors"] or ()]
    values["usage"] = None if values["usage"] is None else BatchUsage(**values["usage"])
    values["ended_as"] = None if values["ended_as"] is None else BatchStatus(values["ended_as"])
    return Batch(**values)


def _json(value: object) -> str | None:
    return None if value is None else orjson.dumps(value).decode()
