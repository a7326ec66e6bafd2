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

from orchestrator.domain.errors import OrchestratorError
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
    """Enter this process in the ledger; when the block ends, it holds nothing any more.

    Where that cannot be written, it is found dead.
    """
    process_id = await enter(store)
    try:
        yield process_id
    finally:
        with anyio.CancelScope(shield=True), suppress(OrchestratorError):
            await leave(store, process_id)


async def enter(store: Store, *, serves: bool = False) -> int:
    """Enter this process in the ledger, when what the dead have left is put right; gives its number there."""
    await reap(store)
    host = await to_thread.run_sync(_this_host)
    started = await to_thread.run_sync(lambda: psutil.Process().create_time())
    return await store.runs.register(host=host, pid=os.getpid(), pid_started=started, lease=LEASE, serves=serves)


async def leave(store: Store, process_id: int) -> None:
    """This process, by that number, holds nothing any more."""
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


def dead(process: Process) -> bool:
    """Whether it is, as far as that can be told from here. Blocking."""
    return _dead(process, _this_host())


def here(process: Process) -> bool:
    """Whether it is one that can be looked at from here. Blocking."""
    return process.host == _this_host()


def _dead(process: Process, host: str) -> bool:
    """On this machine a process can be looked at; elsewhere, or if it hangs, its lease decides."""
    me = process.host == host and process.pid == os.getpid()
    if process.lease_until < time.time() and not (me and _is_there(process)):  # the clock was put forward, or we slept
        return True
    if process.host != host:
        return False
    return not _is_there(process)


def _is_there(process: Process) -> bool:
    try:
        found = psutil.Process(process.pid)
        started: float = found.create_time()
        return found.status() != psutil.STATUS_ZOMBIE and abs(started - process.pid_started) <= _SAME_START
    except psutil.NoSuchProcess:
        return False


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
