"""The queue and the schedules: until when each waits, why, and what can be done about it."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote

from anyio import to_thread

from orchestrator.domain.identity import Role
from orchestrator.domain.phrases import count
from orchestrator.engine.daemon.scheduling import timetable_of
from orchestrator.report.listings import last_words, next_words, stands
from orchestrator.report.markup import Markup, joined, listed, tag
from orchestrator.server.context import context_of, identity_of
from orchestrator.server.ownership import discreet, may_act, may_change
from orchestrator.server.page.addresses import run_link
from orchestrator.server.page.layout import Page, action, respond, section, table

if TYPE_CHECKING:
    from aiohttp import web

    from orchestrator.domain.queue import Queued
    from orchestrator.engine.daemon.scheduling import Timetable

_MOST = 200  # runs that are listed


async def queue_page(request: web.Request) -> web.Response:
    """Answer with the page of the queue and the schedules."""
    app = context_of(request).app
    queued, served = await app.queue()
    timetable, now = await timetable_of(app.store), time.time()
    body = []
    if not served:
        words = "No daemon is running, so nothing here begins. Start one: "
        body.append(tag("p", words, tag("code", "orchestrator serve"), class_="notice warn"))
    theirs = {one.id for one in queued[:_MOST] if await may_change(request, one.id)}
    queued[:_MOST] = await discreet(request, queued[:_MOST])
    body += [_runs(request, queued, theirs, now), await _schedules(request, timetable, now)]
    if timetable.broken:
        lines = [tag("li", f"{file.path}: {file.error}") for file in timetable.broken]
        body.append(section("Job files that cannot be loaded", tag("ul", *lines, class_="causes")))
    return respond(Page("Queue", body, "/queue", f"{count(len(queued), 'run')} in the queue", ticks=True))


# -- runs -------------------------------------------------------------------------------------------------------------


def _runs(request: web.Request, queued: list[Queued], theirs: set[int], now: float) -> Markup:
    if not queued:
        return section("Runs", tag("p", "The queue is empty.", class_="empty"))
    heads = [("run", "n"), ("job", "wide"), ("until, why", "wide"), ("endpoints", "")]
    heads.append(("priority", "n"))
    heads += [("what to do", "")] if may_act(request) else []
    rows = [_run_row(request, one, now, theirs=one.id in theirs) for one in queued[:_MOST]]
    rest = len(queued) - len(rows)
    more = tag("p", f"{count(rest, 'more run')} not shown", class_="soft small") if rest else Markup("")
    aside = f"{count(len(queued), 'run')}, in the order in which they are taken"
    return section("Runs", table(heads, rows, "Runs in the queue"), more, aside=aside)


def _run_row(request: web.Request, one: Queued, now: float, *, theirs: bool) -> list[str]:
    cells: list[str] = [
        run_link(one.id),
        one.job,
        _stands(one, now),
        ", ".join(one.endpoints),
    ]
    if not theirs:
        return [*cells, str(one.priority), *([""] if may_act(request) else [])]
    at, name = f"/queue/{one.id}", f"run {one.id} of {one.job}"
    field = tag("input", type="number", name="priority", value=one.priority, aria_label=f"Priority of run {one.id}")
    priority = action(request, f"{at}/prioritize", "Set", field, done=f"Run {one.id} has the priority")
    held = (
        action(request, f"{at}/go", "Go on", done=f"Run {one.id} goes on")
        if one.held
        else action(request, f"{at}/hold", "Hold", ask=f"Hold {name}? It waits until you let it go on.", done="Held")
    )
    ask = f"Cancel {name}? Completed items are kept, and the job's next run reuses them."
    cancel = action(request, f"{at}/cancel", "Cancel", ask=ask, done=f"Run {one.id} is cancelled", danger=True)
    return [*cells, priority, tag("div", held, cancel, class_="buttons")]


def _stands(one: Queued, now: float) -> str:
    """Return how a run stands, with links to the runs that it waits for."""
    if one.executing or one.held or not one.waits_for:
        return "held" if one.held and not one.executing else stands(one, now)
    links = listed(run_link(run) for run in one.waits_for)
    return joined("waits for run ", links, f" ({one.why})" if one.why else "")


# -- schedules --------------------------------------------------------------------------------------------------------


async def _schedules(request: web.Request, timetable: Timetable, now: float) -> Markup:
    if not timetable.schedules:
        return section("Schedules", tag("p", "There is no schedule.", class_="empty"))
    heads = [("job", "wide"), ("when", "when"), ("next", "wide"), ("last", "wide"), ("missed", "n")]
    heads += [("what to do", "")] if identity_of(request).role is Role.ADMIN else []
    rows = await to_thread.run_sync(partial(_schedule_rows, request, timetable, now))  # reads files of time zones
    return section("Schedules", table(heads, rows, "All schedules"), aside=count(len(rows), "schedule"))


def _schedule_rows(request: web.Request, timetable: Timetable, now: float) -> list[list[str]]:
    rows = []
    for one, last in timetable.schedules:
        at = f"/schedules/{quote(one.job, safe='')}"
        cells: list[str] = [one.job, f"{one.expression} {one.tz}", next_words(one, now), last_words(last)]
        cells.append(str(one.missed))
        if identity_of(request).role is Role.ADMIN:
            ask = f"Pause the schedule of {one.job}? Its slots pass, and are not counted as missed."
            paused = (
                action(request, f"{at}/resume", "Resume", done=f"The schedule of {one.job} goes on")
                if one.paused
                else action(request, f"{at}/pause", "Pause", ask=ask, done=f"The schedule of {one.job} is paused")
            )
            ask = f"Queue a run of {one.job} now, in addition to its slots?"
            run = action(request, f"{at}/fire", "Run now", ask=ask, done=f"A run of {one.job} is queued")
            cells.append(tag("div", paused, run, class_="buttons"))
        rows.append(cells)
    return rows
