"""Deliver: what is written is, byte for byte, what reading each stored value and writing each row by itself gives."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson
import pytest

from orchestrator import exact_json
from orchestrator.domain.item import ItemState
from orchestrator.engine.run.deliver import deliver
from orchestrator.sinks import JsonlSink
from orchestrator.store.sqlite import DRIVER
from orchestrator.store.views import PAGE
from tests.engine.scripted import Scripted, job_of, run
from tests.store.big_ledger import fill

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.store import Store

ROWS = 2 * PAGE + 100
# Of ten rows, one is available, one waits for its next attempt, and three are discarded, one of them in vain forgiven.
_RUN = """
INSERT INTO process (id, host, pid, pid_started, started_at, lease_until, state)
    VALUES (1, 'h', 1, 0.0, 0.0, 0.0, 'ended');
INSERT INTO job (id, name) VALUES (1, 'talk');
INSERT INTO run (id, job_id, state, fingerprint, spec, total, created_at) VALUES (1, 1, 'open', 'f', '{}', :rows, 1.0);
INSERT INTO item (key, job_id, item_id, hash, request, forgiven)
    SELECT value, 1, 'row ' || value, 'h', '""', iif(value % 10 IN (4, 5), 1, 0) FROM generate(1, :rows);
INSERT INTO member (id, run_id, item_key, kept)
    SELECT (1 << 32) | (value - 1), 1, value, iif(value % 3, NULL, '{"n":' || value || ',"id":' || value || '}')
    FROM generate(1, :rows);
INSERT INTO result (item_key, outcome, attempts, seconds, finished_at, output)
    SELECT value, iif(value % 10 IN (3, 4, 5), 'discarded', 'completed'), iif(value % 10 = 5, 2, 1), 0.1, 1.0,
           iif(value % 10 IN (3, 4, 5), NULL, '"an answer"') FROM generate(1, :rows);
DELETE FROM result WHERE item_key % 10 IN (1, 2);
INSERT INTO attempt (item_key, number, outcome, kind, status, message, seconds, at, available_at)
    SELECT value, 1, 'retry_later', 'unavailable', 503, 'busy', 0.1, 1.0, 1.0 FROM generate(1, :rows);
DELETE FROM attempt WHERE item_key % 10 NOT IN (2, 5);
INSERT OR IGNORE INTO attempt (item_key, number, outcome, kind, message, seconds, at)
    SELECT value, iif(value % 10 = 5, 2, 1), 'discarded', 'refused', 'no', 0.1, 1.0 FROM generate(1, :rows);
DELETE FROM attempt WHERE item_key % 10 NOT IN (2, 3, 4, 5);
INSERT INTO chunk (run_id, lo, hi, state) SELECT 1, (value - 1) * 10, value * 10, 'available'
    FROM generate(1, :rows / 10);
"""


async def test_a_delivery_has_the_rows_that_the_general_view_shows_as_settled(store: Store) -> None:
    fill(store.database.path, _RUN, {"rows": ROWS})
    seen = [view async for page in store.views.pages(1) for view in page]
    pages = [page async for page in store.views.settled(1)]
    assert [page.rows for page in pages] == [PAGE, PAGE, 100]
    assert [row for page in pages for row in page.completed] == [
        (view.id, view.kept, view.output, view.position) for view in seen if view.state is ItemState.COMPLETED
    ]
    discarded = [view for page in pages for view in page.discarded]
    assert discarded == [view for view in seen if view.state is ItemState.DISCARDED]
    assert len(discarded) == ROWS // 10 * 2  # a discard that is to be asked again is not settled in an open chunk


async def test_a_page_without_any_settled_row_does_not_end_the_delivery(store: Store, tmp_path: Path) -> None:
    fill(store.database.path, _RUN, {"rows": ROWS})
    with DRIVER.connect(store.database.path) as connection:
        connection.execute("DELETE FROM result WHERE item_key <= ?", (PAGE,))
    manifest = await deliver(await store.runs.find("1"), store, JsonlSink(tmp_path / "out.jsonl", keep=["n"]))
    left = (ROWS - PAGE) // 10
    assert manifest["counts"] == {
        "inputs": ROWS,
        "completed": 5 * left,
        "discarded": 2 * left,
        "skipped": PAGE + 3 * left,
    }


OUTPUTS = [
    '"text"',
    '"\\u00e9\\/\\n\\"\u2028"',
    '"12345678901234567890"',
    "null",
    "true",
    "-0.0",
    "1E5",
    "1e-7",
    "0.1000",
    "18446744073709551616",
    "-99999999999999999999",
    "123456789.123456789123456789",
    '{"b": 1, "a": [1, {"c": 1e22}], "b": 2}',
    "[[]]",
    "[" * 250 + "]" * 250,
    "[" * 400 + "]" * 400,  # deeper than orjson writes
    "{}",
    ' {"spaces" : " "} ',
]
KEPT = [
    None,
    "{}",
    '{"id": 7}',
    '{"n": 1.0, "id": "other"}',
    '{"m": 1, "n": [99999999999999999999]}',
    '{"n": "\\u0041"}',
]


@pytest.mark.parametrize("keep", [(), ("n",), ("n", "id", "m")])
@pytest.mark.parametrize("apart", [True, False])
async def test_odd_values_are_written_as_one_by_one(
    store: Store, tmp_path: Path, keep: Sequence[str], *, apart: bool
) -> None:
    """`apart`: pages without values that have to be read one by one."""
    outputs = [one for one in OUTPUTS if len(one) < 255 and "9" * 5 not in one] if apart else OUTPUTS
    rows = [
        (f'row "{n}"\u2028\\', kept, output) for n, (kept, output) in enumerate((k, o) for k in KEPT for o in outputs)
    ]
    fill(store.database.path, _RUN, {"rows": len(rows) // 10 * 10 + 10})
    with DRIVER.connect(store.database.path) as connection:
        connection.execute("UPDATE result SET outcome = 'completed', output = '1'")
        for key, (name, kept, output) in enumerate(rows, start=1):
            connection.execute("UPDATE item SET item_id = ? WHERE key = ?", (name, key))
            connection.execute("UPDATE member SET kept = ? WHERE item_key = ?", (kept, key))
            connection.execute(
                "INSERT INTO result (item_key, outcome, attempts, seconds, finished_at, output) "
                "VALUES (?, 'completed', 1, 0.1, 1.0, ?) ON CONFLICT DO UPDATE SET output = excluded.output",
                (key, output),
            )
    await deliver(await store.runs.find("1"), store, JsonlSink(tmp_path / "out.jsonl", keep=keep))
    written = (tmp_path / "out.jsonl").read_bytes().split(b"\n")
    columns = ["id", *(name for name in keep if name != "id"), "output"]
    assert written[: len(rows)] == [alone(columns, *row) for row in rows]


def alone(columns: Sequence[str], name: str, kept: str | None, output: str) -> bytes:
    record = {"id": name, **(exact_json.loads(kept) if kept else {}), "output": exact_json.loads(output)}
    chosen = {column: record.get(column) for column in columns}
    try:
        return exact_json.dumps(chosen)
    except orjson.JSONEncodeError:
        return json.dumps(chosen, ensure_ascii=False, separators=(",", ":")).encode()


async def test_a_manifest_says_what_has_computed_the_answers(store: Store, tmp_path: Path) -> None:
    one = Scripted(machine={"threads": 1, "versions": {"torch": "2.13.0"}})
    first = await run(job_of(["a"], one, tmp_path), store)
    told = {"endpoint": "scripted", **one.machine}
    assert first.manifest["computed_with"] == [told]
    again = await run(job_of(["a", "b"], replace(one), tmp_path), store)  # continued on the same machine
    assert again.manifest["computed_with"] == [told]
    other = replace(one, machine={"threads": 2})
    assert (await run(job_of(["a", "b", "c"], other, tmp_path), store)).manifest["computed_with"] == [
        told,
        {"endpoint": "scripted", "threads": 2},
    ]
    replaced = await run(job_of(["a"], replace(one, model="another", machine={}), tmp_path), store)
    assert "computed_with" not in replaced.manifest  # its answers are others, and their server says nothing
