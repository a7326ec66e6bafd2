"""run_job: ingest -> awake -> fan out -> deliver."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from orchestrator.domain.errors import (
    AskedToStop,
    LedgerError,
    NoFiles,
    OrchestratorError,
    RunStopped,
    UsageError,
    described,
)
from orchestrator.domain.events import RunBegan, RunEnded, SourceRead, StopRequested
from orchestrator.domain.queue import Again, Claim, Over, after_stop
from orchestrator.domain.readings import asked
from orchestrator.domain.run import Counts, RunState, Spec
from orchestrator.domain.traffic import Traffic
from orchestrator.domain.urls import shown
from orchestrator.engine.events import Events
from orchestrator.engine.execution import Execution
from orchestrator.engine.files import check_files
from orchestrator.engine.ingest import Snapshot, ingest
from orchestrator.engine.notifier import Notifier
from orchestrator.engine.reaper import BEAT, LEASE, registered
from orchestrator.engine.reparse import reparse
from orchestrator.engine.report import traffic_in
from orchestrator.engine.reuse import Elsewhere, reuse
from orchestrator.engine.run_controls import LOOK, RunControls
from orchestrator.engine.run_window import RunWindow
from orchestrator.engine.tasks import task_group
from orchestrator.job import fingerprint_of
from orchestrator.ports import WritesFiles

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from orchestrator.domain.run import Cause, Plan, Run, Tokens
    from orchestrator.engine.execution import Safety
    from orchestrator.engine.progress import Progress
    from orchestrator.engine.run_request import RunRequest
    from orchestrator.engine.session import SessionCost
    from orchestrator.engine.stop import Stop
    from orchestrator.engine.sweep import Swept
    from orchestrator.job import Job
    from orchestrator.ports import EventListener
    from orchestrator.store import Store


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended. `stays`: of endpoints that bill. `out`: of no more use before the end, and why, by name."""

    run: Run
    plan: Plan
    counts: Counts
    asked: int  # requests made in this process
    settled: int  # items settled in this process
    seconds: float
    asking: float  # of these, in which something was asked
    causes: list[Cause]
    manifest: Mapping[str, object]
    tokens: Tokens
    shared: int = 0  # of the settled ones: not asked, since an item with the same request was
    session_costs: list[SessionCost] = field(default_factory=list)
    out: Mapping[str, str] = field(default_factory=dict)
    swept: list[Swept] = field(default_factory=list)
    noted: Mapping[str, int] = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)  # of all processes that have worked on it


async def run_job(
    request: RunRequest,
    store: Store,
    progress: Progress,
    stop: Stop,
    safety: Safety,
    listeners: Sequence[EventListener] = (),
) -> RunResult:
    """Run a job to its end and deliver. Safe to call again after any kind of stop: every step goes on where it was.

    Once `stop` is requested nothing new is asked, and when the answers in flight are in, `RunStopped` is raised. Debts
    of dead processes are paid on the way. `listeners` hear, beside `progress`, what happens.
    """
    started, job = time.monotonic(), request.job
    events = Events(progress, *listeners)
    notifier = Notifier(job, store, events)
    try:
        if request.claim is not None:
            RunWindow(job.policy).check()
        others = await store.reuse.named(request.reuse, job.name)
        spec, identity = await to_thread.run_sync(_spec, request, store.database.path)
    except Exception as error:
        await _not_begun(request, error, store, notifier, stop)
        raise
    async with registered(store) as process_id:
        try:
            run = await store.runs.take(spec, process_id, request.claim, request.retry)
        except Exception as error:
            await _not_begun(request, error, store, notifier, stop)
            raise
        events.emit(RunBegan(run.id, run.job, process_id))
        controls = RunControls()
        async with task_group() as helpers:
            helpers.start_soon(_stay_alive, store, process_id, run.id, progress)
            helpers.start_soon(_note_stop, stop, events, job.policy.grace)
            helpers.start_soon(_heed, store, run.id, controls, progress, stop, job.policy.grace)
            try:
                await notifier.owe(run.id, process_id)
                request = await _delivering(request, run, store)
                execution = Execution(request, run, process_id, store, events, stop, safety, controls)
                async with task_group() as debts:
                    debts.start_soon(execution.sweep, job.endpoint_names)
                    snapshot = Snapshot(job, identity, request.limit, spec.input_sha256, reuse=others)
                    await _snapshot(request, snapshot, run, store, events)
                    await _work_off(execution, store)
            except BaseException as error:
                with anyio.CancelScope(shield=True):
                    await _note_end(store, run, process_id, error, events)
                    await notifier.failed(run.id, error, stop=stop)
                raise
            try:
                await execution.finish()
            except BaseException as error:
                events.emit(_ended(run, error))
                with anyio.CancelScope(shield=True), suppress(OrchestratorError):
                    await _in_the_queue(store, run, process_id, error)
                await notifier.failed(run.id, error, stop=stop)
                raise
            await notifier.finished(run.id)
            helpers.cancel_scope.cancel()
    events.emit(RunEnded(run.id, RunState.FINISHED))
    run, readings = await store.runs.find(str(run.id)), await store.readings.of(run.id)
    return RunResult(
        run=run,
        plan=progress.plan,
        counts=await store.views.counts(run.id, run.total),
        asked=progress.asked,
        settled=progress.completed + progress.discarded,
        seconds=time.monotonic() - started,
        asking=asked([reading for reading in readings if reading.process_id == process_id]).asking,
        causes=await store.views.causes(run.id),
        manifest=execution.manifest or {},
        tokens=await store.views.tokens(run.id),
        shared=progress.shared,
        session_costs=execution.session_costs,
        out=execution.out,
        swept=execution.swept,
        noted=await store.views.noted(run.id),
        traffic=await traffic_in(store, run.id, readings, executing=False),
    )


async def _not_begun(request: RunRequest, error: Exception, store: Store, notifier: Notifier, stop: Stop) -> None:
    """Say in the ledger what becomes of a queued run that could not begin. Any other one is not in the ledger yet."""
    claim = request.claim
    if claim is None:
        return
    match after_stop(error, now=time.time(), tries=1):
        case Again(at, why, fruitless):
            await store.queue.requeue(claim, at, why, fruitless=fruitless)
        case Over():
            await store.queue.fail(claim, described(error), owed=bool(request.job.failure_hooks))
            await notifier.failed(claim.run_id, error, stop=stop)


async def _delivering(request: RunRequest, run: Run, store: Store) -> RunRequest:
    """Note where the run delivers, which may have changed since it was made.

    One with a limit delivers beside an output with more rows, instead of replacing it.
    """
    sink = request.job.sink
    if request.limit is not None and isinstance(sink, WritesFiles):
        sink = await to_thread.run_sync(sink.for_part, run.job, request.limit, run.names)
    if str(sink.path) != run.spec.about.get("output"):
        await store.runs.delivers_to(run.id, str(sink.path))
    return request if sink is request.job.sink else replace(request, job=replace(request.job, sink=sink))


async def _work_off(execution: Execution, store: Store) -> None:
    """Settle everything. `LedgerError` where the ledger is why nothing more was asked."""
    try:
        await execution.work_off()
    except AskedToStop:
        await store.database.check_still_there()
        raise


async def _note_stop(stop: Stop, events: EventListener, grace: float) -> None:
    await stop.wait()
    events.emit(StopRequested(grace))


async def _heed(store: Store, run_id: int, controls: RunControls, progress: Progress, stop: Stop, grace: float) -> None:
    """Look for what somebody wants of this run, and whether its ledger is still there.

    Where it is not, the answers in flight are given their time: they are paid for, and go into what is kept of it.
    """
    while True:
        try:
            await store.database.check_still_there()
        except LedgerError:
            stop.drain()
            await anyio.sleep(grace)
            raise
        state, held, concurrency = await store.runs.controls(run_id)
        if state is RunState.CANCELLED:
            raise RunStopped(f"run {run_id} was cancelled{progress.done}")
        controls.apply(held=held, concurrency=concurrency)
        await anyio.sleep(LOOK)


def _spec(request: RunRequest, ledger: Path) -> tuple[Spec, Mapping[str, object]]:
    """What the run is made from, and the endpoint's identity. Reads the source, the model, the job's functions."""
    job = request.job
    check_files(job, ledger, request.jobfile)
    identity = job.identity()
    about = {
        **request.kept(),
        "source": job.source.describe(),
        "output": str(job.sink.path),
        "keep": job.sink.keep,
        "endpoint": ", ".join(one.endpoint.name for one in job.endpoints),
        "identity": shown(identity),
        "limit": request.limit,
        "incremental": job.incremental,
        "parse": fingerprint_of(job.parse),
    }
    return Spec(job.name, job.fingerprint(identity, request.limit), _sha256(job), about), identity


def _sha256(job: Job) -> str | None:
    try:
        return job.source.sha256()
    except NoFiles:
        if not job.incremental:
            raise
        return None


async def _snapshot(request: RunRequest, snapshot: Snapshot, run: Run, store: Store, events: EventListener) -> None:
    """Have the run's items in the ledger: they are there already where the run is being continued."""
    new = run.state is RunState.INGESTING
    check = partial(check_files, request.job, store.database.path, request.jobfile, run.names, new=new)
    await to_thread.run_sync(check)
    if new:
        job = snapshot.job
        await reparse(store, run.job_id, job.parse, str(run.spec.about["parse"]))
        alike = {} if snapshot.reuse else await store.reuse.asked_alike(job.name, snapshot.identity)
        elsewhere = Elsewhere(store, run.job_id, alike)
        plan = await ingest(snapshot, run, store, events, elsewhere.look if alike else None)
        events.emit(SourceRead(plan, complete=True, hints=tuple(elsewhere.hints)))
    await reuse(store, run.id, snapshot.reuse, snapshot.job.parse)
    if not new:
        events.emit(SourceRead(await store.views.plan_left(run), complete=True))


async def _in_the_queue(store: Store, run: Run, process_id: int, error: BaseException) -> None:
    """Say when a queued run goes on that this process executes."""
    if run.due_at is None:
        return
    claim = Claim(run.id, process_id)
    match after_stop(error, now=time.time(), tries=run.tries):
        case Again(at, why, fruitless):
            await store.queue.requeue(claim, at, why, fruitless=fruitless)
        case Over():
            await store.queue.leave(claim)


async def _stay_alive(store: Store, process_id: int, run_id: int, progress: Progress) -> None:
    """Keep this process's leases, and show the run's rate to others."""
    while True:
        why = "; ".join([*map(str, progress.waits), *progress.idle_members]) or None
        await store.runs.beat(process_id, LEASE, run_id=run_id, rate=progress.rate(), why=why)
        await anyio.sleep(BEAT)


def _ended(run: Run, error: BaseException) -> RunEnded:
    failed = isinstance(error, Exception) and not isinstance(error, RunStopped)
    why = described(error) if isinstance(error, Exception) else "interrupted"
    return RunEnded(run.id, RunState.FAILED if failed else RunState.STOPPED, why)


async def _note_end(store: Store, run: Run, process_id: int, error: BaseException, events: Events) -> None:
    """Say in the ledger why the run is not finished, and when it goes on if it is in the queue.

    A full disk must not hide the reason behind its own.
    """
    ended = _ended(run, error)
    events.emit(ended)
    try:
        if isinstance(error, UsageError) and not events.progress.asked:
            await store.runs.not_begun(run.id, process_id)
        await store.runs.end(run.id, process_id, RunState(ended.outcome), ended.why)
        await _in_the_queue(store, run, process_id, error)
    except OrchestratorError as second:
        error.add_note(f"(the ledger could not note it: {second})")
