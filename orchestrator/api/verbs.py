"""Verbs: everything a script can do with a ledger. Each instance serves one call, in the connection's thread."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from anyio import to_thread

from orchestrator.api.result import Result, result_of
from orchestrator.api.run_summary import StatusSummary, SubmittedRun, summary_of
from orchestrator.app import explained, open_app
from orchestrator.domain.errors import UsageError
from orchestrator.domain.load import Arrivals, Objective, load_of
from orchestrator.domain.policy import Policy
from orchestrator.engine.daemon.submit import Queueing
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.run_request import request_for, request_from, request_of
from orchestrator.engine.run.stoppable import stoppable
from orchestrator.job import Job
from orchestrator.report.cell import usual_display
from orchestrator.report.progress import shown
from orchestrator.store.database import ledger_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from datetime import datetime

    from anyio.streams.memory import MemoryObjectReceiveStream

    from orchestrator.api.run_summary import RunSummary
    from orchestrator.app import App
    from orchestrator.config import Settings
    from orchestrator.domain.load_figures import LoadTest
    from orchestrator.domain.report import Report
    from orchestrator.domain.run import Counts, Run
    from orchestrator.engine.awake.sweep import Swept
    from orchestrator.engine.run.plan import Forecast
    from orchestrator.engine.run.run_request import RunRequest
    from orchestrator.engine.stop import Stop
    from orchestrator.ports import EventListener

T = TypeVar("T")
_LOG = logging.getLogger("orchestrator")  # messages for the user, as that another process keeps the ledger locked


class Verbs:
    """One call. `requests`: each one asks it to stop, the second to cut it short. `worded`: words messages for Python.

    The ledger is opened for each call, as for each command: between calls, nothing is held open.
    """

    def __init__(
        self, settings: Settings, requests: MemoryObjectReceiveStream[None], worded: Callable[[str], str]
    ) -> None:
        self._settings = settings
        self._requests = requests
        self._worded = worded

    # -- executing -----------------------------------------------------------------------------------------------------

    async def run(
        self,
        job: Job | str | Path,
        *,
        limit: int | None = None,
        reuse: Sequence[str] = (),
        retry: bool = False,
        overwrite: bool = False,
        canary: int | None = None,
        progress: bool = True,
    ) -> Result:
        """Run a job to completion and deliver; after any interruption, the same call continues.

        Args:
            job: the job, or the path of a job file.
            limit: only the first rows of the source.
            reuse: names of other jobs whose answers are reused.
            retry: ask again what the job's latest run has discarded.
            overwrite: replace existing files even if this job has not written them.
            canary: ask so many items first, and stop there if the rest would cost more than the policy's `max_cost`.
            progress: show progress in a notebook, or in a terminal; elsewhere, nothing is shown.

        """
        request = replace(await _request(job, limit, reuse, overwrite=overwrite), canary=_canary(canary))
        async with self._opened(create=True) as app:
            if retry and await app.store.runs.latest(request.job.name) is not None:
                request = replace(request, retry=(await app.retried(request.job.name))[0].id)
            return await self._run(app, request, progress=progress)

    async def retry(self, run: str | int, *, overwrite: bool = False, progress: bool = True) -> Result:
        """Ask a run's discarded items again. They run, and are delivered, in the job's latest run without a limit.

        Its job comes from its job file or the ledger; `run(job, retry=True)` is for a job that only this program has.
        """
        async with self._opened(create=False) as app:
            found, by, _ = await app.retried(str(run))
            request = await to_thread.run_sync(partial(_request_of, by, overwrite=overwrite))
            return await self._run(app, replace(request, retry=found.id), progress=progress)

    async def listened(
        self,
        listener: EventListener,
        job: Job | str | Path,
        limit: int | None,
        reuse: Sequence[str],
        *,
        overwrite: bool,
    ) -> Result:
        """Run a job as `run` does, and pass its events to a listener."""
        request = await _request(job, limit, reuse, overwrite=overwrite)
        async with self._opened(create=True) as app:
            return await self._run(app, request, [listener], progress=False)

    async def submit(  # noqa: PLR0913 - the options of the command
        self,
        job: Job | str | Path,
        *,
        limit: int | None = None,
        reuse: Sequence[str] = (),
        overwrite: bool = False,
        at: datetime | None = None,
        deadline: datetime | None = None,
        priority: int = 0,
        after: Sequence[str | int] = (),
        after_end: Sequence[str | int] = (),
        key: str | None = None,
    ) -> SubmittedRun:
        """Queue a run, which a daemon (`orchestrator serve`) executes. It must find the job's functions in files.

        Args:
            job: the job, or the path of a job file.
            limit: only the first rows of the source.
            reuse: names of other jobs whose answers are reused.
            overwrite: replace existing files even if this job has not written them.
            at: the earliest start; by default now.
            deadline: when the answers are needed; more urgent runs go first.
            priority: runs with a higher priority go first.
            after: runs, or jobs for their latest ones, that must have succeeded before.
            after_end: the same for any end.
            key: submitting again with the same key queues no second run, unless the first has failed.

        """
        request = await _request(job, limit, reuse, overwrite=overwrite)
        _refuse_text(after=after, after_end=after_end)
        waits_for = [*((str(run), False) for run in after), *((str(run), True) for run in after_end)]
        due_at, needed_at = (None if moment is None else moment.timestamp() for moment in (at, deadline))
        queueing = Queueing(due_at, needed_at, priority, waits_for, key, (due_at, needed_at, priority, waits_for))

        async def queued(app: App) -> SubmittedRun:
            found = await app.submit(request, queueing)
            counts = await app.store.views.counts(found.run.id, found.run.total)
            return SubmittedRun(self._summary(found.run, counts), found.new, found.served)

        return await self._do(queued, create=True)

    async def plan(
        self,
        job: Job | str | Path,
        *,
        limit: int | None = None,
        reuse: Sequence[str] = (),
        overwrite: bool = False,
        canary: int | None = None,
        progress: bool = True,
    ) -> Forecast:
        """Return what a run would do now, and what that would take and cost. Calls no endpoint without a canary.

        Args:
            job: the job, or the path of a job file.
            limit: only the first rows of the source.
            reuse: names of other jobs whose answers are reused.
            overwrite: replace existing files even if this job has not written them.
            canary: first ask so many items, spread over the lengths of requests. The endpoint is woken, asked and
                paused as by a run, and the answers are kept.
            progress: show the progress of the canary, as `run` does.

        """
        request = await _request(job, limit, reuse, overwrite=overwrite)
        if (items := _canary(canary)) is None:
            found = await self._do(lambda app: app.plan(request), lend=True)
        else:
            async with self._opened(create=True) as app:
                work = partial(app.canary, request, items)
                found = await self._shown(app, work, request.job, progress=progress)
        return replace(found, hints=[self._worded(hint) for hint in found.hints])

    async def bench(  # noqa: PLR0913 - the options of the command
        self,
        endpoint: str | Job,
        *,
        seconds: float = 100.0,
        rate: float | None = None,
        concurrency: int | None = None,
        sweep: bool = False,
        items: Job | str | Path | None = None,
        slo: Sequence[str] = (),
        max_cost: float | None = None,
        remember: bool = False,
        stream: bool = False,
        token_env: str | None = None,
    ) -> LoadTest:
        """Load an endpoint for a while, and measure latency, throughput and cost. It is woken and paused as by a run.

        Args:
            endpoint: a name from config.toml, of a Hugging Face endpoint or of one of the job's, a server's URL, or a
                job with one endpoint, whose requests are then sent.
            seconds: for how long requests are sent.
            rate: open loop: so many arrivals a second, whatever comes back.
            concurrency: closed loop: so many requests in flight; 1 by default.
            sweep: closed loops of 1, 2, 4 ... requests in flight, to find how many are best.
            items: a job, or the path of a job file, whose requests are sent, with its policy.
            slo: objectives such as "p95=2s", from arrival to answer.
            max_cost: end once it has cost so many dollars.
            remember: with `sweep`, let runs begin with the best number of requests in flight.
            stream: ask for answers in parts, and measure the time until the first text.
            token_env: for a URL, the environment variable with the bearer token.

        """
        from orchestrator.app.endpoints.bench import Bench
        from orchestrator.engine.bench.load_test import LoadProgress

        _refuse_text(slo=slo)
        source = endpoint if isinstance(endpoint, Job) else items
        job = None if source is None else (await _request(source, None, (), overwrite=False)).job
        if not seconds > 0:
            raise UsageError(f"seconds must be above 0, not {seconds}")
        try:
            load = load_of(rate, Arrivals.POISSON, concurrency, sweep=sweep)
            objectives = [Objective.read(text) for text in slo]
        except ValueError as error:
            raise UsageError(str(error)) from error
        name = _only_endpoint(endpoint) if isinstance(endpoint, Job) else endpoint
        asked = Bench(name, load, seconds, None, token_env, job, objectives, max_cost, remember, stream)
        policy = Policy() if job is None else job.policy
        async with self._opened(create=True) as app:
            seen = Progress()
            try:
                return await self._stoppable(
                    app, lambda stop: app.bench(asked, seen, stop, LoadProgress()), seen, policy.grace
                )
            finally:
                self._warn_of(seen)

    async def stop(self, run: str | int) -> RunSummary:
        """Cancel a run, whichever process executes it. Completed items are kept."""

        async def stopped(app: App) -> RunSummary:
            before, _ = await app.stop(str(run))
            found = await app.find(str(before.id))
            return self._summary(found, await app.store.views.counts(found.id, found.total))

        return await self._do(stopped)

    async def sweep(self) -> list[Swept]:
        """Pause endpoints that dead processes left awake and that are not in use."""
        return await self._do(lambda app: app.sweep())

    # -- looking -------------------------------------------------------------------------------------------------------

    async def runs(self, limit: int = 20) -> list[RunSummary]:
        """Return the latest runs, newest first."""
        if type(limit) is not int or limit < 1:
            raise UsageError(f"runs({limit!r}): give how many; result(JOB) has the latest run of a job")
        return [self._summary(run, counts) for run, counts in await self._do(lambda app: app.runs(limit))]

    async def result(self, run: str | int) -> Result:
        """Return the result of a run, finished or not: given by its number, or by its job's name for the latest."""
        return await self._do(lambda app: result_of(app, str(run)))

    async def status(self, run: str | int | None = None) -> StatusSummary:
        """Return the status of a run; None is the latest of all."""
        found = await self._do(lambda app: app.status(None if run is None else str(run)))
        return StatusSummary(
            self._summary(found.run, found.counts),
            found.tokens,
            found.causes,
            found.noted,
            found.traffic,
            found.asks,
            None if found.waits is None else self._worded(found.waits),
            found.cost_left,
            found.workers,
        )

    async def report(self, run: str | int | None = None, *, since: float = 0.0) -> Report:
        """Return the report on a run, or without one, on everything since a moment (seconds since 1970 UTC)."""
        return await self._do(lambda app: app.report(None if run is None else str(run), since=since))

    # -- how -----------------------------------------------------------------------------------------------------------

    async def _do(self, action: Callable[[App], Awaitable[T]], *, create: bool = False, lend: bool = False) -> T:
        """Do what takes no stop of its own: a request cancels it."""
        async with self._opened(create=create, lend=lend) as app:
            return await self._stoppable(app, lambda _stop: action(app), Progress(), 0.0)

    async def _run(
        self, app: App, request: RunRequest, listeners: Sequence[EventListener] = (), *, progress: bool
    ) -> Result:
        work = partial(app.run, request, listeners=listeners)
        ran = await self._shown(app, work, request.job, progress=progress)
        return await result_of(app, str(ran.run.id), ran.manifest)

    async def _shown(self, app: App, work: Callable[[Progress, Stop], Awaitable[T]], job: Job, *, progress: bool) -> T:
        """Do what asks endpoints, and show its progress."""
        seen = Progress()
        try:
            async with shown(seen, usual_display() if progress else None):
                return await self._stoppable(app, lambda stop: work(seen, stop), seen, job.policy.grace)
        finally:
            self._warn_of(seen)

    def _warn_of(self, seen: Progress) -> None:
        for trouble in seen.troubles:
            self._warn(trouble)

    async def _stoppable(self, app: App, work: Callable[[Stop], Awaitable[T]], progress: Progress, grace: float) -> T:
        return await stoppable(self._requests, work, progress, app.store.database.busy_timeout, grace)

    def _summary(self, run: Run, counts: Counts) -> RunSummary:
        return summary_of(replace(run, error=None if run.error is None else self._worded(run.error)), counts)

    def _warn(self, message: str) -> None:
        _LOG.warning("%s", self._worded(message))

    @asynccontextmanager
    async def _opened(self, *, create: bool, lend: bool = False) -> AsyncIterator[App]:
        try:
            async with open_app(self._settings, create=create, lend=lend, say=self._warn) as app:
                yield app
        except Exception as error:
            expected = await to_thread.run_sync(explained, error, ledger_path(self._settings.ledger))
            if expected is None or expected is error:
                raise
            raise expected from error


def _request_of(run: Run, *, overwrite: bool) -> RunRequest:
    """Return the request to execute a run of the ledger again. A program's current folder is not ours to change."""
    folder = run.spec.about.get("folder")
    if folder is not None and Path(str(folder)) != Path.cwd():
        raise UsageError(f"the paths of run {run.id} of {run.job} count from {folder}: os.chdir there first")
    return request_of(run, overwrite=overwrite)


async def _request(job: Job | str | Path, limit: int | None, reuse: Sequence[str], *, overwrite: bool) -> RunRequest:
    _refuse_text(reuse=reuse)
    if limit is not None and limit < 1:
        raise UsageError(f"limit must be at least 1, not {limit}")
    if isinstance(job, Job):
        make = partial(request_for, job, limit=limit, overwrite=overwrite, reuse=reuse)
    elif isinstance(job, str | Path):
        make = partial(request_from, Path(job), limit=limit, overwrite=overwrite, reuse=reuse)
    else:
        raise UsageError(f"{job!r} is neither a Job nor the path of a job file")
    return await to_thread.run_sync(make)


def _canary(items: int | None) -> int | None:
    if items is not None and items < 1:
        raise UsageError(f"canary must be at least 1, not {items}")
    return items


def _only_endpoint(job: Job) -> str:
    names = [one.endpoint.name for one in job.endpoints]
    if len(names) != 1:
        raise UsageError(f"job {job.name!r} has the endpoints {', '.join(names)}: bench(NAME, items=job) tests one")
    return names[0]


def _refuse_text(**options: Sequence[str | int]) -> None:
    """Raise `UsageError` if one name is given in place of a list, because each of its letters would be a name."""
    for option, names in options.items():
        if isinstance(names, str):
            raise UsageError(f"{option}={names!r} is one text: give a list")
