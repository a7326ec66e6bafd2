"""run_job: ingest -> awake -> fan out -> deliver."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from orchestrator.domain.errors import EndpointLost, OrchestratorError, RunStopped
from orchestrator.domain.run import Counts, RunState, Spec
from orchestrator.engine.awake import awake
from orchestrator.engine.deliver import deliver
from orchestrator.engine.fanout import BreakerTripped, Work, fan_out
from orchestrator.engine.ingest import Snapshot, ingest
from orchestrator.engine.progress import Phase
from orchestrator.engine.reaper import BEAT, LEASE, registered
from orchestrator.engine.reparse import reparse
from orchestrator.engine.tasks import task_group
from orchestrator.job import fingerprint_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.domain.run import Plan, Run
    from orchestrator.engine.progress import Progress
    from orchestrator.job import Job
    from orchestrator.store import Store
    from orchestrator.store.views import Cause

FRUITLESS_LOSSES = 3  # times the endpoint may be lost in a row without anything settled between


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody wants to have run. `about` is kept in the ledger with the run and holds no secret."""

    job: Job
    limit: int | None = None
    about: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """How a run ended."""

    run: Run
    plan: Plan
    counts: Counts
    asked: int  # requests made in this process
    settled: int  # items settled in this process
    seconds: float
    causes: list[Cause]
    manifest: Mapping[str, object]


async def run_job(request: Request, store: Store, progress: Progress, stop: anyio.Event) -> Report:
    """Run a job to its end and deliver. Safe to call again after any kind of stop: every step goes on where it was.

    Once `stop` is set nothing new is asked, and when the answers in flight are in, `RunStopped` is raised.
    """
    started = time.monotonic()
    job = request.job
    spec, identity = await to_thread.run_sync(_spec, request)
    async with registered(store) as process_id:
        run = await store.runs.take(spec, process_id)
        progress.run = run.id
        async with task_group() as helpers:
            helpers.start_soon(_stay_alive, store, process_id, run.id, progress)
            try:
                await _snapshot(Snapshot(job, identity, request.limit), run, store, progress)
                await _work_off(job, run.id, process_id, store, progress, stop)
            except BaseException as error:
                with anyio.CancelScope(shield=True):
                    await _note_end(store, run.id, process_id, error)
                raise
            await store.runs.end(run.id, process_id, RunState.FINISHED)
            progress.phase = Phase.DELIVER
            run = await store.runs.find(str(run.id))
            manifest = await deliver(run, store, job.sink)
            helpers.cancel_scope.cancel()
    progress.phase = Phase.DONE
    return Report(
        run=run,
        plan=progress.plan,
        counts=await store.views.counts(run.id, run.total),
        asked=progress.asked,
        settled=progress.completed + progress.discarded,
        seconds=time.monotonic() - started,
        causes=await store.views.causes(run.id),
        manifest=manifest,
    )


def _spec(request: Request) -> tuple[Spec, Mapping[str, object]]:
    """What the run is made from, and the endpoint's identity. Reads the source, the model, the job's functions."""
    job = request.job
    identity = job.endpoint.identity(job.policy)
    about = {
        **(request.about or {}),
        "source": job.source.describe(),
        "output": str(job.sink.path),
        "keep": job.sink.keep,
        "endpoint": job.endpoint.name,
        "identity": identity,
        "limit": request.limit,
        "parse": fingerprint_of(job.parse),
    }
    spec = Spec(job.name, job.fingerprint(identity, request.limit), job.source.sha256(), about)
    return spec, identity


async def _snapshot(snapshot: Snapshot, run: Run, store: Store, progress: Progress) -> None:
    """Have the run's items in the ledger: they are there already where the run is being continued."""
    if run.state is RunState.INGESTING:
        job = snapshot.job
        await reparse(store, run.job_id, job.parse, str(run.spec.about["parse"]))
        await ingest(snapshot, run, store, progress)
    else:
        progress.plan = await store.views.plan_left(run)


async def _work_off(
    job: Job, run_id: int, process_id: int, store: Store, progress: Progress, stop: anyio.Event
) -> None:
    """Settle everything; with nothing to do, nobody is woken."""
    total = (await store.runs.find(str(run_id))).total
    progress.start = counts = await store.views.counts(run_id, total)
    if not counts.unfinished:
        return
    await store.runs.reopen(run_id)
    work = Work(store, run_id, process_id, job.parse, job.policy, progress, stop)
    suspects: set[int] = set()
    fruitless = 0
    async with awake(job.endpoint, progress) as endpoint:
        while counts.unfinished and not stop.is_set():
            try:
                async with endpoint.connect(job.policy) as model:
                    await fan_out(work, model, suspects)
            except EndpointLost as loss:
                await store.items.release(process_id)
                before, counts = counts, await store.views.counts(run_id, total)
                fruitless = fruitless + 1 if counts.settled == before.settled else 0
                progress.note = f"endpoint lost ({loss}), waking it again"
                if fruitless >= FRUITLESS_LOSSES:
                    raise RunStopped(
                        f"endpoint {job.endpoint.name} was lost {fruitless} times in a row with nothing done between: "
                        f"{loss}; run the same command again to continue"
                    ) from loss
            except BreakerTripped as tripped:
                await store.items.release(process_id)
                await store.items.forgive(run_id, tripped.keys)
                raise
            else:
                counts = await store.views.counts(run_id, total)
    if counts.unfinished:
        raise RunStopped("stopped as asked; run the same command again to continue")


async def _stay_alive(store: Store, process_id: int, run_id: int, progress: Progress) -> None:
    """Keep this process's leases, show the run's rate to others, and heed a `cancel` from outside."""
    while True:
        state = await store.runs.beat(process_id, LEASE, run_id=run_id, rate=progress.rate())
        if state is RunState.CANCELLED:
            raise RunStopped(f"run {run_id} was cancelled")
        await anyio.sleep(BEAT)


async def _note_end(store: Store, run_id: int, process_id: int, error: BaseException) -> None:
    """Say in the ledger why the run is not finished. A full disk must not hide the reason behind its own."""
    failed = isinstance(error, OrchestratorError) and not isinstance(error, RunStopped)
    state = RunState.FAILED if failed else RunState.STOPPED
    reason = str(error) if isinstance(error, OrchestratorError) else "interrupted"
    try:
        await store.runs.end(run_id, process_id, state, reason)
    except OrchestratorError as second:
        error.add_note(f"(the ledger could not note it: {second})")
