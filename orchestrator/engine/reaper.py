"""reaper: puts right what a dead process left, and keeps this one known to be alive."""

from __future__ import annotations

import os
import socket
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import psutil
from anyio import to_thread

from orchestrator.engine.tasks import task_group

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.store import Store
    from orchestrator.store.runs import Process

LEASE = 30.0  # seconds a silent process is believed to be alive
BEAT = LEASE / 4
_SAME_START = 2.0  # seconds by which two readings of one process's start may differ


@asynccontextmanager
async def registered(store: Store) -> AsyncIterator[int]:
    """Enter this process in the ledger; when the block ends, it holds nothing any more."""
    await reap(store)
    host = await to_thread.run_sync(_this_host)
    started = await to_thread.run_sync(lambda: psutil.Process().create_time())
    process_id = await store.runs.register(host=host, pid=os.getpid(), pid_started=started, lease=LEASE)
    try:
        yield process_id
    finally:
        with anyio.CancelScope(shield=True):
            await store.items.release(process_id)
            await store.runs.leave(process_id)


@asynccontextmanager
async def kept_alive(store: Store, process_id: int) -> AsyncIterator[None]:
    """While the block lasts, this process keeps what it holds, also when everything else in it has been cancelled."""

    async def beat() -> None:
        while True:
            with suppress(Exception):  # what it guards matters more than the ledger's trouble
                await store.runs.prolong(process_id, LEASE)
            await anyio.sleep(BEAT)

    async with task_group() as group:
        group.start_soon(beat)
        yield
        group.cancel_scope.cancel()


async def reap(store: Store) -> None:
    """Take from dead processes what they held; their runs can be continued at once."""
    host = await to_thread.run_sync(_this_host)
    for process in await store.runs.living():
        if await to_thread.run_sync(_dead, process, host) and await store.runs.bury(process):
            await store.items.expire(process.id)


def _dead(process: Process, host: str) -> bool:
    """On this machine a process can be looked at; elsewhere, or if it hangs, its lease decides."""
    if process.lease_until < time.time():
        return True
    if process.host != host:
        return False
    try:
        found = psutil.Process(process.pid)
        started: float = found.create_time()
        return found.status() == psutil.STATUS_ZOMBIE or abs(started - process.pid_started) > _SAME_START
    except psutil.NoSuchProcess:
        return True


def _this_host() -> str:
    """Machine, boot and pid namespace: two processes with the same one can see each other's pids."""
    parts = [socket.gethostname()]
    for source in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        path = Path(source)
        if path.is_symlink():
            parts.append(str(path.readlink()))
        elif path.exists():
            parts.append(path.read_text().strip())
    return "/".join(parts)
