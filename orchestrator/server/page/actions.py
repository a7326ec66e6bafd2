"""What the buttons of runs and schedules do. Each leads back to the page that it is on."""

from __future__ import annotations

import re

from aiohttp import web

from orchestrator.domain.errors import UsageError
from orchestrator.engine.daemon.scheduling import fire
from orchestrator.server.context import context_of, form_of
from orchestrator.server.ownership import run_of

MOST_CONCURRENCY = 100_000


async def act_on_run(request: web.Request) -> web.Response:
    """Do what a button of a run says; the path of the action begins as that of its page."""
    app, run = context_of(request).app, str(run_of(request).id)
    match request.match_info["action"]:
        case "hold":
            await app.order(run, held=1)
        case "go":
            await app.order(run, held=0)
        case "cancel":
            await app.stop(run)
        case "tune":
            await app.order(run, concurrency=_concurrency((await form_of(request)).get("concurrency")))
        case "prioritize":
            await app.prioritize(run, _priority((await form_of(request)).get("priority", "")))
    raise web.HTTPSeeOther("/queue" if request.path.startswith("/queue/") else f"/runs/{run}")


async def act_on_schedule(request: web.Request) -> web.Response:
    """Do what a button of a schedule says."""
    app, job = context_of(request).app, request.match_info["job"]
    match request.match_info["action"]:
        case "fire":
            await fire(job, app.store)
        case action:
            await app.turn_schedule(job, paused=action == "pause")
    raise web.HTTPSeeOther("/queue")


def _priority(given: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,18}", given):
        raise UsageError("a priority is a whole number with at most 18 digits")
    return int(given)


def _concurrency(given: str | None) -> int | None:
    """Return the number of requests in flight that the user wants; None leaves it to the policy."""
    if not given:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,5}", given) or int(given) > MOST_CONCURRENCY:
        raise UsageError(f"requests in flight are a number from 1 to {MOST_CONCURRENCY:,}, or nothing for automatic")
    return int(given)
