"""run_job: ingest -> awake -> fan out -> deliver."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from orchestrator.domain.errors import AskedToStop, LedgerError, RunStopped, UsageError
from orchestrator.domain.events import RunBegan, RunEnded, StopRequested
from orchestrator.domain.run import RunState
from orchestrator.engine.asking.run_controls import LOOK, RunControls
from orchestrator.engine.awake.reaper import BEAT, LEASE, registered
from orchestrator.engine.events import Events
from orchestrator.engine.run.chained import chained
from orchestrator.engine.run.choices import choosing_as_before
from orchestrator.engine.run.execution import Execution
from orchestrator.engine.run.notifier import Notifier
from orchestrator.engine.run.prepare import read_spec, take_items, with_output
from orchestrator.engine.run.run_end import RunEnd
from orchestrator.engine.run.run_result import RunResult, result_of
from orchestrator.engine.run.run_window import RunWindow
from orchestrator.engine.run.snapshot import Snapshot
from orchestrator.engine.tasks import task_group

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from orchestrator.engine.progress import Progress
    from orchestrator.engine.run.execution import Safety
    from orchestrator.engine.run.run_request import RunRequest
    from orchestrator.engine.stop import Stop
    from orchestrator.ports import EventListener
    from orchestrator.store import Store


async def run_job(
    request: RunRequest,
    store: Store,
    progress: Progress,
    stop: Stop,
    safety: Safety,
    listeners: Sequence[EventListener] = (),
) -> RunResult:
    """Run a job to its end and deliver. Safe to call again after any kind of stop: every step continues where it was.

    Once `stop` is requested, nothing new is asked, and `RunStopped` is raised when the answers in flight have arrived.
    Debts of dead processes are paid on the way. `listeners` get all events, as `progress` does.
    """
    started, job = time.monotonic(), request.job
    events = Events(progress, *listeners)
    notifier = Notifier(job, store, events)
    end = RunEnd(store, events, notifier, stop)
    async with end.unbegun(request):
        if request.claim is not None:
            RunWindow(job.policy).check()
        if request.canary is not None and job.rollout is not None:
            raise UsageError(
                "a canary is of items that are one request each: run a job with a rollout without --canary; "
                "--limit N tries it with the first N items"
            )
        job = await choosing_as_before(await chained(job, store), store)
        request = replace(request, job=job)
        others = await store.reuse.named(request.reuse, job.name)
        spec, identity = await to_thread.run_sync(read_spec, request, store.database.path)
    async with registered(store) as process_id:
        async with end.unbegun(request):
            run = await store.runs.take(spec, process_id, request.claim, request.retry, request.like)
        events.emit(RunBegan(run.id, run.job, process_id))
        async with _looked_after(run.id, process_id, store, events, stop, job.policy.grace) as controls:
            async with end.unfinished(run, process_id):
                await notifier.owe(run.id, process_id)
                request = await with_output(request, run, store)
                execution = Execution(request, run, process_id, store, events, stop, safety, controls)
                async with task_group() as debts:
                    debts.start_soon(execution.sweep, job.endpoint_names)
                    snapshot = Snapshot(job, identity, request.limit, spec.input_sha256, reuse=others)
                    await take_items(request, snapshot, run, store, events)
                    await _settle_everything(execution, store)
            async with end.undelivered(run, process_id):
                await execution.finish()
            await notifier.finished(run.id)
    events.emit(RunEnded(run.id, RunState.FINISHED))
    return await result_of(run.id, process_id, execution, progress, store, time.monotonic() - started)


async def _settle_everything(execution: Execution, store: Store) -> None:
    """Execute the run. Raises `LedgerError` if a problem with the ledger is why nothing more was asked."""
    try:
        await execution.work_off()
    except AskedToStop:
        await store.database.check_still_there()
        raise


@asynccontextmanager
async def _looked_after(
    run_id: int, process_id: int, store: Store, events: Events, stop: Stop, grace: float
) -> AsyncIterator[RunControls]:
    """Keep the run's leases while the block lasts, and follow commands from the ledger and signals."""
    controls = RunControls()
    async with task_group() as helpers:
        helpers.start_soon(_stay_alive, store, process_id, run_id, events.progress)
        helpers.start_soon(_note_stop, stop, events, grace)
        helpers.start_soon(_follow_ledger, store, run_id, controls, events.progress, stop, grace)
        yield controls
        helpers.cancel_scope.cancel()


async def _stay_alive(store: Store, process_id: int, run_id: int, progress: Progress) -> None:
    """Keep this process's leases, and record the run's rate for other processes."""
    while True:
        why = "; ".join(progress.reasons) or None
        await store.runs.beat(process_id, LEASE, run_id=run_id, rate=progress.rate(), why=why)
        await anyio.sleep(BEAT)


async def _note_stop(stop: Stop, events: EventListener, grace: float) -> None:
    await stop.wait()
    events.emit(StopRequested(grace))


async def _follow_ledger(
    store: Store, run_id: int, controls: RunControls, progress: Progress, stop: Stop, grace: float
) -> None:
    """Check for commands for this run, and whether its ledger is still there.

    If it is gone, answers in flight get their grace: they are paid for, and go into what is left of the ledger.
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
