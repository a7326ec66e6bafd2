"""Reaper: clean up after dead processes, and keep this one registered as alive."""

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

from orchestrator.domain.errors import OrchestratorError
from orchestrator.engine.tasks import task_group

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.store import Store
    from orchestrator.store.runs import Process

LEASE = 30.0  # seconds for which a silent process is considered alive
BEAT = LEASE / 4
_SAME_START = 2.0  # seconds by which two readings of the same process's start may differ


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
    host = await to_thread.run_sync(_this_host)
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
    host = await to_thread.run_sync(_this_host)
    for process in await store.runs.living():
        if await to_thread.run_sync(_dead, process, host) and await store.runs.bury(process):
            await store.items.expire(process.id)


def dead(process: Process) -> bool:
    """Whether a process is dead, as far as this machine can tell. Blocking."""
    return _dead(process, _this_host())


def here(process: Process) -> bool:
    """Whether a process runs on this machine and can be inspected. Blocking."""
    return process.host == _this_host()


def _dead(process: Process, host: str) -> bool:
    """Whether a process is dead. On this machine it is inspected; elsewhere, or if it hangs, its lease decides."""
    me = process.host == host and process.pid == os.getpid()
    # our own lease may be over although we live: the clock was put forward, or the machine slept
    if process.lease_until < time.time() and not (me and _is_there(process)):
        return True
    if process.host != host:
        return False
    return not _is_there(process)


def _is_there(process: Process) -> bool:
    try:
        running = psutil.Process(process.pid)
        started: float = running.create_time()
        return running.status() != psutil.STATUS_ZOMBIE and abs(started - process.pid_started) <= _SAME_START
    except psutil.NoSuchProcess:
        return False


def _this_host() -> str:
    """Return machine, boot and pid namespace: processes for which these are equal see each other's pids."""
    parts = [socket.gethostname()]
    for source in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        path = Path(source)
        if path.is_symlink():
            parts.append(str(path.readlink()))
        elif path.exists():
            parts.append(path.read_text().strip())
    return "/".join(parts)
