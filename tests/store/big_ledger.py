"""A ledger with a long past: a million finished items and thousands of runs, processes, windows, readings and slots."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import anyio

from orchestrator.store import Store
from orchestrator.store.sqlite import DRIVER

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ITEMS = 1_000_000
CHUNK = 500
RUNS = 2000  # finished runs
FINISHED, OPEN = 1, 2  # runs: the one with all the items, and the executing one
JOB = "big"
_BULK = """
INSERT INTO process (id, host, pid, pid_started, started_at, lease_until, state)
    SELECT value, 'h', value, 0.0, :old, :old, 'ended' FROM generate(1, 4000);
INSERT INTO job (id, name) VALUES (1, :job);
INSERT INTO job (name) SELECT 'job' || value FROM generate(2, 200);
INSERT INTO run (id, job_id, state, fingerprint, spec, input_sha256, total, created_at, finished_at, delivered_at)
    VALUES (1, 1, 'finished', 'f', '{}', 's', :items, :old, :old, :old);
INSERT INTO run (id, job_id, state, fingerprint, spec, input_sha256, total, created_at)
    VALUES (2, 1, 'open', 'g', '{}', 's', 10000, :now);
INSERT INTO run (id, job_id, state, fingerprint, spec, total, created_at, finished_at, delivered_at, left_at)
    SELECT value, 2 + value % 198, 'finished', 'f', '{"jobfile": "f"}', 0, :old, :old + value * 60, :old, :old
    FROM generate(3, :runs);
INSERT INTO item (key, job_id, item_id, hash, request)
    SELECT value, 1, 'item ' || value, printf('%064d', value), '"text"' FROM generate(1, :items + 10000);
INSERT INTO member (id, run_id, item_key) SELECT (1 << 32) | (value - 1), 1, value FROM generate(1, :items);
INSERT INTO member (id, run_id, item_key)
    SELECT (2 << 32) | (value - 1), 2, :items + value FROM generate(1, 10000);
INSERT INTO result (item_key, outcome, attempts, seconds, finished_at, output)
    SELECT value, iif(value % 50 = 0, 'discarded', 'completed'), 1, 0.1, :old, iif(value % 50 = 0, NULL, '"answer"')
    FROM generate(1, :items);
INSERT INTO attempt (item_key, number, outcome, kind, message, seconds, at, available_at)
    SELECT value * 10, 1, iif(value % 5 = 0, 'discarded', 'retry_later'), 'unavailable', 'busy', 0.1, :old,
           iif(value % 5 = 0, NULL, :old) FROM generate(1, :items / 10);
INSERT INTO chunk (run_id, lo, hi, state, completed, discarded)
    SELECT 1, (value - 1) * 500, value * 500, 'done', 490, 10 FROM generate(1, :items / 500);
INSERT INTO chunk (run_id, lo, hi, state)
    SELECT 2, (value - 1) * 500, value * 500, 'available' FROM generate(1, 20);
INSERT INTO reading (run_id, at, process_id, completed, discarded, requests, in_flight, latency)
    SELECT 1, :old + value, 1, value, 0, value, 8, 0.1 FROM generate(1, 50000);
INSERT INTO uses SELECT id, 'endpoint' FROM run;
INSERT INTO wait SELECT id, id - 1, 1 FROM run WHERE id > 3;
INSERT INTO awake_window (id, endpoint, pause_with, state, opened_at, closed_at)
    SELECT value, 'endpoint', '{}', 'closed', :old + value, :old + value FROM generate(1, 5000);
INSERT INTO hold (window_id, process_id, run_id, job, since, until)
    SELECT value, 1 + value % 4000, value % :runs, 'job', :old, :old FROM generate(1, 5000);
INSERT INTO schedule (id, job, jobfile, about, endpoints, source, cron, tz, overlap, catch_up, catch_up_window, jitter,
                      next_slot)
    SELECT value, 'job' || value, 'f', '{}', '["endpoint"]', 'file', '0 2 * * *', 'UTC', 'skip', 'latest', 3600.0, 0.0,
           :now + value * 1e6 FROM generate(1, 200);
INSERT INTO slot SELECT 1 + value % 200, :old + value, 'fired', value, :old FROM generate(1, 50000);
INSERT INTO delivered_item SELECT 1, item_id, hash FROM item WHERE key <= 100000;
INSERT INTO tuning SELECT 'shape' || value, 8, :old, NULL FROM generate(1, 500);
"""
_GENERATE = (
    "(WITH RECURSIVE n(value) AS (SELECT {0} UNION ALL SELECT value + 1 FROM n WHERE value < {1}) SELECT value FROM n)"
)


def make_big_ledger(path: Path) -> None:
    """Write the ledger with few statements, in a few seconds."""
    anyio.run(_make, str(path))
    values = {"items": ITEMS, "runs": RUNS, "job": JOB, "now": time.time(), "old": time.time() - 86400.0 * 30}
    fill(path, _BULK, values)


def fill(path: Path, script: str, values: Mapping[str, object]) -> None:
    """Execute statements separated by a semicolon and a line end; `generate(1, 10)` in one is a table of numbers."""
    with closing(DRIVER.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        for statement in script.split(";\n"):
            begin, generate, bounds = statement.partition("generate(")
            first, last = bounds.rsplit(")", 1)[0].split(", ", 1) if generate else ("", "")
            sql = begin + (_GENERATE.format(first, last) if generate else "")
            if sql.strip():
                named = {name: value for name, value in values.items() if f":{name}" in sql}
                connection.execute(sql, named)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


async def _make(path: str) -> None:
    async with Store.open(path):
        pass
