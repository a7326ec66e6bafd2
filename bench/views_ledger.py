"""A ledger as large as the page's views have to be quick for: 10,000 runs, one of them with ten million items."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio

from orchestrator.store import Store
from tests.store.big_ledger import fill

if TYPE_CHECKING:
    from pathlib import Path

RUNS = 10_000  # the last of them is the large one
ITEMS = 10_000_000  # of the large run
EVERY = 100  # of 100 items, one is discarded
_BULK = """
INSERT INTO process (id, host, pid, pid_started, started_at, lease_until, state)
    SELECT value, 'h', value, 0.0, :old, :old, 'ended' FROM generate(1, 20000);
INSERT INTO process (id, host, pid, pid_started, started_at, lease_until, state)
    VALUES (20001, 'another machine', 1, 0.0, :now, :now + 1e6, 'live');
INSERT INTO job (id, name) VALUES (1, 'large');
INSERT INTO job (name) SELECT 'job' || value FROM generate(2, 200);
INSERT INTO run (id, job_id, state, fingerprint, spec, total, plan, created_at, started_at, finished_at, delivered_at,
                 left_at, error)
    SELECT value, 2 + value % 198, iif(value % 20, 'finished', 'failed'), 'f', '{"jobfile": "f.py"}', 400,
           '{"new": 400}', :now - (:runs - value) * 300.0, :now - (:runs - value) * 300.0,
           iif(value % 20, :now - (:runs - value) * 300.0 + 240, NULL),
           iif(value % 20, :now - (:runs - value) * 300.0 + 241, NULL), :now - (:runs - value) * 300.0 + 241,
           iif(value % 20, NULL, 'endpoint e: out of use') FROM generate(1, :runs - 1);
INSERT INTO run (id, job_id, state, fingerprint, spec, total, plan, holder, rate, created_at, started_at)
    VALUES (:runs, 1, 'open', 'f', '{"jobfile": "f.py", "output": "out.jsonl"}', :items, '{"new": 10000000}', 20001,
            900.0, :now - 86400, :now - 86400);
INSERT INTO run (id, job_id, state, fingerprint, spec, created_at, due_at, priority, why)
    SELECT :runs + value, 2 + value % 198, 'open', '', '{"jobfile": "f.py"}', :now - value, :now + value * 60,
           value % 3, iif(value % 2, NULL, 'the run window opens at 22:00') FROM generate(1, 200);
INSERT INTO uses SELECT id, 'endpoint ' || (id % 10) FROM run WHERE id > :runs - 100;
INSERT INTO item (key, job_id, item_id, hash, request)
    SELECT value, 2 + (value / 400) % 198, 'row ' || value, printf('%064d', value), '{"inputs": "a text"}'
    FROM generate(1, (:runs - 1) * 400);
INSERT INTO member (id, run_id, item_key)
    SELECT ((1 + (value - 1) / 400) << 32) | ((value - 1) % 400), 1 + (value - 1) / 400, value
    FROM generate(1, (:runs - 1) * 400);
INSERT INTO result (item_key, outcome, attempts, seconds, finished_at, output, tokens_in, tokens_out)
    SELECT value, iif(value % 100, 'completed', 'discarded'), 1, 0.1 + value % 7 * 0.1,
           :now - (:runs - 1 - (value - 1) / 400) * 300.0, iif(value % 100, '"answer"', NULL), 20, 5
    FROM generate(1, (:runs - 1) * 400);
INSERT INTO attempt (item_key, number, outcome, kind, status, message, seconds, at)
    SELECT value * 100, 1, 'discarded', 'invalid_request', 422, 'too long: ' || value || ' characters', 0.1,
           :now - (:runs - 1 - value / 4) * 300.0 FROM generate(1, (:runs - 1) * 4);
INSERT INTO chunk (run_id, lo, hi, state, completed, discarded, tokens_in, tokens_out)
    SELECT value, 0, 400, 'done', 396, 4, 8000, 2000 FROM generate(1, :runs - 1);
INSERT INTO reading (run_id, at, process_id, completed, discarded, requests, tokens_in, tokens_out, in_flight, latency)
    SELECT 1 + (value - 1) / 40, :now - (:runs - 1 - (value - 1) / 40) * 300.0 + value % 40 * 5, 1 + (value - 1) / 20,
           value % 20 * 20, 0, value % 20 * 20, value % 20 * 400, value % 20 * 100, 8, 0.2
    FROM generate(1, (:runs - 1) * 40);
INSERT INTO item (key, job_id, item_id, hash, request)
    SELECT 10000000 + value, 1, 'item ' || value, printf('%064d', value),
           '{"messages": [{"role": "user", "content": "Summarize text ' || value || '"}], "max_tokens": 100}'
    FROM generate(1, :items);
INSERT INTO member (id, run_id, item_key) SELECT (:runs << 32) | (value - 1), :runs, 10000000 + value
    FROM generate(1, :items);
INSERT INTO result (item_key, outcome, attempts, seconds, finished_at, output, tokens_in, tokens_out)
    SELECT 10000000 + value, iif(value % :every, 'completed', 'discarded'), iif(value % :every, 1, 3), 0.5,
           :now - 86400 + value * 86400.0 / :items, iif(value % :every, '"a summary of it"', NULL),
           iif(value % :every, 30, NULL), iif(value % :every, 12, NULL) FROM generate(1, :items - 100000);
INSERT INTO attempt (item_key, number, outcome, kind, status, message, seconds, at, available_at)
    SELECT 10000000 + (1 + value / 3) * :every, 1 + value % 3, iif(value % 3 < 2, 'retry_later', 'discarded'),
           iif(value / 3 % 5, 'invalid_answer', 'invalid_request'), iif(value / 3 % 5, NULL, 400),
           'cause ' || char(65 + value / 3 % 7) || ': the answer of ' || value || ' characters ends early', 0.5, :now,
           iif(value % 3 < 2, :now, NULL) FROM generate(0, 3 * ((:items - 100000) / :every) - 1);
INSERT INTO chunk (run_id, lo, hi, state, holder, completed, discarded, tokens_in, tokens_out)
    SELECT :runs, (value - 1) * 500, value * 500, iif(value <= (:items - 100000) / 500, 'done', 'available'), NULL,
           iif(value <= (:items - 100000) / 500, 495, 0), iif(value <= (:items - 100000) / 500, 5, 0), 14850, 5940
    FROM generate(1, :items / 500);
INSERT INTO reading (run_id, at, process_id, completed, discarded, requests, tokens_in, tokens_out, in_flight, latency)
    SELECT :runs, :now - 86400 + value * 5, 20001, value * 567, value * 6, value * 580, value * 17000, value * 6800,
           64, 0.5 FROM generate(1, 17279);
INSERT INTO awake_window (id, endpoint, pause_with, state, owed, price_per_hour, opened_at, resumed_at, closed_at,
                          closed_by, seen, said)
    SELECT value, 'endpoint ' || (value % 10), '{}', 'closed', 1, 1.8, :now - (10000 - value) * 300.0,
           :now - (10000 - value) * 300.0, :now - (10000 - value) * 300.0 + 240, 'run', 'asleep', 'paused'
    FROM generate(1, 9990);
INSERT INTO awake_window (id, endpoint, pause_with, state, owed, price_per_hour, opened_at, resumed_at, seen, said)
    VALUES (9991, 'endpoint 0', '{}', 'open', 1, 1.8, :now - 80000, :now - 80000, 'awake', 'running'),
           (9992, 'endpoint 1', '{}', 'open', 1, 1.8, :now - 9000, :now - 9000, 'awake', 'running');
INSERT INTO hold (window_id, process_id, run_id, job, since, until, cold_start, work, idle, pausing)
    SELECT value, 1 + value % 20000, value, 'job' || (2 + value % 198), :now - (10000 - value) * 300.0,
           :now - (10000 - value) * 300.0 + 240, 60, 150, 20, 10 FROM generate(1, 9990);
INSERT INTO hold (window_id, process_id, run_id, job, since) VALUES (9991, 20001, :runs, 'large', :now - 80000);
INSERT INTO schedule (id, job, jobfile, about, endpoints, source, cron, tz, overlap, catch_up, catch_up_window, jitter,
                      next_slot)
    SELECT value, 'job' || (1 + value), 'f.py', '{"jobfile": "f.py"}', '["endpoint 1"]', 'file', '0 2 * * *', 'UTC',
           'skip', 'latest', 3600.0, 0.0, :now + 3600 + value FROM generate(1, 100);
INSERT INTO slot SELECT 1 + value % 100, :now - value * 3600, 'fired', value, :now - value * 3600
    FROM generate(1, 9000);
"""


def make_ledger(path: Path, items: int = ITEMS) -> None:
    """Write the ledger; ten million items take some minutes and 6 GB."""
    anyio.run(_create, str(path))
    fill(path, _BULK, {"runs": RUNS, "items": items, "every": EVERY, "now": time.time(), "old": time.time() - 4e6})


async def _create(path: str) -> None:
    async with Store.open(path):
        pass
