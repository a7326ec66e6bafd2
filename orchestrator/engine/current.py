"""Current: what happens now in a ledger, whichever processes do it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.engine.awake.reaper import reap

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from orchestrator.domain.queue import Queued
    from orchestrator.domain.report_data import AwakeWindow
    from orchestrator.domain.run import Counts, Run
    from orchestrator.store import Store

_MOST = 1000  # runs: whoever falls further behind reads the list of runs


@dataclass(frozen=True, slots=True)
class Current:
    """What happens now. `windows`: of endpoints that are awake. `served`: a daemon is running."""

    runs: Sequence[tuple[Run, Counts]]
    queue: Sequence[Queued]
    windows: Sequence[AwakeWindow]
    served: bool
    newest: int  # the highest number of a run; 0 if there is none


async def current_in(store: Store, also: Collection[int], newest: int | None) -> Current:
    """Return the runs being executed, these other ones, and those made after `newest`; None: the latest of all."""
    await reap(store)  # a run whose process was killed is not running
    now = time.time()
    if newest is None:
        latest = await store.runs.newest(1)
        newest = latest[0].id if latest else 0
    runs = await store.runs.current(also, newest, _MOST)
    counts = await store.views.counts_of({run.id: run.total for run in runs})
    return Current(
        [(run, counts[run.id]) for run in runs],
        await store.queue.listed(now),
        [window for window in await store.history.windows(now) if window.billed_to is None],
        await store.queue.served(),
        max([newest, *(run.id for run in runs)]),
    )
