"""Readings: record the progress of a run every few seconds."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.readings import EVERY, Reading
from orchestrator.engine.tasks import task_group

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.engine.asking.in_flight import InFlight
    from orchestrator.engine.asking.work_queue import RunContext


@asynccontextmanager
async def read_along(work: RunContext, in_flight: InFlight) -> AsyncIterator[None]:
    """Record a reading every few seconds while the block lasts, beginning at once, and one at the end.

    An error of the last one is ignored, so that it hides no other error.
    """

    async def read() -> None:
        while True:
            await note(work, in_flight)
            await anyio.sleep(EVERY)

    async with task_group() as group:
        group.start_soon(read)
        try:
            yield
        finally:
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True), suppress(OrchestratorError):
                await note(work, in_flight)


async def note(work: RunContext, in_flight: InFlight) -> None:
    """Record a reading of the current progress, and add what is new to the ledger's running totals."""
    progress = work.progress
    uncounted = progress.uncounted()
    reading = Reading(
        time.time(),
        work.process_id,
        progress.completed,
        progress.discarded,
        progress.asked,
        progress.tokens_in,
        progress.tokens_out,
        len(in_flight),
        in_flight.lately(),
        progress.latency.copy(),
        progress.commits,
        progress.commit_seconds,
        {str(cause): requests for cause, requests in progress.lost.items()},
        dict(progress.statuses),
    )
    progress.count(uncounted)  # at once, because another task may note as well
    try:
        await work.store.readings.note(work.run_id, reading, uncounted)
    except OrchestratorError:
        progress.count({key: -by for key, by in uncounted.items()})
        raise
    await _note_charges(work)


async def _note_charges(work: RunContext) -> None:
    """Add what answers have cost since the last time to the ledger."""
    progress = work.progress
    if not (new := progress.uncharged()):
        return
    before, progress.charged = progress.charged, dict(progress.charges)  # at once, as above
    try:
        await work.store.charges.add(work.run_id, new)
    except OrchestratorError:
        progress.charged = before
        raise
