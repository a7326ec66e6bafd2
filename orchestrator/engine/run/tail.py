"""The tail of a run: watch whether the fallback would finish for less, and leave it the rest then."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.events import TailHandedOver
from orchestrator.domain.tail import SETTLED_IN, HandedOver, handed_over
from orchestrator.engine.run.estimate import estimate_for

if TYPE_CHECKING:
    from orchestrator.domain.charges import UsePrice
    from orchestrator.domain.run import Run
    from orchestrator.engine.asking.effort import Leave
    from orchestrator.engine.asking.work_queue import WorkQueue
    from orchestrator.job import Job
    from orchestrator.ports import EventListener
    from orchestrator.store import Store

_LOOK = 2.0  # seconds between two looks


async def leave_all(run: Run, job: Job, store: Store, price: UsePrice, leave: Leave, events: EventListener) -> None:
    """Leave everything to a fallback with this price if, by an estimate from earlier runs, waking would cost more.

    Nothing is known of tokens before, so only a price by the request is compared.
    """
    if price.per_million_tokens is not None:
        return
    load = await store.estimates.left(run.id)
    here = (await estimate_for(load, job, run.spec.about.get("identity"), run.job_id, store)).cost
    there = price.charge(load.items, None, None).dollars
    if here is not None and there < here:
        leave.below, found = sys.maxsize, HandedOver(load.items, here, there)
        events.emit(TailHandedOver(found))
        await store.runs.handed_over(run.id, str(found))


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
            queue.work.events.emit(TailHandedOver(found))
            queue.notify()
            await queue.work.store.runs.handed_over(queue.work.run_id, str(found))
            return
