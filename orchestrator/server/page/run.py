"""One run, live: its state, counts, pace, what is ahead, curves, failures and events, and what can be done with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain import report_words as words
from orchestrator.domain.phrases import count, duration, money, rate
from orchestrator.report.markup import Markup, joined, tag
from orchestrator.report.run_section import BADGES, asks_table, facts
from orchestrator.server.context import context_of
from orchestrator.server.ownership import may_act, run_of
from orchestrator.server.page.actions import MOST_CONCURRENCY
from orchestrator.server.page.curves import curves
from orchestrator.server.page.layout import Page, action, badge, progress, respond, section, tiles
from orchestrator.server.remembered import known_causes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

    from orchestrator.domain.report import RunReport
    from orchestrator.engine.overview import LiveRun
    from orchestrator.run_log import LogLine

_EVENTS = 60  # lines
_UNKNOWN = "\N{EN DASH}"


async def run_page(request: web.Request) -> web.Response:
    """Answer with the page of a run."""
    app, number = context_of(request).app, str(run_of(request).id)
    live, now = await app.watched(number, known_causes(request))
    report = live.report
    ran = report.ran
    batch = await app.store.batches.id_of_run(ran.id)
    body = [
        tag("p", badge(report.state), " ", _sentence(report), _of_batch(batch), class_="state"),
        _why(report),
        _actions(request, report),
        _figures(live),
        section("Over time", curves(report.course)) if report.course or continues(report) else Markup(""),
        section("What was asked", asks_table(report)) if report.asks else Markup(""),
        _failures(report),
        section("Events", _log(await app.events(number, _EVENTS), report), aside="newest first, clocks are UTC"),
        section("Facts", facts(report, now, None)),
    ]
    spoken = f"run {ran.id} is {report.state}"
    return respond(Page(f"Run {ran.id} of {ran.job}", body, "/runs", spoken, run=ran.id, ticks=ran.executing))


def _sentence(report: RunReport) -> Markup:
    ran = report.ran
    done = f"{ran.completed:,} completed, {ran.discarded:,} discarded, {report.left:,} to do, of "
    return joined(done, tag("a", count(ran.total, "item"), href=f"/runs/{ran.id}/items"))


def _of_batch(batch: str | None) -> Markup:
    return Markup("") if batch is None else joined(", of batch ", tag("a", batch, href=f"/batches/{batch}"))


def _why(report: RunReport) -> Markup:
    """Return why the run is not finished. The line is there even if it is empty, so that nothing jumps."""
    command = [" Next: ", tag("code", report.next)] if report.next else []
    return tag("p", words.why_line(report, None), *command, class_=f"why {BADGES.get(report.state) or 'warn'}")


def _figures(live: LiveRun) -> Markup:
    report, ran = live.report, live.report.ran
    done = ran.completed + ran.discarded
    asked, cost = report.asked, report.cost
    figures = [(f"{done / ran.total:.1%}" if ran.total else _UNKNOWN, "settled")]
    if continues(report):
        figures += [
            (rate(ran.rate) if ran.rate else _UNKNOWN, "items/s"),
            (f"{ran.traffic.in_flight:,}", "requests in flight"),
            (_UNKNOWN if live.ahead.seconds is None else duration(live.ahead.seconds), "left"),
            (money(cost.dollars) if cost else _UNKNOWN, "cost so far"),
            (_UNKNOWN if live.ahead.dollars is None else money(live.ahead.dollars), "to finish"),
        ]
    else:
        figures += [
            (rate(asked.rate) if asked.rate else _UNKNOWN, "items/s while asking"),
            (f"{asked.requests:,}", "requests"),
            (money(cost.dollars) if cost else _UNKNOWN, "cost"),
        ]
    return tag("div", progress(done, ran.total, "items settled"), tiles(figures))


def continues(report: RunReport) -> bool:
    """Whether the run is executed or in the queue: its page has the same parts in both, so nothing jumps."""
    return report.ran.executing or report.ran.due_at is not None


def _failures(report: RunReport) -> Markup:
    ran = report.ran
    if not report.failures:
        none = tag("p", "No item is discarded.", class_="empty")
        return section("Failures", none) if continues(report) else Markup("")
    lines = tag("ul", *(tag("li", words.failure_line(one)) for one in report.failures), class_="causes")
    return section("Failures", lines, aside=count(ran.discarded, "item"), more=(f"/runs/{ran.id}/failures", "By cause"))


def _log(lines: Sequence[LogLine], report: RunReport) -> Markup:
    if not lines and not continues(report):
        return tag("p", "It has no log: nothing has executed it, or the log was deleted.", class_="empty")
    rows = [
        tag(
            "li",
            *([tag("time", _clock(line.at), title=line.at)] if line.at else []),
            line.text,
            class_=line.level or None,
        )
        for line in reversed(lines)
    ]
    return tag("ol", *(rows or [tag("li", "No event yet.")]), class_="log", tabindex="0", aria_label="Events")


def _clock(at: str) -> str:
    """Return the time of day in the moment of a log's line."""
    return at[11:19]


# -- actions ----------------------------------------------------------------------------------------------------------


def _actions(request: web.Request, report: RunReport) -> Markup:
    ran = report.ran
    if not may_act(request):
        return tag("div")
    at, name, found = f"/runs/{ran.id}", f"run {ran.id} of {ran.job}", list[Markup]()
    if not ran.state.ended:
        if ran.held:
            found.append(action(request, f"{at}/go", "Go on", done=f"Run {ran.id} goes on"))
        elif continues(report):
            ask = f"Hold {name}? Its answers in flight are kept, and its endpoints are paused until it goes on."
            found.append(action(request, f"{at}/hold", "Hold", ask=ask, done=f"Run {ran.id} is held"))
        ask = f"Cancel {name}? Completed items are kept, and the job's next run reuses them."
        found.append(action(request, f"{at}/cancel", "Cancel", ask=ask, done=f"Run {ran.id} is cancelled", danger=True))
        if continues(report):  # otherwise somebody has to run its job again
            found.append(_tune(request, report))
    if ran.discarded and not ran.executing:
        ask = f"Ask the {count(ran.discarded, 'discarded item')} of {name} again? Each attempt costs as much as before."
        found.append(action(request, f"{at}/retry", "Retry", ask=ask, done="They are queued to be asked again"))
    return tag("div", *found, class_="actions")


def _tune(request: web.Request, report: RunReport) -> Markup:
    ran = report.ran
    field = tag(
        "input",
        type="number",
        name="concurrency",
        min="1",
        max=str(MOST_CONCURRENCY),
        value=ran.concurrency,
        placeholder="auto",
        id="concurrency",
    )
    label = tag("label", "Requests in flight", for_="concurrency")
    return action(request, f"/runs/{ran.id}/tune", "Set", label, field, done="Set; empty means automatic")
