"""The operations of `/api` that change something."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from anyio import to_thread

from orchestrator.domain.errors import UsageError
from orchestrator.domain.moment import moment_at
from orchestrator.engine.daemon.submit import Queueing
from orchestrator.engine.daemon.submit_file import FileSubmission
from orchestrator.engine.run.run_request import request_of_spec
from orchestrator.report.listings import run_json, submitted_json
from orchestrator.server.context import context_of
from orchestrator.server.failures import Refused
from orchestrator.server.ownership import run_of

if TYPE_CHECKING:
    from aiohttp import web

    from orchestrator.app import App
    from orchestrator.server.api.requests import Nothing, Priority, Retry, Submission, Tuning

Json = dict[str, object]


async def hold(request: web.Request, _asked: Nothing) -> Json:
    """Hold a run: it finishes the requests in flight, pauses its endpoint and waits for `go`."""
    found = run_of(request)
    await context_of(request).app.order(str(found.id), held=1)
    return await _as_it_is(found.id, context_of(request).app)


async def go(request: web.Request, _asked: Nothing) -> Json:
    """Let a held run continue."""
    found = run_of(request)
    await context_of(request).app.order(str(found.id), held=0)
    return await _as_it_is(found.id, context_of(request).app)


async def tune(request: web.Request, asked: Tuning) -> Json:
    """Change how many requests a run has in flight, even while it runs."""
    found = run_of(request)
    await context_of(request).app.order(str(found.id), concurrency=asked.concurrency)
    return await _as_it_is(found.id, context_of(request).app)


async def cancel(request: web.Request, _asked: Nothing) -> Json:
    """Stop a run and mark it cancelled. Completed items are kept; a run that has ended stays as it is."""
    found = run_of(request)
    await context_of(request).app.stop(str(found.id))
    return await _as_it_is(found.id, context_of(request).app)


async def prioritize(request: web.Request, asked: Priority) -> Json:
    """Change the priority of a queued run."""
    found = run_of(request)
    await context_of(request).app.prioritize(str(found.id), asked.priority)
    return await _as_it_is(found.id, context_of(request).app)


async def retry(request: web.Request, asked: Retry) -> Json:
    """Queue a run that asks a run's discarded items again: all, or those of one cause."""
    found = run_of(request)
    queued = await context_of(request).app.queue_retry(str(found.id), like=asked.like)
    return {"run": queued.run.id, "job": queued.run.job, "items": queued.items, "served": queued.served}


async def _as_it_is(run_id: int, app: App) -> Json:
    """Return the run as a list of runs shows it."""
    found = await app.find(str(run_id))
    return run_json(found, await app.store.views.counts(found.id, found.total))


async def submit(request: web.Request, asked: Submission) -> Json:
    """Queue a run of a job file in a folder of `[serve] jobs`, or of a job as JSON."""
    app = context_of(request).app
    now, zone = time.time(), datetime.now().astimezone().tzinfo or UTC
    try:
        due_at = max(now, moment_at(asked.at, now, zone))
        deadline = None if asked.deadline is None else max(now, moment_at(asked.deadline, now, zone))
    except ValueError as error:
        raise UsageError(str(error)) from error
    if (asked.jobfile is None) == (asked.spec is None):
        raise UsageError("give either jobfile or spec")
    if asked.jobfile is not None:
        about = FileSubmission(asked.jobfile, asked.at, asked.deadline, asked.priority, asked.key, asked.limit)
        return dict(await app.submit_file(about))
    wanted = await to_thread.run_sync(request_of_spec, asked.spec, asked.limit)
    covers = (asked.at, asked.deadline, asked.priority)
    queueing = Queueing(due_at, deadline, asked.priority, (), asked.key, covers)
    return submitted_json(await app.submit(wanted, queueing), due_at)


async def pause_schedule(request: web.Request, _asked: Nothing) -> Json:
    """Pause a schedule: its slots pass, and are not counted as missed."""
    return await _turn(request, paused=True)


async def resume_schedule(request: web.Request, _asked: Nothing) -> Json:
    """Resume a paused schedule from now on."""
    return await _turn(request, paused=False)


async def _turn(request: web.Request, *, paused: bool) -> Json:
    job = request.match_info["job"]
    try:
        changed = await context_of(request).app.turn_schedule(job, paused=paused)
    except UsageError as error:
        raise Refused(404, str(error)) from error
    return {"job": changed.job, "paused": changed.paused, "next_slot": changed.next_slot}
