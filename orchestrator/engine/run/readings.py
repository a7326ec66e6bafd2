"""readings: write down how a run goes, every few seconds of it."""

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
    """While the block lasts, a reading every few seconds: the first one as it begins, the last one as it ends.

    The last one is worth less than what it might hide: where the ledger cannot take it, there is none.
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
    """Write down how it goes just now."""
    progress = work.progress
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
    )
    await work.store.readings.note(work.run_id, reading)
