"""The invariants of a ledger when all work is done, whatever happened before."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.commands import Workplace

# Each violation, and a query that counts it. If a run is superseded, another one does its work.
_WRONG = {
    "items without a result": "SELECT count(*) FROM item WHERE key NOT IN (SELECT item_key FROM result)",
    "results that are not answers": "SELECT count(*) FROM result WHERE outcome <> 'completed'",
    "runs that did not finish": "SELECT count(*) FROM run WHERE state NOT IN ('finished', 'superseded')",
    "runs that were not delivered": "SELECT count(*) FROM run WHERE state = 'finished' AND delivered_at IS NULL",
    "chunks that are not done, or whose counters differ from the rows": """
        SELECT count(*) FROM chunk c JOIN run u ON u.id = c.run_id WHERE u.state = 'finished' AND NOT (
            c.state = 'done' AND (c.completed, c.discarded) = (
                SELECT coalesce(sum(r.outcome = 'completed'), 0), coalesce(sum(r.outcome = 'discarded'), 0)
                FROM member m JOIN result r ON r.item_key = m.item_key
                WHERE m.id >= (c.run_id << 32) | c.lo AND m.id < (c.run_id << 32) | c.hi))""",
    "runs in the queue": "SELECT count(*) FROM run WHERE due_at IS NOT NULL",
    "runs in somebody's hands": "SELECT count(*) FROM run WHERE holder IS NOT NULL",
    "processes that live on": "SELECT count(*) FROM process WHERE state = 'live'",
    "awake windows that are not closed": "SELECT count(*) FROM awake_window WHERE state <> 'closed'",
    "holds that have not ended": "SELECT count(*) FROM hold WHERE until IS NULL",
    "corruptions": "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'",
    "foreign keys that point nowhere": "SELECT count(*) FROM pragma_foreign_key_check",
}


def wrongs(workplace: Workplace) -> list[str]:
    """Return every violated invariant."""
    numbers = {what: workplace.query(sql)[0][0] for what, sql in _WRONG.items()}
    return [f"{number} {what}" for what, number in numbers.items() if number]
