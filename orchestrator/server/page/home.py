"""The first page: what is awake and what it costs, what is being executed, what waits, and what failed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.domain import report_words as words
from orchestrator.domain.phrases import count, duration, money, rate
from orchestrator.domain.terms import cost_of
from orchestrator.report.listings import stands
from orchestrator.report.markup import Markup, joined, listed, tag
from orchestrator.server.context import context_of, identity_of
from orchestrator.server.ownership import discreet, may_read
from orchestrator.server.page.addresses import run_link
from orchestrator.server.page.curves import throughput
from orchestrator.server.page.layout import Page, badge, progress, respond, section, table, tiles
from orchestrator.server.remembered import known_causes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

    from orchestrator.domain.batch import Batch, BatchProgress
    from orchestrator.domain.batch_lines import BatchError
    from orchestrator.domain.report import RunReport
    from orchestrator.domain.report_data import AwakeWindow, Ran
    from orchestrator.engine.overview import LiveRun, Overview

_DAY = 86400.0
_REFUSED = 5  # batches that are listed; the page of batches has the others
_QUEUED = 12  # runs that are listed; the page of the queue has the others


async def home(request: web.Request) -> web.Response:
    """Answer with the first page."""
    overview = await context_of(request).app.overview(known_causes(request))
    executing = await discreet(request, [live.report.ran for live in overview.executing])
    overview = replace(
        overview,
        executing=[_of(live, ran) for live, ran in zip(overview.executing, executing, strict=True)],
        queue=[*await discreet(request, overview.queue[:_QUEUED]), *overview.queue[_QUEUED:]],
    )
    troubled = [run for run in overview.troubled if await may_read(request, run.ran.id)]
    batches, owner = context_of(request).app.store.batches, identity_of(request).only
    refused = await batches.refused(owner, since=overview.at - _DAY, limit=_REFUSED)
    body = [_awake(overview), _executing(overview), _waiting(overview), _failed(troubled, refused)]
    hourly, _ = _hourly(overview)
    tab = f"{len(overview.awake)} awake, {hourly}" if overview.awake else "Nothing is awake"
    return respond(Page("Now", body, "/", _spoken(overview), tab=tab, ticks=bool(overview.awake or overview.executing)))


def _of(live: LiveRun, ran: Ran) -> LiveRun:
    return replace(live, report=replace(live.report, ran=ran))


def _spoken(overview: Overview) -> str:
    return f"{count(len(overview.awake), 'endpoint')} awake, {count(len(overview.executing), 'run')} being executed"


# -- what is awake ----------------------------------------------------------------------------------------------------


def _awake(overview: Overview) -> Markup:
    figures = tiles(
        [
            (str(len(overview.awake)), "awake now"),
            _hourly(overview),
            (money(overview.spent), "today (UTC)"),
        ]
    )
    if not overview.awake:
        rest = tag("p", "Nothing is awake, and nothing is owed.", class_="notice good")
        return section("Awake", figures, rest, more=("/endpoints", "All endpoints"))
    rows = [_awake_row(window, overview.at) for window in overview.awake]
    heads = [("endpoint", "wide"), ("awake", "n"), ("cost so far", "n"), ("per hour", "n"), ("for", "wide")]
    return section(
        "Awake",
        figures,
        *(
            tag("p", words.debt_line(one, overview.at, None), class_="notice bad")
            for one in overview.awake
            if one.is_debt
        ),
        table(heads, rows, "Endpoints that are awake"),
        more=("/endpoints", "All endpoints"),
    )


def _hourly(overview: Overview) -> tuple[str, str]:
    """Return what all that is awake costs, and the words for it."""
    prices = [window.price_per_hour for window in overview.awake]
    known = [price for price in prices if price is not None]
    return f"{money(sum(known))}/h", "cost now" if len(known) == len(prices) else "cost now, and unknown prices"


def _awake_row(window: AwakeWindow, now: float) -> list[str]:
    seconds = max(0.0, now - window.billed_from)
    price = window.price_per_hour
    return [
        window.endpoint,
        duration(seconds),
        money(cost_of(seconds, price)),
        money(price),
        _users(window),
    ]


def _users(window: AwakeWindow) -> Markup:
    if window.is_debt:
        return tag("span", "nothing: its pause is owed", class_="badge bad")
    users = [
        joined(run_link(user.run, f"run {user.run}"), f" of {user.job}")
        if user.run
        else Markup(tag("span", f"{user.kept_by} keeps it awake" if user.kept_by else "being paused"))
        for user in window.users
    ]
    if not users:
        return tag("span", "was awake before, and is not ours to pause")
    return listed(users)


# -- what is being executed -------------------------------------------------------------------------------------------


def _executing(overview: Overview) -> Markup:
    runs = [_live_run(run) for run in overview.executing]
    rest = tag("p", "No run is being executed.", class_="empty")
    aside = count(len(runs), "run") if runs else ""
    return section("Being executed", *(runs or [rest]), aside=aside, more=("/runs", "All runs"))


def _live_run(live: LiveRun) -> Markup:
    report, ran = live.report, live.report.ran
    name, why = joined(run_link(ran.id, f"Run {ran.id}"), f" of {ran.job}"), words.why_line(report, None)
    return tag(
        "div",
        tag("h3", tag("span", name), badge(report.state)),
        *([tag("p", why, class_="soft")] if why else []),
        progress(ran.completed + ran.discarded, ran.total, "items settled"),
        tag("p", *(tag("span", part) for part in _figures(live)), class_="figures"),
        throughput(report.course),
        class_="row",
        id=f"run-{ran.id}",
    )


def _figures(live: LiveRun) -> list[str]:
    """Return the figures of a run that is being executed: items, rate, in flight, time and money left."""
    ran, cost = live.report.ran, live.report.cost
    parts = [f"{ran.completed + ran.discarded:,} of {ran.total:,} items"]
    parts.append(f"{rate(ran.rate)} items/s" if ran.rate else "no rate yet")
    parts.append(f"{ran.traffic.in_flight:,} in flight")
    parts.append(f"{duration(live.ahead.seconds)} left" if live.ahead.seconds is not None else "time left unknown")
    if cost is not None:
        parts.append(f"{money(cost.dollars)} so far")
    if live.ahead.dollars is not None:
        parts.append(f"{money(live.ahead.dollars)} to finish")
    return parts


# -- what waits, and what failed --------------------------------------------------------------------------------------


def _waiting(overview: Overview) -> Markup:
    queue = overview.queue
    daemon = "a daemon takes them" if overview.served else "no daemon is running: `orchestrator serve` executes them"
    if not queue:
        rest = tag("p", "No run waits.", class_="empty")
        return section(
            "Waiting", rest, aside="" if overview.served else "no daemon is running", more=("/queue", "Queue")
        )
    rows = [
        [
            run_link(one.id),
            one.job,
            str(one.priority) if one.priority else "",
            stands(one, overview.at),
        ]
        for one in queue[:_QUEUED]
    ]
    heads = [("run", "n"), ("job", "wide"), ("priority", "n"), ("until, why", "wide")]
    aside = f"{count(len(queue), 'run')}; {daemon}"
    return section("Waiting", table(heads, rows, "Runs that wait"), aside=aside, more=("/queue", "Queue"))


def _failed(troubled: Sequence[RunReport], refused: Sequence[BatchProgress]) -> Markup:
    if not (troubled or refused):
        rest = tag("p", "Nothing failed in the last 24 hours.", class_="empty")
        return section("Failed", rest)
    rows = [*(_trouble(run) for run in troubled), *(_refused(one.batch) for one in refused)]
    return section("Failed", *rows, aside="in the last 24 hours, newest first")


def _refused(batch: Batch) -> Markup:
    """Return a batch that failed its validation, with its first error: it has no run that would say so."""
    first = [tag("p", f"{_line(error)}{error.message}") for error in batch.errors[:1]]
    more = [tag("a", count(len(batch.errors), "error"), href=f"/batches/{batch.id}", class_="more")]
    name = tag("a", f"Batch {batch.id}", href=f"/batches/{batch.id}")
    return tag("div", tag("h3", name, tag("span", "failed", class_="badge bad"), *more), *first, class_="row")


def _line(error: BatchError) -> str:
    return "" if error.line is None else f"line {error.line:,}: "


def _trouble(run: RunReport) -> Markup:
    ran = run.ran
    name = joined(run_link(ran.id, f"Run {ran.id}"), f" of {ran.job}")
    more = (
        [tag("a", f"{ran.discarded:,} discarded", href=f"/runs/{ran.id}/failures", class_="more")]
        if ran.discarded
        else []
    )
    why = words.why_line(run, None)
    return tag(
        "div",
        tag("h3", tag("span", name), badge(run.state), *more),
        *([tag("p", why)] if why else []),
        tag("ul", *(tag("li", words.failure_line(one)) for one in run.failures), class_="causes")
        if run.failures
        else Markup(""),
        class_="row",
    )
