"""Connection: from a ledger and settings to an application for scripts; `run` and `arun` for one job."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.api.apps import AsyncApp, BlockingApp, Connected
    from orchestrator.api.result import Result
    from orchestrator.job import Job

# The application is imported once it is opened, so that importing `run` imports no library.


class Connection:
    """A ledger and its settings. `with` gives a `BlockingApp`, `async with` an `AsyncApp`.

    When the block ends, runs that still work are asked to stop, and it waits until they have ended.
    """

    def __init__(self, ledger: str | Path | None = None, *, config: str | Path | None = None) -> None:
        self._ledger = None if ledger is None else str(ledger)
        self._config = None if config is None else Path(config)
        self._opened: list[Connected] = []

    def _open(self) -> Connected:
        from orchestrator.api.apps import Connected
        from orchestrator.config import load_settings

        settings = load_settings(self._config, self._ledger)
        ledger = [] if self._ledger is None else ["--db", self._ledger]
        self._opened.append(Connected(settings, [*ledger, *settings.options]))
        return self._opened[-1]

    def __enter__(self) -> BlockingApp:
        from orchestrator.api.apps import BlockingApp

        return BlockingApp(self._open())

    def __exit__(self, *_: object) -> None:
        self._opened.pop().close()

    async def __aenter__(self) -> AsyncApp:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            from orchestrator.domain.errors import UsageError

            raise UsageError(
                "`arun` and `async with connect()` need asyncio; under trio, call `run` in a thread"
            ) from None
        return await asyncio.to_thread(self._open_for_coroutines)

    def _open_for_coroutines(self) -> AsyncApp:
        from orchestrator.api.apps import AsyncApp

        return AsyncApp(self._open())

    async def __aexit__(self, *_: object) -> None:
        await self._opened.pop().leave()

    if not TYPE_CHECKING:  # with `__getattr__`, a type checker would accept any name

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(f"a connection has no {name!r}: open it with `with connect() as app`, then use `app`")


def connect(ledger: str | Path | None = None, *, config: str | Path | None = None) -> Connection:
    """Return a connection to a ledger, for `with` in ordinary code and `async with` in coroutines.

    Args:
        ledger: the ledger's path; by default that of the environment (ORCHESTRATOR_DB), the settings, or this user.
        config: the settings file; by default that of the environment (ORCHESTRATOR_CONFIG), or this user's.

    """
    return Connection(ledger, config=config)


def run(
    job: Job | str | Path,
    *,
    limit: int | None = None,
    reuse: Sequence[str] = (),
    retry: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    ledger: str | Path | None = None,
    config: str | Path | None = None,
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
    __tracebackhide__ = True
    with connect(ledger, config=config) as app:
        return app.run(job, limit=limit, reuse=reuse, retry=retry, overwrite=overwrite, progress=progress)


async def arun(
    job: Job | str | Path,
    *,
    limit: int | None = None,
    reuse: Sequence[str] = (),
    retry: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    ledger: str | Path | None = None,
    config: str | Path | None = None,
) -> Result:
    """Run a job as `run` does, in a coroutine.

    Cancelling it is a stop: answers in flight come in, endpoints are paused, and the cancellation is raised once that
    is confirmed. Cancelling again cuts short what is in flight. A later call continues.
    """
    __tracebackhide__ = True
    async with connect(ledger, config=config) as app:
        return await app.run(job, limit=limit, reuse=reuse, retry=retry, overwrite=overwrite, progress=progress)
