"""The operations of `/api` that look and change nothing."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from orchestrator.domain.costs import bill, bill_runs
from orchestrator.domain.errors import UsageError
from orchestrator.domain.moment import since
from orchestrator.domain.report_json import as_json
from orchestrator.engine.daemon.scheduling import timetable_of
from orchestrator.report.listings import costs_json, item_json, queue_json, run_json, status_json, timetable_json
from orchestrator.server.context import context_of
from orchestrator.server.failures import Refused
from orchestrator.server.ownership import discreet, readable, run_of, run_to_read

if TYPE_CHECKING:
    from aiohttp import web

    from orchestrator.domain.costs import Cost
    from orchestrator.domain.run import Run
    from orchestrator.server.api.requests import (
        CostsAsked,
        EndpointsAsked,
        FailuresAsked,
        ItemsAsked,
        Nothing,
        ReadingsAsked,
        ReportAsked,
        RunsAsked,
    )
    from orchestrator.store import Store

_DAY = 86_400.0
Json = dict[str, object]


async def runs(request: web.Request, asked: RunsAsked) -> Json:
    """List runs, newest first."""
    app = context_of(request).app
    found = await app.runs(asked.limit + 1, before=asked.before, job=asked.job, state=asked.state)
    shown, more = found[: asked.limit], len(found) > asked.limit
    runs_ = await discreet(request, [run for run, _ in shown])
    listed = [run_json(run, counts) for run, (_, counts) in zip(runs_, shown, strict=True)]
    return {"runs": listed, "next": shown[-1][0].id if more else None}


async def run(request: web.Request, _asked: Nothing) -> Json:
    """Show a run: its state, counts, rate, time left, tokens, failures by cause, and what it has cost."""
    app, found = context_of(request).app, run_of(request)
    cost = await _cost_of(found, app.store)
    return {**status_json(await app.status(str(found.id))), "cost": None if cost is None else asdict(cost)}


async def _cost_of(found: Run, store: Store) -> Cost | None:
    """Return what the run has cost so far. An endpoint may have been woken before the run was made."""
    receipts = await store.receipts.since(found.created_at - _DAY)
    return bill_runs(receipts, time.time()).get(found.id)


async def items(request: web.Request, asked: ItemsAsked) -> Json:
    """List a run's items in input order."""
    found = run_of(request)
    views = await context_of(request).app.items(
        str(found.id), state=asked.state, noted=asked.noted, like=asked.like, after=asked.after, limit=asked.limit + 1
    )
    shown, more = views[: asked.limit], len(views) > asked.limit
    return {"items": [item_json(view) for view in shown], "next": shown[-1].position if more else None}


async def item(request: web.Request, _asked: Nothing) -> Json:
    """Show one item with its request, every attempt, and its answer."""
    found = run_of(request)
    try:
        return await context_of(request).app.item(str(found.id), request.match_info["item"])
    except UsageError as error:
        raise Refused(404, str(error)) from error


async def failures(request: web.Request, asked: FailuresAsked) -> Json:
    """Group a run's discarded items by cause, with the id of one of them as a sample."""
    found = run_of(request)
    causes = await context_of(request).app.store.views.causes(found.id, asked.limit)
    return {"failures": [asdict(cause) for cause in causes]}


async def readings(request: web.Request, asked: ReadingsAsked) -> Json:
    """Show a run's measurements over time, for curves."""
    found = run_of(request)
    taken = context_of(request).app.store.readings
    some = await (taken.of(found.id, asked.most) if asked.after is None else taken.after(found.id, asked.after))
    return {"readings": [asdict(one) for one in some]}


async def queue(request: web.Request, _asked: Nothing) -> Json:
    """List the runs being executed, then those that wait, in the order in which they are taken, and why they wait."""
    found, served = await context_of(request).app.queue()
    return queue_json(await discreet(request, found), time.time(), served=served)


async def schedules(request: web.Request, _asked: Nothing) -> Json:
    """List schedules, what was decided about their last slots, and job files that could not be used."""
    return timetable_json(await timetable_of(context_of(request).app.store))


async def endpoints(request: web.Request, asked: EndpointsAsked) -> Json:
    """Show when endpoints were awake, which runs used them, how they were left, and pauses that are owed."""
    app = context_of(request).app
    begun = time.time() - asked.days * _DAY
    return {
        "endpoints": [asdict(one) | {"is_debt": one.is_debt} for one in await app.store.history.windows(begun)],
        "receipts": [asdict(use) for use in await app.store.receipts.after(begun)],
        "owed": [{"endpoint": debt.endpoint, "opened_at": debt.since} for debt in await app.owed()],
    }


async def costs(request: web.Request, asked: CostsAsked) -> Json:
    """Add up what endpoints cost, by job, endpoint or day."""
    now = time.time()
    begun = 0.0 if asked.days is None else now - asked.days * _DAY
    receipts = await context_of(request).app.store.receipts.since(begun)
    return costs_json(asked.by, bill(receipts, asked.by, now))


async def report(request: web.Request, asked: ReportAsked) -> Json:
    """Report on a period, or on one run: what finished, what failed and why, what it cost, how endpoints were left."""
    app = context_of(request).app
    if asked.run is not None:
        if asked.since is not None:
            raise Refused(400, "give either run or since, not both")
        found = await run_to_read(request, asked.run)
        return as_json(await app.report(str(found.id)))
    try:
        begun = since(asked.since or "yesterday", time.time())
    except ValueError as error:
        raise Refused(400, f"since: {error}") from error
    return as_json(await readable(request, await app.report(since=begun)))
