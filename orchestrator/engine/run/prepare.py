"""Prepare a run: what it is made from, where it delivers, and its items in the ledger."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from anyio import to_thread

from orchestrator.domain.errors import NoFiles
from orchestrator.domain.events import SourceRead
from orchestrator.domain.run import RunState, Spec
from orchestrator.domain.urls import shown
from orchestrator.engine.run.chained import chain_hints
from orchestrator.engine.run.choices import choice_hints
from orchestrator.engine.run.files import check_files
from orchestrator.engine.run.ingest import ingest
from orchestrator.engine.run.reuse import Elsewhere, reparse, reuse
from orchestrator.job import fingerprint_of
from orchestrator.ports import ChecksTarget, ReadsResults

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from orchestrator.domain.run import Run
    from orchestrator.engine.run.run_request import RunRequest
    from orchestrator.engine.run.snapshot import Snapshot
    from orchestrator.job import Job
    from orchestrator.ports import EventListener
    from orchestrator.store import Store


async def with_output(request: RunRequest, run: Run, store: Store) -> RunRequest:
    """Record where the run delivers, which may have changed since it was created.

    A run with a limit delivers beside an output with more rows, instead of replacing it.
    """
    sink = request.job.sink
    if request.limit is not None and sink is not None and isinstance(sink, ChecksTarget):
        sink = await to_thread.run_sync(sink.for_part, run.job, request.limit, run.names)
    request = request if sink is request.job.sink else replace(request, job=replace(request.job, sink=sink))
    if request.job.output != run.spec.about.get("output"):
        await store.runs.delivers_to(run.id, request.job.output)
    return request


def read_spec(request: RunRequest, ledger: Path) -> tuple[Spec, Mapping[str, object]]:
    """Return what the run is made from, and the endpoint's identity. Reads the source, the model, the functions."""
    job = request.job
    check_files(job, ledger, request.jobfile)
    identity = job.identity()
    about = {
        **request.kept(),
        "source": job.source.describe(),
        "reads_as": job.reads_as(),
        "output": job.output,
        "keep": job.kept,
        "endpoint": ", ".join(one.endpoint.name for one in job.endpoints),
        "identity": shown(identity),
        "limit": request.limit,
        "incremental": job.incremental,
        "parse": fingerprint_of(job.parse),
    }
    if job.rollout is not None:
        about["routes"] = {route.name: [one.endpoint.name for one in route.endpoints] for route in job.routes}
    if isinstance(job.source, ReadsResults):
        about["results_of"] = job.source.job
    return Spec(job.name, job.fingerprint(identity, request.limit), _sha256(job), about), identity


def _sha256(job: Job) -> str | None:
    try:
        return job.source.sha256()
    except NoFiles:
        if not job.incremental:
            raise
        return None


async def take_items(request: RunRequest, snapshot: Snapshot, run: Run, store: Store, events: EventListener) -> None:
    """Make sure that the run's items are in the ledger; they already are if the run is being continued."""
    new = run.state is RunState.INGESTING
    check = partial(check_files, request.job, store.database.path, request.jobfile, run.names, new=new)
    await to_thread.run_sync(check)
    if new:
        job = snapshot.job
        await reparse(store, run.job_id, job.parse, str(run.spec.about["parse"]))
        alike = {} if snapshot.reuse else await store.reuse.asked_alike(job.name, snapshot.identity)
        elsewhere = Elsewhere(store, run.job_id, alike)
        plan = await ingest(snapshot, run, store, events, elsewhere.look if alike else None)
        hints = (*chain_hints(job), *choice_hints(job), *elsewhere.hints)
        events.emit(SourceRead(plan, complete=True, hints=hints))
    await reuse(store, run.id, snapshot.reuse, snapshot.job.parse)
    if not new:
        plan, hints = await store.views.plan_left(run), tuple(choice_hints(snapshot.job))
        events.emit(SourceRead(plan, complete=True, hints=hints))
