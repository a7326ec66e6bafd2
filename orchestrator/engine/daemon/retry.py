"""Retry: put the run into the queue in which a run's discarded items are asked again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.engine.awake.reaper import reap

if TYPE_CHECKING:
    from orchestrator.domain.run import Run
    from orchestrator.store import Store


@dataclass(frozen=True, slots=True)
class QueuedRetry:
    """The run in the queue that asks `items` discarded items again. `served`: a daemon is running that will take it."""

    run: Run
    items: int
    served: bool


async def queue_retry(run_id: int, store: Store, *, like: str | None = None) -> QueuedRetry:
    """Forgive the run's discarded items, or those that failed as `like` did, and queue the run that asks them.

    The daemon's process loads the job, so a job that has changed since is noticed there: its new run asks them.
    """
    await reap(store)
    asked_by, items = await store.retries.queue(run_id, time.time(), like)
    return QueuedRetry(await store.runs.find(str(asked_by)), items, await store.queue.served())
