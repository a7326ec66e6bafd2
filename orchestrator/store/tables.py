"""The tables. CHECK constraints refuse nonsense; ARCHITECTURE.md draws how they hang together.

Moments are seconds since 1970 UTC. A `member` row says that an item stands at a position of a run; its id is
`run << 32 | position`, so that a run's items in input order are one range of row ids and need no index of their own.
"""

from __future__ import annotations

from sqlalchemy import (
    REAL,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from orchestrator.store.chunks import POSITION_BITS

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
# One row per process start. Ids are never reused, so a restarted process cannot be taken for its predecessor.
process = Table(
    "process",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("host", Text, nullable=False),  # machine, boot and pid namespace: within it, pids can be looked at
    Column("pid", Integer, nullable=False),
    Column("pid_started", REAL, nullable=False),
    Column("started_at", REAL, nullable=False),
    Column("lease_until", REAL, nullable=False),
    Column("state", Text, nullable=False),
    Column("serves", Integer, nullable=False, server_default=text("0")),  # 1: takes runs out of the queue
    CheckConstraint("state IN ('live', 'ended', 'dead')", name="state"),
    Index(None, "lease_until", sqlite_where=text("state = 'live'")),
    sqlite_autoincrement=True,
    sqlite_strict=True,
)

job = Table(
    "job",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("parse", Text),  # fingerprint of the `parse` that made the outputs in `result`
    sqlite_strict=True,
)

# One execution of a job over one snapshot of its source.
run = Table(
    "run",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("job_id", Integer, ForeignKey("job.id"), nullable=False),
    Column("state", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),  # of everything in the job that shapes the outcome
    Column("spec", Text, nullable=False),  # JSON: job file, overrides, keep, output, identity; never a secret
    Column("input_sha256", Text),
    Column("total", Integer, nullable=False, server_default=text("0")),
    Column("plan", Text),  # JSON: new, edited, reused, retry, discarded at ingest
    Column("holder", Integer, ForeignKey("process.id")),
    Column("rate", REAL),  # items settled per second lately, written by the holder
    Column("created_at", REAL, nullable=False),
    Column("started_at", REAL),
    Column("finished_at", REAL),
    Column("error", Text),
    Column("held", Integer, nullable=False, server_default=text("0")),  # 1: a person wants it to stop asking for now
    Column("concurrency", Integer),  # requests in flight, if a person wants another number than the policy's
    Column("due_at", REAL),  # it is queued, and may be executed from then on
    Column("priority", Integer, nullable=False, server_default=text("0")),
    Column("deadline", REAL),  # when its answers are wanted
    Column("key", Text),  # submissions with the same key are one run
    Column("key_hash", Text),  # of what was submitted with it
    Column("tries", Integer, nullable=False, server_default=text("0")),  # claims without progress since
    Column("settled_at_claim", Integer, nullable=False, server_default=text("0")),
    Column("why", Text),  # why it makes no progress now: it was requeued, or waits
    Column("notification", Text),  # JSON: whether its hooks are still to be called, and how each call went
    Column("left_at", REAL),  # when a process last stopped working on it, whatever its state
    Column("delivered_at", REAL),  # when everything that it settled was delivered
    Column("made_as", Text),  # hash of what shaped its items besides the texts of its source, if that is known
    CheckConstraint(
        "state IN ('ingesting', 'open', 'finished', 'failed', 'stopped', 'cancelled', 'superseded')", name="state"
    ),
    CheckConstraint("(state IN ('finished', 'cancelled', 'superseded')) = (finished_at IS NOT NULL)", name="finished"),
    Index(None, "job_id", "id"),
    Index(None, "holder", sqlite_where=text("holder IS NOT NULL")),
    Index("ix_run_queued", "due_at", sqlite_where=text("due_at IS NOT NULL")),
    Index("ix_run_finished", "finished_at", sqlite_where=text("finished_at IS NOT NULL")),
    Index("ux_run_key", "key", unique=True, sqlite_where=text("key IS NOT NULL")),
    sqlite_autoincrement=True,
    sqlite_strict=True,
)

# Which endpoints a queued run will use: one run in the queue asks an endpoint at a time.
uses = Table(
    "uses",
    METADATA,
    Column("run_id", Integer, ForeignKey("run.id"), nullable=False),
    Column("endpoint", Text, nullable=False),
    PrimaryKeyConstraint("run_id", "endpoint"),
    Index("ix_uses_endpoint", "endpoint"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# A queued run waits for another one: for its success, or for its end, however it ends.
wait = Table(
    "wait",
    METADATA,
    Column("run_id", Integer, ForeignKey("run.id"), nullable=False),
    Column("for_run", Integer, ForeignKey("run.id"), nullable=False),
    Column("any_end", Integer, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("run_id", "for_run"),
    Index("ix_wait_for_run", "for_run"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# Measurements of a run every few seconds: counters since this process began it, and values at that moment.
reading = Table(
    "reading",
    METADATA,
    Column("run_id", Integer, ForeignKey("run.id"), nullable=False),
    Column("at", REAL, nullable=False),
    Column("process_id", Integer, ForeignKey("process.id"), nullable=False),
    Column("completed", Integer, nullable=False),
    Column("discarded", Integer, nullable=False),
    Column("requests", Integer, nullable=False),
    Column("tokens_in", Integer),
    Column("tokens_out", Integer),
    Column("in_flight", Integer, nullable=False),
    Column("latency", REAL),  # seconds, the median of the requests that ended since the last reading
    Column("latency_counts", Text),  # JSON: answered requests by how long they took; see `LatencyHistogram`
    Column("commits", Integer),  # of outcomes
    Column("commit_seconds", REAL),
    Column("lost", Text),  # JSON: requests without an answer, by cause
    Column("statuses", Text),  # JSON: requests by HTTP status, "none" if they failed without one
    PrimaryKeyConstraint("run_id", "at"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# Totals over all runs that never go down, even when runs are pruned: what processes add whenever they store a reading,
# and what pruned awake windows cost. See running_totals.py.
running_total = Table(
    "running_total",
    METADATA,
    Column("name", Text, nullable=False),
    Column("label", Text, nullable=False),  # a cause, an endpoint, a bound; "" where the name says it all
    Column("value", REAL, nullable=False),
    PrimaryKeyConstraint("name", "label"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# When a job is to be run. `next_slot` moves by compare-and-set, in the transaction that submits the run.
schedule = Table(
    "schedule",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("job", Text, nullable=False, unique=True),
    Column("jobfile", Text, nullable=False),
    Column("about", Text, nullable=False),  # JSON: what a process needs to execute its runs; never a secret
    Column("endpoints", Text, nullable=False),  # JSON: names of all that its runs may use
    Column("priority", Integer, nullable=False, server_default=text("0")),
    Column("deadline", Text),  # when its answers are wanted, as a policy says it; a run counts it from its slot
    # JSON: names of jobs whose latest run its runs wait for, each with whether any end of that one will do
    Column("after", Text, nullable=False, server_default=text("'[]'")),
    Column("source", Text, nullable=False),  # 'file': the job file says it; 'command': `schedule add` did
    Column("cron", Text, nullable=False),
    Column("tz", Text, nullable=False),
    Column("overlap", Text, nullable=False),
    Column("catch_up", Text, nullable=False),
    Column("catch_up_window", REAL, nullable=False),
    Column("jitter", REAL, nullable=False),
    Column("paused", Integer, nullable=False, server_default=text("0")),
    Column("next_slot", REAL),  # None: it never fires again
    Column("last_slot", REAL),
    Column("missed", Integer, nullable=False, server_default=text("0")),
    Column("gone", Integer, nullable=False, server_default=text("0")),  # 1: no job file says it any more
    Column("revision", Integer, nullable=False, server_default=text("0")),  # raised by whoever changes what it says
    CheckConstraint("source IN ('file', 'command')", name="source"),
    CheckConstraint("overlap IN ('skip', 'buffer_one', 'allow', 'cancel_other')", name="overlap"),
    CheckConstraint("catch_up IN ('latest', 'all', 'none')", name="catch_up"),
    Index("ix_schedule_next", "next_slot", sqlite_where=text("paused = 0 AND gone = 0")),
    sqlite_strict=True,
)

# What became of each slot: exactly one row for each.
slot = Table(
    "slot",
    METADATA,
    Column("schedule_id", Integer, ForeignKey("schedule.id"), nullable=False),
    Column("slot", REAL, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("run_id", Integer),  # no foreign key: the decision outlives a pruned run
    Column("at", REAL, nullable=False),
    PrimaryKeyConstraint("schedule_id", "slot"),
    CheckConstraint("outcome IN ('fired', 'skipped', 'missed')", name="outcome"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# A job file that could not be loaded when it was last looked at.
broken_file = Table(
    "broken_file",
    METADATA,
    Column("path", Text, primary_key=True),
    Column("error", Text, nullable=False),
    Column("at", REAL, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# One version of one input row of a job: the same id with another request is another item.
item = Table(
    "item",
    METADATA,
    Column("key", Integer, primary_key=True),
    Column("job_id", Integer, ForeignKey("job.id"), nullable=False),
    Column("item_id", Text, nullable=False),
    Column("hash", Text, nullable=False),  # of everything that shapes the answer
    Column("request", Text),  # JSON, keys in the order given; NULL where the row could not be read
    Column("forgiven", Integer, nullable=False, server_default=text("0")),  # attempts pardoned by `retry`
    UniqueConstraint("job_id", "item_id", "hash"),
    sqlite_strict=True,
)

# Items that were delivered by a run of an incremental job: its later runs leave them out, also when that run is pruned.
delivered_item = Table(
    "delivered_item",
    METADATA,
    Column("job_id", Integer, ForeignKey("job.id"), nullable=False),
    Column("item_id", Text, nullable=False),
    Column("hash", Text, nullable=False),
    PrimaryKeyConstraint("job_id", "item_id", "hash"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

member = Table(
    "member",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("run_id", Integer, ForeignKey("run.id"), nullable=False),
    Column("item_key", Integer, ForeignKey("item.key"), nullable=False),
    Column("kept", Text),  # JSON object of the kept columns
    Column("same_as", Integer),  # item_key of the run's first member with the same request, where that is another one
    UniqueConstraint("item_key", "run_id"),
    CheckConstraint(f"id >> {POSITION_BITS} = run_id", name="position"),
    sqlite_strict=True,
)

# A range of a run's positions [lo, hi): what is leased. The counters always agree with `result`; see chunks.py.
chunk = Table(
    "chunk",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("run_id", Integer, ForeignKey("run.id"), nullable=False),
    Column("lo", Integer, nullable=False),
    Column("hi", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("holder", Integer, ForeignKey("process.id")),
    Column("token", Integer, nullable=False, server_default=text("0")),
    Column("strikes", Integer, nullable=False, server_default=text("0")),  # leases lost without any progress
    Column("completed", Integer, nullable=False, server_default=text("0")),
    Column("discarded", Integer, nullable=False, server_default=text("0")),
    Column("tokens_in", Integer),
    Column("tokens_out", Integer),
    Column("texts", LargeBinary),  # hash of the texts of its rows, if these alone made its members and their items
    UniqueConstraint("run_id", "lo"),
    CheckConstraint("state IN ('available', 'leased', 'done')", name="state"),
    CheckConstraint("(state = 'leased') = (holder IS NOT NULL)", name="holder"),
    CheckConstraint("lo < hi AND completed >= 0 AND discarded >= 0 AND completed + discarded <= hi - lo", name="count"),
    CheckConstraint("state <> 'done' OR completed + discarded = hi - lo", name="done"),
    Index("ix_chunk_available", "run_id", "id", sqlite_where=text("state = 'available'")),
    Index("ix_chunk_leased", "holder", sqlite_where=text("state = 'leased'")),
    sqlite_autoincrement=True,  # a halved chunk's number must not come back: its old leases would look valid
    sqlite_strict=True,
)

# How an item was settled. The first writer wins; a row is deleted only together with its item.
result = Table(
    "result",
    METADATA,
    Column("item_key", Integer, ForeignKey("item.key"), primary_key=True),
    Column("outcome", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("seconds", REAL, nullable=False),
    Column("finished_at", REAL, nullable=False),
    Column("output", Text),  # JSON, as delivered
    Column("answer", Text),  # JSON, as the model gave it, where `parse` made the output (or refused to)
    Column("tokens_in", Integer),
    Column("tokens_out", Integer),
    Column("notes", Text),  # what makes its answer less than it seems, words with spaces between
    CheckConstraint("outcome IN ('completed', 'discarded')", name="outcome"),
    CheckConstraint("(outcome = 'completed') = (output IS NOT NULL)", name="output"),
    Index("ix_result_discarded", "item_key", sqlite_where=text("outcome = 'discarded'")),
    Index("ix_result_noted", "item_key", sqlite_where=text("notes IS NOT NULL")),
    sqlite_strict=True,
)

# The best values found for an endpoint, by what shapes its answers: where the next run starts.
tuning = Table(
    "tuning",
    METADATA,
    Column("shape", Text, primary_key=True),
    Column("concurrency", Integer),
    Column("at", REAL, nullable=False),
    Column("batch_size", Integer),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# Every attempt that failed. The number is the fencing token of the attempt; 0 means that it was never asked.
attempt = Table(
    "attempt",
    METADATA,
    Column("item_key", Integer, ForeignKey("item.key"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("status", Integer),
    Column("message", Text, nullable=False),
    Column("seconds", REAL, nullable=False),
    Column("at", REAL, nullable=False),
    Column("available_at", REAL),
    Column("body", Text),  # what the server answered to a request of a batch, capped, secrets masked
    PrimaryKeyConstraint("item_key", "number"),
    CheckConstraint("outcome IN ('retry_later', 'discarded')", name="outcome"),
    CheckConstraint("(outcome = 'retry_later') = (available_at IS NOT NULL)", name="later"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# One request of a rollout to an endpoint, or one call of a function of the user. It belongs to an item's id, not to one
# version of the item, so that an edited rollout finds what it has asked before.
ask = Table(
    "ask",
    METADATA,
    Column("key", Integer, primary_key=True),
    Column("job_id", Integer, ForeignKey("job.id"), nullable=False),
    Column("item_id", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False),  # of the route's identity and the request, or of a call
    Column("nth", Integer, nullable=False),  # which one of the item's equal asks: 0, 1 ...
    Column("number", Integer, nullable=False),  # its place in the rollout, from 1
    Column("endpoint", Text),  # the route's name; NULL: a call of a function
    Column("step", Text),
    Column("request", Text, nullable=False),  # JSON; of a call: its name and arguments
    Column("outcome", Text),  # NULL: not settled yet
    Column("answer", Text),  # JSON
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("seconds", REAL),
    Column("at", REAL),  # when it was settled
    Column("tokens_in", Integer),
    Column("tokens_out", Integer),
    Column("notes", Text),  # as in `result`
    Column("failures", Text),  # JSON list of failed attempts: kind, status, message, seconds, at, available_at
    UniqueConstraint("job_id", "item_id", "hash", "nth"),
    CheckConstraint("outcome IN ('completed', 'discarded')", name="outcome"),
    CheckConstraint("outcome IS NOT 'completed' OR answer IS NOT NULL", name="answer"),
    Index("ix_ask_failed", "job_id", sqlite_where=text("failures IS NOT NULL")),
    CheckConstraint("length(hash) = 16 AND nth >= 0 AND number >= 1 AND attempts >= 0", name="count"),
    sqlite_strict=True,
)

# What a run asked, by endpoint and step; '' stands for a call of a function, and for no step.
ask_total = Table(
    "ask_total",
    METADATA,
    Column("run_id", Integer, ForeignKey("run.id"), nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("step", Text, nullable=False),
    Column("asks", Integer, nullable=False),
    Column("discarded", Integer, nullable=False),
    Column("retried", Integer, nullable=False),
    Column("tokens_in", Integer),
    Column("tokens_out", Integer),
    Column("seconds", REAL, nullable=False),  # of requests
    PrimaryKeyConstraint("run_id", "endpoint", "step"),
    CheckConstraint("asks >= 0 AND discarded >= 0 AND retried >= 0", name="count"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# What a run was charged in a day (UTC) for answers that are paid by the request or the token. `at`: for the latest one.
charge = Table(
    "charge",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("run_id", Integer, nullable=False),  # 0: a load test; no foreign key, since costs outlive a pruned run
    Column("job", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("day", REAL, nullable=False),
    Column("at", REAL, nullable=False),
    Column("requests", Integer, nullable=False),
    Column("tokens_in", Integer, nullable=False),
    Column("tokens_out", Integer, nullable=False),
    Column("dollars", REAL, nullable=False),
    UniqueConstraint("run_id", "endpoint", "day"),
    Index(None, "at"),
    sqlite_strict=True,
)

# When recurring maintenance was last done.
upkeep = Table(
    "upkeep",
    METADATA,
    Column("what", Text, primary_key=True),
    Column("at", REAL, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# The span in which an endpoint that bills is in use, from the intent to resume it until it was seen asleep again.
awake_window = Table(
    "awake_window",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("endpoint", Text, nullable=False),
    Column("pause_with", Text, nullable=False),  # JSON: what any process needs to pause it; never a secret
    Column("state", Text, nullable=False),
    Column("owed", Integer, nullable=False, server_default=text("0")),  # 1: we resumed it, so we have to pause it
    Column("to_zero", Integer, nullable=False, server_default=text("0")),  # 1: by scaling it to zero
    Column("price_per_hour", REAL),
    Column("opened_at", REAL, nullable=False),
    Column("resumed_at", REAL),
    Column("asked_at", REAL),  # when it was asked to resume the last time
    Column("closed_at", REAL),
    Column("closed_by", Text),
    Column("looked_at", REAL, nullable=False, server_default=text("0")),
    Column("seen", Text),  # the state that the last look showed
    Column("said", Text),  # and the provider's own words: at the end, the proof
    Column("billed_seconds", REAL),  # what the provider bills for all servers together, if it says so
    Column("billed_dollars", REAL),
    CheckConstraint("state IN ('open', 'closing', 'closed')", name="state"),
    CheckConstraint("(state = 'closed') = (closed_at IS NOT NULL)", name="closed"),
    CheckConstraint("owed IN (0, 1) AND to_zero IN (0, 1)", name="flags"),
    Index("ux_awake_window_endpoint", "endpoint", unique=True, sqlite_where=text("state <> 'closed'")),
    Index(None, "opened_at"),
    sqlite_autoincrement=True,
    sqlite_strict=True,
)

# Who uses a window. The seconds are those of this holder; they overlap with other holders'.
hold = Table(
    "hold",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("window_id", Integer, ForeignKey("awake_window.id"), nullable=False),
    Column("process_id", Integer, ForeignKey("process.id"), nullable=False),
    Column("run_id", Integer),  # no foreign key: what it cost outlives a pruned run
    Column("job", Text),
    Column("since", REAL, nullable=False),
    Column("until", REAL),
    Column("cold_start", REAL, nullable=False, server_default=text("0")),
    Column("work", REAL, nullable=False, server_default=text("0")),
    Column("idle", REAL, nullable=False, server_default=text("0")),
    Column("pausing", REAL, nullable=False, server_default=text("0")),
    Column("kept_by", Text),  # who keeps it awake without a living process: a person, or a job that never pauses
    Column("expires_at", REAL),  # when such a hold ends by itself; NULL: only when the endpoint is paused
    Index("ix_hold_window", "window_id"),
    Index("ix_hold_holding", "process_id", sqlite_where=text("until IS NULL")),
    sqlite_strict=True,
)

# A file of the HTTP server. Its content is a blob beside the ledger, named by its hash; several rows may share one.
file = Table(
    "file",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("filename", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("created_at", REAL, nullable=False),
    Column("expires_at", REAL),  # NULL: never
    CheckConstraint("bytes >= 0", name="bytes"),
    Index(None, "sha256"),
    Index("ix_file_expires", "expires_at", sqlite_where=text("expires_at IS NOT NULL")),
    sqlite_autoincrement=True,
    sqlite_strict=True,
)

# A file that arrives in parts.
upload = Table(
    "upload",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("bytes", Integer, nullable=False),  # of all parts together, as announced
    Column("filename", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("mime_type", Text, nullable=False),
    Column("expires_after", REAL),  # seconds for which the file is kept
    Column("created_at", REAL, nullable=False),
    Column("expires_at", REAL, nullable=False),
    Column("file_id", Text),  # no foreign key: the file may be deleted
    CheckConstraint("state IN ('pending', 'completed', 'cancelled', 'expired')", name="state"),
    CheckConstraint("(state = 'completed') = (file_id IS NOT NULL)", name="file"),
    Index("ix_upload_pending", "expires_at", sqlite_where=text("state = 'pending'")),
    sqlite_autoincrement=True,
    sqlite_strict=True,
)

# A part of a pending upload: a blob too.
upload_part = Table(
    "upload_part",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("upload", Integer, ForeignKey("upload.number"), nullable=False),
    Column("sha256", Text, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("created_at", REAL, nullable=False),
    Index(None, "upload"),
    Index(None, "sha256"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# A batch of the HTTP server: once validated, a queued run over its input file. Its status follows from both.
batch = Table(
    "batch",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("endpoint", Text, nullable=False),  # a path, /v1/chat/completions
    Column("input_file_id", Text, nullable=False),  # as requested; there may be no such file
    Column("input_sha256", Text),  # its content stays while the batch is unfinished
    Column("completion_window", Text, nullable=False),
    Column("metadata", Text),  # JSON object of texts
    Column("output_expires_after", REAL),  # seconds
    Column("created_at", REAL, nullable=False),
    Column("expires_at", REAL, nullable=False),
    Column("model", Text),
    Column("run_id", Integer),  # no foreign key: a batch outlives its pruned run
    Column("in_progress_at", REAL),
    Column("cancelling_at", REAL),
    Column("finalizing_at", REAL),
    Column("ended_at", REAL),
    Column("ended_as", Text),
    Column("errors", Text),  # JSON list: why it failed
    Column("total", Integer),
    Column("completed", Integer),  # the counts and the usage are those at its end
    Column("failed", Integer),
    Column("usage", Text),  # JSON
    Column("output_file_id", Text),  # no foreign keys: files may be deleted
    Column("error_file_id", Text),
    CheckConstraint("ended_as IN ('completed', 'failed', 'expired', 'cancelled')", name="ended_as"),
    CheckConstraint("(ended_at IS NOT NULL) = (ended_as IS NOT NULL)", name="ended"),
    CheckConstraint("(run_id IS NOT NULL) = (in_progress_at IS NOT NULL)", name="run"),
    Index(None, "created_at"),
    Index(None, "run_id"),
    Index("ix_batch_unfinished", "number", sqlite_where=text("ended_at IS NULL")),
    sqlite_autoincrement=True,
    sqlite_strict=True,
)


def statements() -> list[str]:
    """Return the statements that create the tables and indexes."""
    dialect, made = sqlite.dialect(), []
    for table in METADATA.sorted_tables:
        made.append(CreateTable(table).compile(dialect=dialect))
        made += [CreateIndex(index).compile(dialect=dialect) for index in sorted(table.indexes, key=_name)]
    return [str(one) for one in made]


def _name(index: Index) -> str:
    return str(index.name)
