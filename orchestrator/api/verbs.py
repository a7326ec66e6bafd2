"""Verbs: everything a script can do with a ledger. Each instance serves one call, in the connection's thread."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from anyio import to_thread

from orchestrator.api.result import Result, result_of
from orchestrator.app import explained, open_app
from orchestrator.domain.errors import UsageError
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.run_request import request_for, request_from
from orchestrator.engine.run.stoppable import stoppable
from orchestrator.job import Job
from orchestrator.report.cell import usual_display
from orchestrator.report.progress import shown
from orchestrator.store.database import ledger_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from anyio.streams.memory import MemoryObjectReceiveStream

    from orchestrator.app import App
    from orchestrator.config import Settings
    from orchestrator.domain.report import Report
    from orchestrator.domain.run import Counts, Run
    from orchestrator.engine.awake.sweep import Swept
    from orchestrator.engine.daemon.submit import Submitted
    from orchestrator.engine.run.plan import Forecast
    from orchestrator.engine.run.run_request import RunRequest
    from orchestrator.engine.status import RunStatus
    from orchestrator.engine.stop import Stop

T = TypeVar("T")
_LOG = logging.getLogger("orchestrator")  # messages for the user, as that another process keeps the ledger locked


class Verbs:
    """One call. `requests`: each one asks it to stop, the second to cut it short.

    The ledger is opened for each call, as for each command: between calls, nothing is held open.
    """

    def __init__(self, settings: Settings, requests: MemoryObjectReceiveStream[None]) -> None:
        self._settings = settings
        self._requests = requests

    # -- executing -----------------------------------------------------------------------------------------------------

    async def run(
        self,
        job: Job | Path,
        *,
        limit: int | None = None,
        reuse: Sequence[str] = (),
        overwrite: bool = False,
        progress: bool = True,
    ) -> Result:
        """Run a job to completion and deliver; after any interruption, the same call continues.

        Args:
            job: the job, or the path of a job file.
            limit: only the first rows of the source.
            reuse: names of other jobs whose answers are reused.
            overwrite: replace existing files even if this job has not written them.
            progress: show progress in a notebook, or in a terminal; elsewhere, nothing is shown.

        """
        request = await _request(job, limit, reuse, overwrite=overwrite)
        seen = Progress()
        async with self._opened(create=True) as app:
            try:
                async with shown(seen, usual_display() if progress else None):
                    work = partial(app.run, request, seen)
                    ran = await self._stoppable(app, work, seen, request.job.policy.grace)
            finally:
                for trouble in seen.troubles:
                    _LOG.warning("%s", trouble)
            return await result_of(app, str(ran.run.id), ran.manifest)

    async def submit(
        self, job: Job | Path, *, limit: int | None = None, reuse: Sequence[str] = (), overwrite: bool = False
    ) -> Submitted:
        """Queue a run, which a daemon (`orchestrator serve`) executes."""
        request = await _request(job, limit, reuse, overwrite=overwrite)
        return await self._do(lambda app: app.submit(request), create=True)

    async def plan(
        self, job: Job | Path, *, limit: int | None = None, reuse: Sequence[str] = (), overwrite: bool = False
    ) -> Forecast:
        """Return what a run would do now. Calls no endpoint."""
        request = await _request(job, limit, reuse, overwrite=overwrite)
        return await self._do(lambda app: app.plan(request), create=True)

    async def stop(self, run: str | int) -> Run:
        """Cancel a run, whichever process executes it. Completed items are kept."""
        found, _ = await self._do(lambda app: app.stop(str(run)))
        return found

    async def sweep(self) -> list[Swept]:
        """Pause endpoints that dead processes left awake and that are not in use."""
        return await self._do(lambda app: app.sweep())

    # -- looking -------------------------------------------------------------------------------------------------------

    async def runs(self, limit: int = 20) -> list[tuple[Run, Counts]]:
        """Return the latest runs with their counts, newest first."""
        return await self._do(lambda app: app.runs(limit))

    async def result(self, run: str | int) -> Result:
        """Return the result of a run, finished or not: given by its number, or by its job's name for the latest."""
        return await self._do(lambda app: result_of(app, str(run)))

    async def status(self, run: str | int | None = None) -> RunStatus:
        """Return the status of a run; None is the latest of all."""
        return await self._do(lambda app: app.status(None if run is None else str(run)))

    async def report(self, run: str | int | None = None, *, since: float = 0.0) -> Report:
        """Return the report on a run, or without one, on everything since a moment (seconds since 1970 UTC)."""
        return await self._do(lambda app: app.report(None if run is None else str(run), since=since))

    # -- how -----------------------------------------------------------------------------------------------------------

    async def _do(self, action: Callable[[App], Awaitable[T]], *, create: bool = False) -> T:
        """Do what takes no stop of its own: a request cancels it."""
        async with self._opened(create=create) as app:
            return await self._stoppable(app, lambda _stop: action(app), Progress(), 0.0)

    async def _stoppable(self, app: App, work: Callable[[Stop], Awaitable[T]], progress: Progress, grace: float) -> T:
        return await stoppable(self._requests, work, progress, app.store.database.busy_timeout, grace)

    @asynccontextmanager
    async def _opened(self, *, create: bool) -> AsyncIterator[App]:
        try:
            async with open_app(self._settings, create=create, say=_LOG.warning) as app:
                yield app
        except Exception as error:
            expected = await to_thread.run_sync(explained, error, ledger_path(self._settings.ledger))
            if expected is None or expected is error:
                raise
            raise expected from error


async def _request(job: Job | Path, limit: int | None, reuse: Sequence[str], *, overwrite: bool) -> RunRequest:
    if isinstance(job, Job):
        make = partial(request_for, job, limit=limit, overwrite=overwrite, reuse=reuse)
    elif isinstance(job, Path):
        make = partial(request_from, job, limit=limit, overwrite=overwrite, reuse=reuse)
    else:
        raise UsageError(f"{job!r} is neither a Job nor the Path of a job file")
    return await to_thread.run_sync(make)
