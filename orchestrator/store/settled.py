"""What counts as settled: SQL that every reader and writer of results shares.

No result is ever deleted. A discarded item that is to be asked again (forgiven) keeps its result until it is settled
anew. A run that asks it counts it as unsettled, and every other run still has it among its failures. A finished run
therefore stays complete, whatever becomes of a retry.
"""

from __future__ import annotations


def forgiven(result: str) -> str:
    """SQL: whether this row of `result` is a discard that was forgiven, by a `retry` or because of its endpoint."""
    return f"{result}.outcome = 'discarded' AND {_to_be_asked(result)}"


def _to_be_asked(result: str) -> str:
    return (
        f"EXISTS (SELECT 1 FROM item f WHERE f.key = {result}.item_key "
        f"AND f.forgiven > 0 AND f.forgiven >= {result}.attempts)"
    )


# Whether an item needs nothing more. Its row of `result`, if there is one, is joined as `r`.
SETTLED = f"iif(r.outcome = 'discarded', NOT {_to_be_asked('r')}, r.item_key IS NOT NULL)"
# If an item already has a result, the first writer wins, unless that result is a forgiven discard.
REPLACE_FORGIVEN = f"""
ON CONFLICT (item_key) DO UPDATE SET
    outcome = excluded.outcome, attempts = excluded.attempts, seconds = excluded.seconds,
    finished_at = excluded.finished_at, output = excluded.output, answer = excluded.answer,
    tokens_in = excluded.tokens_in, tokens_out = excluded.tokens_out, notes = excluded.notes
WHERE {forgiven("result")}
"""
