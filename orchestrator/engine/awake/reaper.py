"""Reaper: clean up after dead processes, and keep this one registered as alive."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import anyio
import psutil
from anyio import to_thread

from orchestrator.domain.errors import OrchestratorError
from orchestrator.engine.tasks import task_group
from orchestrator.store.processes import this_host

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.store import Store

LEASE = 30.0  # seconds for which a silent process is considered alive
BEAT = LEASE / 4


@asynccontextmanager
async def registered(store: Store) -> AsyncIterator[int]:
    """Register this process in the ledger; release everything that it holds when the block ends.

    If the release cannot be written, other processes find this one dead later.
    """
    process_id = await enter(store)
    try:
        yield process_id
    finally:
        with anyio.CancelScope(shield=True), suppress(OrchestratorError):
            await leave(store, process_id)


async def enter(store: Store, *, serves: bool = False) -> int:
    """Clean up after dead processes, then register this one in the ledger; return its number there."""
    await reap(store)
    host = await to_thread.run_sync(this_host)
    started = await to_thread.run_sync(lambda: psutil.Process().create_time())
    return await store.runs.register(host=host, pid=os.getpid(), pid_started=started, lease=LEASE, serves=serves)


async def leave(store: Store, process_id: int) -> None:
    """Release everything that the process with this number holds."""
    await store.items.release(process_id)
    await store.runs.leave(process_id)


@asynccontextmanager
async def kept_alive(store: Store, process_id: int) -> AsyncIterator[None]:
    """Keep this process's leases while the block lasts, even if everything else in it has been cancelled."""

    async def beat() -> None:
        while True:
            with suppress(Exception):  # the block matters more than a problem with the ledger
                await store.runs.prolong(process_id, LEASE)
            await anyio.sleep(BEAT)

    async with task_group() as group:
        group.start_soon(beat)
        yield
        group.cancel_scope.cancel()


async def reap(store: Store) -> None:
    """Release what dead processes hold, so that their runs can be continued at once."""
    for process in await store.runs.living():
        if await to_thread.run_sync(process.is_dead) and await store.runs.bury(process):
            await store.items.expire(process.id)
