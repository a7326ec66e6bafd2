"""orchestrator plan: show what a run would do, without calling anything."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import typer

from orchestrator.cli.command import Missing, print_json, reported, with_app
from orchestrator.cli.options import AsJson, Canary, JobFile, Limit, Overrides, Overwrite, Reuse
from orchestrator.cli.terminal import say
from orchestrator.engine.run.run_request import request_from

if TYPE_CHECKING:
    from orchestrator.app import App
    from orchestrator.cli.global_options import Globals
    from orchestrator.engine.run.plan import Forecast
    from orchestrator.engine.run.run_request import RunRequest


def plan(
    context: typer.Context,
    jobfile: JobFile,
    limit: Limit = None,
    reuse: Reuse = None,
    canary: Canary = None,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Show what a run would do now: items that are new, edited, reused or to retry, and the cost. Calls no endpoint.

    With --canary, it first asks N items, whose answers are kept: the endpoint is woken, asked and paused as by a run.
    """
    with reported(json=json):
        request = request_from(jobfile, limit=limit, overrides=overrides or (), overwrite=overwrite, reuse=reuse or ())
    if canary is None:
        found = with_app(context, lambda app: app.plan(request), json=json, missing=Missing.LEND)
    else:
        asked = partial(_after_canary, context.obj, request, canary, quiet=json)
        found = with_app(context, asked, json=json, missing=Missing.CREATE)
    counted = found.counts
    if json:
        asks = None if found.asks is None else asdict(found.asks)
        said = {"asks": asks, "answered_by": found.answered_by, "hints": list(found.hints)}
        counts = {"job": request.job.name, "total": counted.total, "to_ask": counted.to_ask} | asdict(counted)
        print_json(counts | {"estimate": asdict(found.estimate)} | {name: said[name] for name in said if said[name]})
    else:
        say(found)
        if found.parses_again:
            say("parse has changed: existing answers, including discarded ones, are parsed again")
        if found.asks is not None:
            say(found.asks)
        if counted.to_ask:
            say(found.estimate)


async def _after_canary(options: Globals, request: RunRequest, items: int, app: App, *, quiet: bool) -> Forecast:
    from orchestrator.cli.attended import attended_run  # what shows progress is imported only if something is asked

    return await attended_run(options, request, app, partial(app.canary, request, items), quiet=quiet)
