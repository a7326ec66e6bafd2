"""Connection: from a ledger and settings to an application for scripts; `run` and `arun` for one job."""

from __future__ import annotations

import asyncio
import math
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread
from anyio.from_thread import start_blocking_portal

from orchestrator.api.apps import AsyncApp, BlockingApp, Connected
from orchestrator.api.calls import Call, interrupts, perform
from orchestrator.config import load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.api.result import Result
    from orchestrator.job import Job


class Connection:
    """A ledger and its settings. `with` gives a `BlockingApp`, `async with` an `AsyncApp`.

    When the block ends, runs that still work are asked to stop, and it waits until they have ended.
    """

    def __init__(self, ledger: str | Path | None = None, *, config: Path | None = None) -> None:
        self._ledger = None if ledger is None else str(ledger)
        self._config = config
        self._stack = ExitStack()
        self._connected: Connected | None = None

    def _open(self) -> Connected:
        settings = load_settings(self._config, self._ledger)
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal(backend_options=_OPTIONS, name="orchestrator"))
            sender, calls = anyio.create_memory_object_stream[Call[Any]](math.inf)
            portal.start_task_soon(perform, calls)
            stack.callback(portal.call, sender.close)
            connected = Connected(portal.call(asyncio.get_running_loop), sender, settings)
            self._stack, self._connected = stack.pop_all(), connected
        return connected

    def __enter__(self) -> BlockingApp:
        return BlockingApp(self._open())

    def __exit__(self, *_: object) -> None:
        assert self._connected is not None
        self._connected.stop(again=False)
        with interrupts(self._connected.stop) as received:
            self._stack.close()
        if received:
            raise KeyboardInterrupt

    async def __aenter__(self) -> AsyncApp:
        return AsyncApp(await to_thread.run_sync(self._open))

    async def __aexit__(self, *_: object) -> None:
        assert self._connected is not None
        try:
            await self._connected.leave()
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(self._stack.close)


_OPTIONS = {"use_uvloop": sys.platform != "win32"}


def connect(ledger: str | Path | None = None, *, config: Path | None = None) -> Connection:
    """Return a connection to a ledger, for `with` in ordinary code and `async with` in coroutines.

    Args:
        ledger: the ledger's path; by default that of the environment (ORCHESTRATOR_DB), the settings, or this user.
        config: the settings file; by default that of the environment (ORCHESTRATOR_CONFIG), or this user's.

    """
    return Connection(ledger, config=config)


def run(
    job: Job | Path,
    *,
    limit: int | None = None,
    reuse: Sequence[str] = (),
    retry: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    ledger: str | Path | None = None,
    config: Path | None = None,
) -> Result:
    """Run a job to completion and deliver; after any interruption, the same call continues.

    In the main thread, Ctrl-C stops the run as it stops the command, and a second one cuts it short;
    `KeyboardInterrupt` is raised once its endpoints are paused. Also works in other threads, and where an event loop
    runs already.

    Args:
        job: the job, or the path of a job file.
        limit: only the first rows of the source.
        reuse: names of other jobs whose answers are reused.
        retry: ask again what the job's latest run has discarded.
        overwrite: replace existing files even if this job has not written them.
        progress: show progress in a notebook, or in a terminal; elsewhere, nothing is shown.
        ledger: the ledger's path, as in `connect`.
        config: the settings file, as in `connect`.

    Raises:
        OrchestratorError: the named failures of `orchestrator.errors`; their text is one line with the remedy.

    """
    with connect(ledger, config=config) as app:
        return app.run(job, limit=limit, reuse=reuse, retry=retry, overwrite=overwrite, progress=progress)


async def arun(
    job: Job | Path,
    *,
    limit: int | None = None,
    reuse: Sequence[str] = (),
    retry: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    ledger: str | Path | None = None,
    config: Path | None = None,
) -> Result:
    """Run a job as `run` does, in a coroutine.

    Cancelling it is a stop: answers in flight come in, endpoints are paused, and the cancellation is raised once that
    is confirmed. Cancelling again cuts short what is in flight. A later call continues.
    """
    async with connect(ledger, config=config) as app:
        return await app.run(job, limit=limit, reuse=reuse, retry=retry, overwrite=overwrite, progress=progress)
