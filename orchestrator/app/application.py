"""`App`: what front ends can do with one ledger, and `open_app`, which opens it.

Each method imports what it needs, because most processes call one: listing runs must not import what a run needs.
"""

from __future__ import annotations

import time
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from orchestrator.domain.errors import CanaryEnded, OrchestratorError, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

    from orchestrator.app.endpoints.bench import Bench
    from orchestrator.app.latest_settings import LatestSettings
    from orchestrator.app.request_file import RequestFile
    from orchestrator.config import Settings
    from orchestrator.domain.batch_dialects import Dialect
    from orchestrator.domain.item import ItemResult, ItemState
    from orchestrator.domain.load_figures import LoadTest
    from orchestrator.domain.queue import Claim, Queued
    from orchestrator.domain.report import Report
    from orchestrator.domain.run import Counts, Run, RunState
    from orchestrator.domain.timetable import Schedule
    from orchestrator.engine.awake.awake import Awake
    from orchestrator.engine.awake.by_hand import Paused, Resumed
    from orchestrator.engine.awake.sweep import Swept
    from orchestrator.engine.awakenings import Awakenings
    from orchestrator.engine.bench.load_test import LoadProgress
    from orchestrator.engine.current import Current
    from orchestrator.engine.daemon.retry import QueuedRetry
    from orchestrator.engine.daemon.submit import Queueing, Submitted
    from orchestrator.engine.daemon.submit_file import FileSubmission
    from orchestrator.engine.overview import CausesOf, LiveRun, Overview
    from orchestrator.engine.progress import Progress
    from orchestrator.engine.run.execution import Safety
    from orchestrator.engine.run.plan import Forecast
    from orchestrator.engine.run.run_request import RunRequest
    from orchestrator.engine.run.run_result import RunResult
    from orchestrator.engine.status import RunStatus
    from orchestrator.engine.stop import Stop
    from orchestrator.job import Job
    from orchestrator.ports import Endpoint, EventListener
    from orchestrator.run_log import LogLine
    from orchestrator.store import Store
    from orchestrator.store.views import ItemView

_RETAINING = 10.0  # seconds for deleting old runs after a run; the next run continues


def do_nothing(*_: object) -> None:
    """Ignore all arguments: the default callback."""


@asynccontextmanager
async def open_app(
    settings: Settings, *, create: bool = True, lend: bool = False, say: Callable[[str], None] = do_nothing
) -> AsyncIterator[App]:
    """Open the ledger that the settings name, and yield the application that works on it.

    If there is no ledger, it is created; without `create`, raises `UsageError`; with `lend`, an empty and temporary one
    is used, for what also makes sense without earlier runs. `say` gets messages for the user: that
    another process keeps the ledger locked, or that a hook could not be notified of an earlier run's end.
    """
    from orchestrator.endpoints.http_client import choose_client
    from orchestrator.store import Store
    from orchestrator.store.database import ledger_path
    from orchestrator.store.private import is_there

    ledger = await to_thread.run_sync(ledger_path, settings.ledger)
    lend = lend and not await to_thread.run_sync(is_there, ledger)
    logs: list[EventListener] = []

    def say_busy(line: str) -> None:
        from orchestrator.domain.events import LedgerBusy

        say(line)
        for log in logs:
            log.emit(LedgerBusy(line))

    async with _temporary() if lend else nullcontext(ledger.parent) as folder:
        ledger, create = folder / ledger.name, create or lend
        async with Store.open(str(ledger), busy_seconds=settings.busy_seconds, create=create, say=say_busy) as store:
            choose_client(settings.http_client)
            yield App(store, settings, say, logs)


@asynccontextmanager
async def _temporary() -> AsyncIterator[Path]:
    """Yield a folder that is removed when the block ends."""
    folder = await to_thread.run_sync(partial(TemporaryDirectory[str], prefix="orchestrator-"))
    try:
        yield Path(folder.name)
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(folder.cleanup)


class App:
    """All operations on one ledger but those on files and batches, which are in `orchestrator.engine.batches`.

    `store` is that ledger; `settings` are those it was opened with.

    A run is named by its number, or by its job's name for its latest run. Raises `UsageError` if there is none.
    """

    def __init__(self, store: Store, settings: Settings, say: Callable[[str], None], logs: list[EventListener]) -> None:
        self.store = store
        self.settings = settings
        self._say = say
        self._logs = logs  # logs of the runs that are being executed

    @cached_property
    def latest_settings(self) -> LatestSettings:
        """The settings as their file has them now."""
        from orchestrator.app.latest_settings import LatestSettings

        return LatestSettings(self.settings, self._say)

    @cached_property
    def _safety(self) -> Safety:
        from orchestrator.app.wiring import safety_of

        return safety_of(self.settings, self.store.database.path)

    # -- executing -----------------------------------------------------------------------------------------------------

    async def run(
        self,
        request: RunRequest,
        progress: Progress | None = None,
        stop: Stop | None = None,
        listeners: Sequence[EventListener] = (),
    ) -> RunResult:
        """Run a job to completion and deliver. After any interruption, the same request continues.

        Every endpoint that it wakes has a guard, which pauses it if this process dies. `stop`: once requested, requests
        in flight are finished and `RunStopped` is raised. A request with a claim is a run from the queue.
        `listeners` receive the events, as `progress` does.
        """
        from orchestrator.app.lost_debts import adopt_lost_debts
        from orchestrator.app.wiring import failure_hooks
        from orchestrator.engine.awake.reaper import reap
        from orchestrator.engine.daemon.owed_notifications import send_owed_notifications
        from orchestrator.engine.progress import Progress
        from orchestrator.engine.run.run_job import run_job
        from orchestrator.engine.stop import Stop
        from orchestrator.run_log import logged
        from orchestrator.store.prune import retain_daily

        await adopt_lost_debts(self.store)
        if request.claim is None:  # otherwise the daemon does both
            await reap(self.store)
            await send_owed_notifications(self.store, self._say, self.settings.options, but=request.job.name)
        elif not request.job.failure_hooks and (hooks := failure_hooks(self.settings)):
            request = replace(request, job=replace(request.job, on_failure=hooks))
        progress, stop = progress or Progress(), stop or Stop()
        async with logged(self.store.database.real_path, self._say) as log:
            self._logs.append(log)
            try:
                result = await run_job(request, self.store, progress, stop, self._safety, [*listeners, log])
            finally:
                self._logs.remove(log)
        # the run has ended, and neither a signal nor a failure here may change its result
        with anyio.CancelScope(shield=True), suppress(OrchestratorError):
            await retain_daily(self.store, self.settings.retention.seconds, time.time(), _RETAINING)
        return result

    async def serve(
        self,
        stop: Stop,
        *,
        runs: int | None = None,
        ready: Callable[[], None] = do_nothing,
        alive: Callable[[], None] = do_nothing,
    ) -> None:
        """Execute queued runs, fire schedules and pay debts until asked to stop. Each run has its own process.

        `runs`: how many at once; by default as many as in the settings. `ready` is called once, after the settings have
        been checked; `alive` is called now and then, as long as the daemon works.
        """
        from orchestrator.app.duties import duties_of
        from orchestrator.app.lost_debts import adopt_lost_debts
        from orchestrator.app.wiring import failure_hooks
        from orchestrator.endpoints import endpoint_from
        from orchestrator.endpoints.named import check_models
        from orchestrator.engine.daemon.child import executed
        from orchestrator.engine.daemon.serve import Service, serve

        failure_hooks(self.settings)
        await to_thread.run_sync(check_models, self.settings.endpoints)
        ledger = self.store.database.real_path
        service = Service(
            execute=partial(executed, ledger, self.settings.options, self._say),
            revive=endpoint_from,
            say=self._say,
            alive=alive,
            runs=runs or self.settings.serve.runs,
            duties=duties_of(self.store, self.settings, self.latest_settings, self._say),
        )
        ready()
        await adopt_lost_debts(self.store)
        await serve(self.store, service, stop)

    @asynccontextmanager
    async def awake(self, endpoint: Endpoint, progress: Progress, job: str) -> AsyncIterator[Awake]:
        """Provide an endpoint as in a run, with its debt in the ledger and a guard. Its cost counts for `job`.

        It is woken on first use. However the block ends, the endpoint is left as after a run.
        """
        from orchestrator.domain.events import SessionBegan, SessionEnded
        from orchestrator.engine.awake.awake import awake
        from orchestrator.engine.awake.reaper import kept_alive, registered
        from orchestrator.engine.awake.tenant import Tenant

        async with registered(self.store) as process_id, kept_alive(self.store, process_id):
            progress.emit(SessionBegan(endpoint.name))
            async with awake(endpoint, Tenant(self.store, process_id, progress, self._safety.guard, None, job)) as lent:
                yield lent
            progress.emit(SessionEnded(endpoint.name, lent.proof))

    async def endpoint(self, name: str, namespace: str | None = None) -> Endpoint:
        """Return the endpoint with this name in config.toml, the server at this URL, or else the Hugging Face endpoint.

        Raises `UsageError` if it cannot be managed by name. See `orchestrator.app.endpoints` for what can be done.
        """
        from orchestrator.app.endpoints.lookup import find_endpoint

        return await find_endpoint(name, namespace, self.settings.endpoints, self.store)

    async def resume(self, endpoint: Endpoint, *, seconds: float | None = None, wait: bool = False) -> Resumed:
        """Wake an endpoint for the user until it is paused, or for `seconds`. With `wait`, return once it answers.

        The ledger records who keeps it awake. It stays awake after this process ends, and has no guard.
        """
        from orchestrator.engine.awake import by_hand

        return await by_hand.resume(endpoint, self.store, self._say, seconds=seconds, wait=wait)

    async def pause(self, endpoint: Endpoint, *, wait: bool = True, force: bool = False) -> Paused:
        """Pause an endpoint for the user. `wait`: confirm that it is paused. `force`: even while a run uses it."""
        from orchestrator.engine.awake import by_hand

        return await by_hand.pause(endpoint, self.store, wait=wait, force=force)

    async def bench(self, asked: Bench, progress: Progress, stop: Stop, shown: LoadProgress) -> LoadTest:
        """Offer an endpoint a load and measure how it answers. It is woken, guarded, capped and paused as in a run.

        Once `stop` is requested, nothing more is sent, and what was measured is returned. `shown` follows it.
        """
        from orchestrator.app.endpoints.bench import bench

        return await bench(asked, self.store, self.settings, self._safety, progress, stop, shown)

    # -- asking for runs -----------------------------------------------------------------------------------------------

    async def plan(self, request: RunRequest) -> Forecast:
        """Return what a run would do now. Calls no endpoint and writes nothing."""
        from orchestrator.engine.run.plan import forecast

        return await forecast(request, self.store)

    async def canary(
        self,
        request: RunRequest,
        items: int,
        progress: Progress | None = None,
        stop: Stop | None = None,
        listeners: Sequence[EventListener] = (),
    ) -> Forecast:
        """Ask so many items of the run, spread over the lengths of their requests, and return what is left to do.

        Wakes, is guarded, pays and pauses as `run` does. The run is stopped then, and continues as any other.
        """
        with suppress(CanaryEnded):
            await self.run(replace(request, canary=items, only_canary=True), progress, stop, listeners)
        return await self.plan(request)

    async def write_requests(
        self, request: RunRequest, path: Path, dialect: Dialect, *, overwrite: bool = False
    ) -> RequestFile:
        """Write what a run would ask as a file for a batch service. Calls no endpoint."""
        from orchestrator.app.request_file import write_requests

        return await write_requests(request, self.store, path, dialect, overwrite=overwrite)

    async def submit(self, request: RunRequest, queueing: Queueing | None = None) -> Submitted:
        """Queue a run, which a daemon (`serve`) executes."""
        from orchestrator.engine.daemon.submit import Queueing, submit

        return await submit(request, queueing or Queueing(), self.store)

    async def submit_file(self, asked: FileSubmission) -> Mapping[str, object]:
        """Queue a run of a job file in a folder of `[serve] jobs`; return what `submit --json` prints."""
        from orchestrator.engine.daemon.submit_file import submit_file

        return await submit_file(asked, self.settings.serve.jobs, self.store.database.path, self.settings.options)

    async def find(self, run: str | None) -> Run:
        """Return a run; None is the latest of all."""
        return await self.store.runs.find(run)

    async def retried(self, run: str, like: str | None = None) -> tuple[Run, Run, int]:
        """Return a run, the run in which its discarded items are asked again, and the number of these items.

        To ask them, run the second's request with `retry` set to the first. With `like`, only the items that failed for
        the same cause as the item with that id. Raises `Busy` while the job is executed, and `UsageError` if the run is
        queued and has not begun.
        """
        from orchestrator.engine.awake.reaper import reap

        await reap(self.store)
        found = await self.find(run)
        if found.due_at is not None and not found.spec.fingerprint:
            raise UsageError(
                f"run {found.id} of {found.job} is queued and has not begun, so it has no discarded items: "
                "`orchestrator serve` executes it, and `orchestrator runs` shows earlier runs to retry"
            )
        await self.store.runs.refuse_while_executed(found.job)
        return found, await self.store.runs.retried_by(found), await self.store.items.forgivable(found.id, like)

    async def queue_retry(self, run: str, *, like: str | None = None) -> QueuedRetry:
        """Queue the run in which a run's discarded items are asked again, for a daemon to execute.

        With `like`, only the items that failed for the same cause as the item with that id. Raises `Busy` while the
        job is executed, and `UsageError` if there is nothing to ask again.
        """
        from orchestrator.engine.daemon.retry import queue_retry

        return await queue_retry((await self.find(run)).id, self.store, like=like)

    async def fail_claim(self, claim: Claim, why: str) -> None:
        """Mark a claimed run that cannot be started as failed; its job's hooks are then owed a notification."""
        await self.store.queue.fail(claim, why, owed=True)

    # -- orders for runs -----------------------------------------------------------------------------------------------

    async def stop(self, run: str) -> tuple[Run, RunState]:
        """Cancel a run, whichever process executes it. Return it and its previous state. Completed items are kept."""
        found = await self.find(run)
        return found, await self.store.runs.cancel(found.id)

    async def order(self, run: str, **controls: int | None) -> Run:
        """Change the controls of a run, even while it is executed: `held`, `concurrency`."""
        if not controls or controls.keys() - {"held", "concurrency"}:
            raise UsageError(f"an order sets held or concurrency, not {', '.join(controls) or 'nothing'}")
        found = await self.find(run)
        if found.state.ended:
            raise UsageError(f"run {found.id} of {found.job} has ended: it is {found.state}")
        await self.store.runs.order(found.id, controls)
        return found

    async def prioritize(self, run: str, priority: int) -> Run:
        """Change the priority of a queued run."""
        found = await self.find(run)
        if found.due_at is None:
            raise UsageError(f"run {found.id} of {found.job} is not in the queue: it is {found.state}")
        await self.store.queue.prioritize(found.id, priority)
        return found

    async def turn_schedule(self, job: str, *, paused: bool) -> Schedule:
        """Pause a schedule, so that its slots pass, or resume it from now on; return it."""
        from orchestrator.engine.daemon import scheduling

        if paused:
            await self.store.schedules.pause(job)
        else:
            await self.store.schedules.resume(job, time.time())
        return await scheduling.find(job, self.store)

    # -- looking -------------------------------------------------------------------------------------------------------

    async def results(self, run: str) -> AsyncIterator[ItemResult]:
        """Yield the rows of a run in input order, settled or not. Needs the same memory for any number of rows."""
        from orchestrator.engine.results import results_of

        found = await self.find(run)
        async for result in results_of(found.id, self.store):
            yield result

    async def items(
        self,
        run: str,
        *,
        state: ItemState | None = None,
        noted: bool = False,
        like: str | None = None,
        after: int = -1,
        limit: int = 1000,
    ) -> list[ItemView]:
        """Return at most `limit` items of a run in input order, of those that follow a position.

        Only those in one state, those with a note, those that failed for the same cause as the item `like`, or all.
        """
        run_id, views = (await self.find(run)).id, self.store.views
        if like is not None:
            return await views.alike(run_id, like, after, limit)
        if state is None:
            return await views.page(run_id, after, noted=noted, limit=limit)
        found: list[ItemView] = []
        while len(found) < limit and (page := await views.in_state(run_id, state, after, limit)):
            found += [view for view in page if not noted or view.notes]
            after = page[-1].position
        return found[:limit]

    async def item(self, run: str, item_id: str) -> dict[str, object]:
        """Return one item with every attempt, its request, its answer, and what a rollout has asked for it."""
        of = await self.find(run)
        found = await self.store.views.item(of.id, item_id)
        if found is None:
            raise UsageError(f"run {of.id} of {of.job} has no item {item_id!r}; see `orchestrator items {of.id}`")
        return found | {"asks": await self.store.transcripts.of(of.id, item_id)}

    async def manifest(self, run: str) -> Mapping[str, object]:
        """Return what a delivery of the run would prove now. Nothing is delivered, so it names no files."""
        from orchestrator.engine.run.deliver import manifest_of

        return await manifest_of(await self.find(run), self.store)

    async def export(self, run: str, output: str | Path, *, overwrite: bool = False) -> Mapping[str, object]:
        """Write a run's current results to a file, even while it runs, and return the manifest."""
        from orchestrator.app.export import export

        return await export(await self.find(run), self.store, output, overwrite=overwrite)

    async def status(self, run: str | None = None) -> RunStatus:
        """Return the status of a run; None is the latest of all."""
        from orchestrator.endpoints.vitals_files import vitals_of
        from orchestrator.engine.status import status_of

        status = await status_of(run, self.store)
        living = await self.store.runs.living()
        process = next((process for process in living if process.id == status.run.holder), None)
        if process is None:
            return status
        return replace(status, workers=await to_thread.run_sync(vitals_of, process.pid, process.pid_started))

    async def runs(
        self, limit: int = 20, *, before: int | None = None, job: str | None = None, state: str | None = None
    ) -> list[tuple[Run, Counts]]:
        """Return the latest runs with their counts, newest first.

        `before`: the runs that follow this one in the list, which is how to page through it. `state`: only those in
        this state, in the words of `state_word`.
        """
        from orchestrator.engine.awake.reaper import reap

        await reap(self.store)  # so that a run whose process was killed is not shown as running
        newest = await self.store.runs.newest(limit, before=before, job=job, state=state)
        counts = await self.store.views.counts_of({run.id: run.total for run in newest})
        return [(run, counts[run.id]) for run in newest]

    async def current(self, also: Collection[int] = (), newest: int | None = None) -> Current:
        """Return what happens now: the runs being executed, the queue, and which endpoints are awake.

        Also the runs with these numbers, and those made after `newest`, so that a caller misses none of them.
        """
        from orchestrator.engine.current import current_in

        return await current_in(self.store, also, newest)

    async def queue(self) -> tuple[list[Queued], bool]:
        """Return the runs being executed, then those that wait, in their order, and whether a daemon is running."""
        from orchestrator.engine.awake.reaper import reap

        await reap(self.store)
        return await self.store.queue.listed(time.time()), await self.store.queue.served()

    async def awakenings(self, since: float) -> Awakenings:
        """Return when each endpoint was awake since a moment, in seconds since 1970 UTC, why, and how it was left."""
        from orchestrator.engine.awakenings import awakenings_since

        return await awakenings_since(self.store, since)

    async def overview(self, causes: CausesOf | None = None) -> Overview:
        """Return what is awake, executed, queued and in trouble now. `causes`: where those of failures are known."""
        from orchestrator.engine.overview import overview_of

        return await overview_of(self.store, causes or self.store.views.causes)

    async def watched(self, run: str, causes: CausesOf | None = None) -> tuple[LiveRun, float]:
        """Return a run as it is now, with less than its report has, and the moment in seconds since 1970 UTC."""
        from orchestrator.engine.overview import watched

        return await watched(self.store, (await self.find(run)).id, causes or self.store.views.causes)

    async def events(self, run: str, most: int) -> list[LogLine]:
        """Return the last lines of a run's event log, oldest first."""
        from orchestrator.run_log import event_log, last_lines

        return await to_thread.run_sync(
            last_lines, event_log(self.store.database.real_path, (await self.find(run)).id), most
        )

    async def report(self, run: str | None = None, *, since: float = 0.0) -> Report:
        """Return the report on a run, or without one, on everything since a moment (seconds since 1970 UTC)."""
        from orchestrator.engine.awake.reaper import reap
        from orchestrator.engine.report import report_of, report_since

        await reap(self.store)  # so that a run whose process was killed is not shown as running
        if run is None:
            return await report_since(self.store, since)
        return await report_of(self.store, (await self.find(run)).id)

    # -- debts ---------------------------------------------------------------------------------------------------------

    async def sweep(self, *, notify: bool = True) -> list[Swept]:
        """Pause endpoints that this ledger resumed, that dead processes left awake, and that are not in use.

        So are those that a ledger resumed which was in this one's place, and whose guard gave up. Then hooks are
        notified of runs whose own process could not, unless `notify` is false.
        """
        from orchestrator.app.lost_debts import adopt_lost_debts
        from orchestrator.endpoints import endpoint_from
        from orchestrator.engine.awake.reaper import registered
        from orchestrator.engine.awake.sweep import sweep

        await adopt_lost_debts(self.store)
        async with registered(self.store) as process_id:
            swept = await sweep(self.store, endpoint_from, process_id)
        if notify:
            await self.send_owed_notifications()
        return swept

    async def owed(self) -> list[Swept]:
        """Return what `sweep` would pause. Calls no provider."""
        from orchestrator.app.lost_debts import lost_debts
        from orchestrator.engine.awake.sweep import Swept, owed

        found = [Swept(debt.endpoint, debt.opened_at) for debt in await owed(self.store)]
        lost = await to_thread.run_sync(lost_debts, self.store.database.path)
        return found + [swept for swept in lost if swept.endpoint not in {one.endpoint for one in found}]

    async def send_owed_notifications(self) -> None:
        """Notify the hooks of runs whose own process could not."""
        from orchestrator.engine.daemon.owed_notifications import send_owed_notifications

        await send_owed_notifications(self.store, self._say, self.settings.options)

    async def notify(self, run: int, job: Job | None) -> list[str]:
        """Notify the hooks of a run's job how it ended, if that is owed, and return the errors.

        The hooks of the settings are notified of a failure if the job has none, or is not known.
        """
        from orchestrator.app.wiring import failure_hooks
        from orchestrator.engine.run.notifier import notify_late

        return await notify_late(self.store, run, job, failure_hooks(self.settings))
