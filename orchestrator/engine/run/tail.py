"""The tail of a run: watch whether the fallback would finish for less, and leave it the rest then."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.events import TailHandedOver
from orchestrator.domain.tail import SETTLED_IN, handed_over

if TYPE_CHECKING:
    from orchestrator.domain.charges import UsePrice
    from orchestrator.engine.asking.effort import Leave
    from orchestrator.engine.asking.work_queue import WorkQueue

_LOOK = 2.0  # seconds between two looks


async def watch_tail(queue: WorkQueue, price: UsePrice, leave: Leave) -> None:
    """Leave everything to a fallback with this price once that is cheaper than staying awake."""
    progress, since = queue.work.progress, None
    while True:
        await anyio.sleep(_LOOK)
        rate, now = progress.rate(), anyio.current_time()
        if not progress.asked or rate is None:
            continue
        since = now if since is None else since
        if now - since < SETTLED_IN:
            continue
        done = progress.completed
        tokens = None
        if done and progress.tokens_in is not None:
            tokens = (progress.tokens_in / done, (progress.tokens_out or 0) / done)
        found = handed_over(queue.left, rate, progress.price_per_hour, price, tokens)
        if found is not None:
            leave.below = sys.maxsize
            queue.work.events.emit(TailHandedOver(found.items, found.here, found.there, str(found)))
            queue.notify()
            return
