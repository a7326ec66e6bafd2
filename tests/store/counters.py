"""Compare the counters of chunks with counts made here from the results, one item at a time."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.store import Store

_CHUNKS = "SELECT id, run_id, lo, hi, state, completed, discarded, tokens_in, tokens_out FROM chunk"
_RESULTS = """
SELECT r.outcome, r.outcome = 'discarded' AND i.forgiven > 0 AND i.forgiven >= r.attempts, r.tokens_in, r.tokens_out
FROM member m JOIN item i ON i.key = m.item_key JOIN result r ON r.item_key = m.item_key
WHERE m.run_id = :run AND m.id - (:run << 32) >= :lo AND m.id - (:run << 32) < :hi
"""


async def check_counters(store: Store) -> None:
    """Check the counters of every chunk of every run, finished or not."""
    async with store.database.read() as connection:
        for chunk, run, lo, hi, state, *counters in (await connection.execute(_CHUNKS)).all():
            results = (await connection.execute(_RESULTS, {"run": run, "lo": lo, "hi": hi})).all()
            assert counters == _counted(results, done=state == "done"), f"chunk {chunk} of run {run}"
            assert state != "done" or len(results) == hi - lo, f"chunk {chunk} of run {run} is done without a result"


def _counted(results: Sequence[Any], *, done: bool) -> list[int | None]:
    """Return the counts. A forgiven discard counts as available unless the chunk is done."""
    counts = Counter(outcome for outcome, forgiven, *_ in results if done or not forgiven)
    tokens = [[result[place] for result in results if result[place] is not None] for place in (2, 3)]
    return [counts["completed"], counts["discarded"], *(sum(some) if some else None for some in tokens)]
